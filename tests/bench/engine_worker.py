"""Replies of the tiny model on one device and on meshes of four; prints which are equal."""

import dataclasses
import json

from memr1_jax.bench.engine import Engine, Limits
from memr1_jax.bench.systems.protocol import Call
from memr1_jax.bench.tables.models import Models
from memr1_jax.parallel.mesh import make_mesh
from tests.tiny_model import tiny_folder

RULES = "You keep the memory of a dialogue. " * 6
FACTS = ("Ann has a dog.", "Ben likes tea and cake.", "Ann lives in Oslo.", "It rains.")
CALLS = [Call("answer", (("system", RULES), ("user", fact)), 6) for fact in FACTS]
CALLS += [Call("manage", (("user", fact),), 40, schema="compact", ids=2) for fact in FACTS]


def replies(mesh):
    """Returns the replies without the times."""
    models = Models(str(tiny_folder()), {}, "float32", mesh)
    engine = Engine(models, limits=Limits(rows=4), mesh=mesh)
    return [dataclasses.replace(reply, seconds=0.0) for reply in engine(CALLS)]


if __name__ == "__main__":
    alone = replies(None)
    meshes = ("data:4", "data:2,fsdp:2", "fsdp:2,tensor:2")
    print(json.dumps({spec: replies(make_mesh(spec)) == alone for spec in meshes}))

"""Runs in a process of its own with eight forced CPU devices; prints its findings as JSON.

python mesh_worker.py steps AGENT MESH MESH ...    each mesh against one device
python mesh_worker.py loops                        weights gathered in the loops of a rollout
"""

import dataclasses
import json
import math
import os
import re
import sys
from pathlib import Path
from unittest import mock

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from tiny_model import make_tiny, make_training  # noqa: E402

from memr1_jax.models.sampler import Sampling  # noqa: E402
from memr1_jax.parallel.activations import on_mesh  # noqa: E402
from memr1_jax.parallel.mesh import AXES, make_mesh, parse_mesh  # noqa: E402
from memr1_jax.parallel.rules import batch_sharding, replicated  # noqa: E402
from memr1_jax.parallel.step import place, shard_train_step, step_shardings  # noqa: E402
from memr1_jax.rl.update import create_optimizer, create_state  # noqa: E402
from memr1_jax.training import step as step_module  # noqa: E402
from memr1_jax.training.step import make_train_step  # noqa: E402

ROWS = 8
# SGD that keeps its last gradient: Adam would turn rounding of small gradients into whole steps.
OPTIMIZER = optax.sgd(1e-2, momentum=0.0)


def mesh_of(text):
    sizes = parse_mesh(text)
    return make_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


def arguments(agent):
    """State, frozen weights, tools and data; gradients do not hang on a lucky reward."""
    training = make_training(agent)
    params = jax.tree.map(np.asarray, make_tiny().model.params)
    reference = jax.tree.map(lambda x: x * np.float32(1.05), params)
    frozen = training.frozen.replace(reference=reference)
    state = create_state(jax.tree.map(jnp.asarray, params), OPTIMIZER, 0)
    return jax.tree.map(np.asarray, state.params), frozen, make_tiny().bench.tools, training.data


def step_of(agent):
    training = make_training(agent)
    algorithm = dataclasses.replace(
        training.algorithm, kl_weight=0.1, entropy_weight=0.1, micro_batches=1
    )
    return make_train_step(training.policy, algorithm, OPTIMIZER, reward="token_f1")


def run(step, placed, rows):
    state, found = placed[0], []
    for number in range(3):
        batch = jnp.asarray((np.arange(ROWS) + number) % rows, jnp.int32)
        state, metrics, rollout = step(state, *placed[1:], batch, jnp.ones(ROWS, bool))
        found.append(
            {
                "loss": float(metrics["loss"].value()),
                "tokens": np.asarray(rollout.samples.tokens),
                "gradient": jax.tree.map(np.asarray, state.opt_state[0].trace),
            }
        )
    return found, state


def largest_error(found, expected):
    """Largest difference of two trees, each leaf relative to its own largest entry."""
    errors = jax.tree.map(
        lambda a, b: float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)), found, expected
    )
    return max(jax.tree.leaves(errors))


def steps(agent, texts):
    params, frozen, tools, data = arguments(agent)

    def fresh():
        return create_state(jax.tree.map(jnp.asarray, params), OPTIMIZER, 0)

    step = step_of(agent)
    expected, last = run(step, (fresh(), frozen, tools, data), data.rows)
    expected_params = jax.tree.map(np.asarray, last.params)
    report = {"size": max(np.abs(x).max() for x in jax.tree.leaves(expected[0]["gradient"]))}
    report["size"] = float(report["size"])
    for text in texts:
        mesh = mesh_of(text)
        original = (fresh(), frozen, tools, data)
        sharded = shard_train_step(step, mesh, *original)
        found, state = run(sharded, place(mesh, *original), data.rows)
        report[text] = {
            "loss": max(
                abs(a["loss"] - b["loss"]) / abs(b["loss"])
                for a, b in zip(found, expected, strict=True)
            ),
            "tokens": all(
                np.array_equal(a["tokens"], b["tokens"])
                for a, b in zip(found, expected, strict=True)
            ),
            "gradient": largest_error(found[0]["gradient"], expected[0]["gradient"]),
            "params": largest_error(jax.tree.map(np.asarray, state.params), expected_params),
            "moments": jax.tree.all(
                jax.tree.map(
                    lambda p, m: p.sharding.is_equivalent_to(m.sharding, p.ndim),
                    state.params,
                    state.opt_state[0].trace,
                )
            ),
            "split": sum(
                not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params)
            ),
        }
    return report


def loops():
    """Shapes of weights that an all-gather makes inside a loop, with and without re-sharding."""
    training, tools = make_training("answer"), make_tiny().bench.tools
    mesh = mesh_of("fsdp:8")
    params = make_tiny().model.params
    placed = step_shardings(mesh, params, training.frozen, tools, training.data)

    def rollout(params, frozen, tools, data, rows, key):
        batch = data.select(rows, jnp.ones(ROWS, bool))
        with on_mesh(mesh):
            return training.policy.rollout(
                params, frozen, tools, batch, key, Sampling.create(1.0), group=2
            ).samples

    def compiled():
        program = jax.jit(
            lambda *inputs: rollout(*inputs),
            in_shardings=(*placed, batch_sharding(mesh), replicated(mesh)),
        )
        rows = jnp.zeros(ROWS, jnp.int32)
        inputs = (params, training.frozen, tools, training.data, rows, jax.random.key(0))
        return program.lower(*inputs).compile().as_text()

    weights = {tuple(sorted(d for d in x.shape if d > 1)) for x in jax.tree.leaves(params)}
    one_layer = {
        tuple(sorted(d for d in x.shape[1:] if d > 1)) for x in jax.tree.leaves(params["layers"])
    }
    weights = {shape for shape in weights | one_layer if len(shape) > 1}
    report = {"gathered_once": gathered_in_loops(compiled(), weights)}
    with mock.patch.object(
        step_module, "_for_rollout", lambda params, dtype: jax.tree.map(jnp.asarray, params)
    ):
        report["left_split"] = gathered_in_loops(compiled(), weights)
    return report


def gathered_in_loops(text, weights):
    """Results of all-gathers with the shape of a weight, in computations that a while calls."""
    bodies, name = {}, None
    for line in text.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.-]+) \(.*\{$", line):
            name = head[1]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    calls = {
        name: set(re.findall(r"%?([\w.-]+)", " ".join(_called(lines))))
        for name, lines in bodies.items()
    }
    inside, waiting = set(), []
    for lines in bodies.values():
        for line in lines:
            if found := re.search(r" while\(.*body=%?([\w.-]+)", line):
                waiting.append(found[1])
    while waiting:
        name = waiting.pop()
        if name in bodies and name not in inside:
            inside.add(name)
            waiting += calls[name]
    found = []
    for name in inside:
        for line in bodies[name]:
            if re.search(r" all-gather(-start)?\(", line):
                for dims in re.findall(r"\w+\[([\d,]*)\]", line.split(" all-gather")[0]):
                    shape = tuple(sorted(int(d) for d in dims.split(",") if d and d != "1"))
                    if shape in weights:
                        found.append(dims)
    return found


def _called(lines):
    keys = r"(?:to_apply|calls|body|condition|true_computation|false_computation)=%?([\w.-]+)"
    for line in lines:
        yield from re.findall(keys, line)
        yield from re.findall(r"(?:branch_computations|called_computations)=\{([^}]*)\}", line)


def moments():
    """Whether Adam's moments lie where their parameters do."""
    mesh = mesh_of("data:2,fsdp:2,tensor:2")
    params = make_tiny().model.params
    state = create_state(params, create_optimizer(1e-3), 0)
    placed = place(mesh, state, None, None, None).state
    adam = placed.opt_state[1][0]
    same = jax.tree.map(
        lambda p, m, v: p.sharding == m.sharding == v.sharding, placed.params, adam.mu, adam.nu
    )
    split = [not x.sharding.is_fully_replicated for x in jax.tree.leaves(adam.mu)]
    return {"same": jax.tree.all(same), "split": sum(split), "axes": list(AXES)}


if __name__ == "__main__":
    job, *rest = sys.argv[1:]
    report = {
        "steps": lambda: steps(rest[0], rest[1:]),
        "loops": loops,
        "moments": moments,
    }[job]()
    print("REPORT", json.dumps(report))

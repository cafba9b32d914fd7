"""The step on eight forced CPU devices against the step on one, in a process of its own.

Does jobs one after another, each an argument, and prints a line of JSON for each:

table                               all of it, as a table in Markdown
steps ALGORITHM AGENT MESH MESH ... each mesh
loops AGENT                         weights gathered in a rollout's loops
moments                             where Adam's moments lie
kernel                              a TPU kernel, interpreted, on a mesh
"""

import dataclasses
import functools
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "32"  # threads; one for each device is too few where two collectives overlap
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import quick_compile  # noqa: E402

quick_compile.use(devices=8)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from flax import traverse_util  # noqa: E402
from tiny_model import make_tiny, make_training  # noqa: E402

from memr1_jax.models import attention_kernels, splash  # noqa: E402
from memr1_jax.models.attention import Projected  # noqa: E402
from memr1_jax.models.sampler import Sampling  # noqa: E402
from memr1_jax.parallel.activations import on_mesh  # noqa: E402
from memr1_jax.parallel.mesh import AXES, make_mesh, parse_mesh  # noqa: E402
from memr1_jax.parallel.rules import batch_sharding, replicated  # noqa: E402
from memr1_jax.parallel.sharded_step import place, shard_train_step, step_shardings  # noqa: E402
from memr1_jax.rl.ppo import (  # noqa: E402
    Optimizers,
    PPOOptions,
    PPOState,
    create_ppo_state,
    ppo_update,
)
from memr1_jax.rl.update import create_optimizer, create_state, update  # noqa: E402
from memr1_jax.training import step as step_module  # noqa: E402
from memr1_jax.training.step import compile_step  # noqa: E402

MESHES = ("data:8", "fsdp:8", "tensor:4", "data:2,fsdp:2,tensor:2")
ALGORITHMS, AGENTS = ("grpo", "ppo"), ("answer", "manager")
HORIZONS = ("terminal", "branches")
ROWS = 8
# SGD that keeps its last gradient: Adam would turn rounding of small gradients into whole steps.
OPTIMIZER = optax.sgd(1e-2, momentum=0.0)
LOSSES = {"loss", "value_loss"}
ERRORS = ("loss", "gradient", "params", "value_loss", "critic_gradient", "critic_params")
TERMS = {"kl_weight": 0.1, "entropy_weight": 0.1}  # so no gradient depends on a lucky reward


class Case(NamedTuple):
    """One algorithm and agent: the step on one device, its arguments, a fresh state."""

    step: Callable
    state: Callable
    inputs: tuple  # frozen weights, tools and data


def mesh_of(text):
    sizes = parse_mesh(text)
    return make_mesh(sizes, jax.devices()[: math.prod(sizes.values())])


def parts_of_rows(text):
    """Returns among how many devices a mesh splits the rows of a batch."""
    sizes = parse_mesh(text)
    return math.prod(size for axis, size in sizes.items() if axis != "tensor")


def case_of(algorithm, agent):
    # Of episodes the agent is known by what earns it a reward.
    training = make_training(*(("manager", agent) if agent in HORIZONS else (agent,)))
    params = jax.tree.map(np.asarray, make_tiny().model.params)
    # Far enough away for scores that differ by much more than rounding.
    reference = jax.tree.map(lambda x: x * np.float32(1.2), params)
    if algorithm == "grpo":
        # Of two samples whose scores nearly tie, the difference is divided by little but itself.
        options = dataclasses.replace(training.algorithm, **TERMS, group=4, micro_batches=1)
        step = compile_step(update, training.policy, options, OPTIMIZER)
        # With seed 0 a draw of the second step lies 1.3e-8 from the border of two tokens, closer
        # than float32 tells apart, and the parameters by then differ by 3e-8.
        create = functools.partial(create_state, optimizer=OPTIMIZER, seed=1)
    else:
        options = PPOOptions(group=2, **TERMS, mini_batches=2, logit_chunk=32)
        optimizers = Optimizers(OPTIMIZER, OPTIMIZER)
        step = compile_step(ppo_update, training.policy, options, optimizers)
        width = make_tiny().model.config.model_width
        create = functools.partial(create_ppo_state, optimizers=optimizers, seed=0, width=width)
    return Case(
        step,
        lambda: create(jax.device_put(params)),
        (training.frozen.replace(reference=reference), *training.arguments[1:]),
    )


def networks(state):
    """Parameters and last gradient of the policy and, in PPO, of the critic."""
    found = {"": (state.params, state.opt_state[0].trace)}
    if isinstance(state, PPOState):
        found["critic_"] = state.critic, state.critic_opt_state[0].trace
    return found


def run(step, state, inputs, rows):
    """Runs three steps: losses and tokens of all, the first gradients, and the last state."""
    losses, tokens = {}, []
    for number in range(3):
        batch = jnp.asarray((np.arange(rows) + number) % inputs[-1].rows, jnp.int32)
        state, metrics, rollout = step(state, *inputs, batch, jnp.ones(rows, bool))
        for name in LOSSES & metrics.keys():
            losses.setdefault(name, []).append(float(metrics[name].value()))
        tokens.append(np.asarray(rollout.samples.tokens))
        if not number:
            first = jax.tree.map(np.asarray, networks(state))
    return {name: np.array(values) for name, values in losses.items()}, tokens, first, state


def largest_error(found, expected):
    """Returns two trees' largest difference, relative to the largest entry of its module.

    A module's only scalar, a bias, may be a sum that all but cancels; its kernel is not.
    """
    found, expected = map(traverse_util.flatten_dict, (found, expected))
    sizes = {}
    for path, leaf in expected.items():
        sizes[path[:-1]] = max(sizes.get(path[:-1], 1e-6), np.abs(leaf).max())
    return max(
        float(np.abs(found[path] - leaf).max() / sizes[path[:-1]])
        for path, leaf in expected.items()
    )


def steps(algorithm, agent, texts):
    """Compares each mesh with one device; `size` is that of the smaller of the gradients."""
    case = case_of(algorithm, agent)
    rows = max(parts_of_rows(text) for text in texts)
    losses, tokens, first, last = run(case.step, case.state(), case.inputs, rows)
    last = jax.tree.map(np.asarray, networks(last))
    sizes = [max(np.abs(x).max() for x in jax.tree.leaves(g)) for _, g in first.values()]
    report = {"size": float(min(sizes))}
    for text in texts:
        mesh = mesh_of(text)
        original = (case.state(), *case.inputs)
        sharded = shard_train_step(case.step, mesh, *original)
        placed = place(mesh, *original)
        found, sampled, gradients, state = run(sharded, placed.state, placed[1:], rows)
        report[text] = here = {
            "tokens": bool(np.array_equal(sampled, tokens)),
            "moments": True,
            "split": 0,
        }
        for name, expected in losses.items():
            here[name] = float(np.abs(found[name] - expected).max() / np.abs(expected).max())
        for name, (params, moments) in networks(state).items():
            here[f"{name}gradient"] = largest_error(gradients[name][1], first[name][1])
            here[f"{name}params"] = largest_error(jax.tree.map(np.asarray, params), last[name][0])
            here["moments"] &= jax.tree.all(
                jax.tree.map(
                    lambda p, m: p.sharding.is_equivalent_to(m.sharding, p.ndim), params, moments
                )
            )
            here["split"] += sum(
                not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(params)
            )
    return report


def table():
    """Prints the errors of all algorithms, agents and meshes as a table in Markdown."""
    heads = ("algorithm", "agent", "mesh", *(name.replace("_", " ") for name in ERRORS))
    print("|", " | ".join(heads), "|\n" + "|---" * len(heads) + "|", flush=True)
    for algorithm, agent in itertools.product(ALGORITHMS, AGENTS):
        report = steps(algorithm, agent, MESHES)
        for text in MESHES:
            errors = [f"{report[text][x]:.1e}" if x in report[text] else "" for x in ERRORS]
            print("|", " | ".join((algorithm, agent, text, *errors)), "|", flush=True)
        jax.clear_caches()


def loops(agent):
    """Shapes of weights that an all-gather makes inside a loop, with and without re-sharding."""
    training, tools = make_training(agent), make_tiny().pair.tools
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
        step_module,
        "rollout_weights",
        lambda params, dtype, int8=False: jax.device_put(params),
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
    """Tells whether Adam's moments lie where their parameters do."""
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


def kernel():
    """Compares splash attention divided over a mesh with XLA's attention on one device.

    Differences of gradients are relative to the largest entry.
    """
    splash.INTERPRET = True
    rng = np.random.default_rng(0)

    def block(*lead, length):
        query = rng.normal(size=(*lead, length, 4, 64)).astype(np.float32)
        keys = rng.normal(size=(2, *lead, 2, length, 64)).astype(np.float32)
        return Projected(query, *keys, rng.integers(1, length + 1, lead).astype(np.int32))

    above, *blocks = block(length=5), block(4, length=90), block(4, 2, length=30)

    def gradients(kernel, mesh, above, arrays):
        def total(above, arrays):
            given = [Projected(*found, x.length) for found, x in zip(arrays, blocks, strict=True)]
            with on_mesh(mesh):
                found = attention_kernels.attend_chain(kernel, given, [above.above])
            parts = 0
            for x, block in zip(found, blocks, strict=True):
                real = jnp.arange(x.shape[-3]) < block.length[..., None]
                parts += jnp.sin(jnp.where(real[..., None, None], x, 0)).sum()
            return parts

        return jax.grad(total, (0, 1), allow_int=True)(above, arrays)

    arrays, mesh = [block[:3] for block in blocks], mesh_of("data:2,fsdp:2,tensor:2")
    whole = replicated(mesh)
    programs = (
        jax.jit(functools.partial(gradients, "splash", mesh), in_shardings=(whole, whole)),
        jax.jit(functools.partial(gradients, "xla", None)),
    )
    results = []
    for program in programs:
        above_gradient, rest = program(above, arrays)
        results.append(jax.tree.leaves((above_gradient[1:3], rest)))
    text = str(programs[0].trace(above, arrays).jaxpr)
    pairs = zip(*jax.device_get(results), strict=True)
    error = max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)
    return {"error": error, "divided": "shard_map" in text}


if __name__ == "__main__":
    for job, *rest in map(str.split, sys.argv[1:]):
        if job == "table":
            table()
        else:
            report = {
                "steps": lambda: steps(*rest[:2], rest[2:]),  # noqa: B023
                "loops": lambda: loops(*rest),  # noqa: B023
                "moments": moments,
                "kernel": kernel,
            }[job]()
            print("REPORT", json.dumps(report))

r"""Measures the update over a block chain against repeated prompts, and decoding.

Times of decoding are compared with what the machine's memory and arithmetic allow.

Every ratio compares two things measured in the same run; weights are random.

    python -m experiments.bench_step --model=smollm2-135m
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command_line import run
from memr1_jax.models.decoder import REMAT_POLICIES, Block, Decoder, init_params
from memr1_jax.models.decoder_config import PRESETS
from memr1_jax.models.sampler import Sampling, generate
from memr1_jax.options import at_least, option
from memr1_jax.planner.step_profile import PHASES, profile
from memr1_jax.rl.advantages import group_advantages
from memr1_jax.rl.update import Experience, GRPOOptions, create_optimizer, create_state, update
from memr1_jax.run.progress import table

SHORT, LONG = 8, 72  # tokens; their difference is decoding without prefill
ARRAY_BYTES = 2**29  # of the array whose sum measures the memory's bandwidth
MATRIX = 2048  # rows and columns of the matrices whose product measures arithmetic


@dataclasses.dataclass(frozen=True)
class BenchStepConfig:
    """Set what is measured, and how often."""

    model: str = option("smollm2-135m", "Preset of the decoder.", tuple(sorted(PRESETS)))
    prompt: int = option(1024, "Prompt length in tokens.", within=at_least(4))
    response: int = option(64, "Response length in tokens.", within=at_least(1))
    group: int = option(8, "Samples a prompt.", within=at_least(2))
    repeats: int = option(3, "Timed runs of each; the median counts.", within=at_least(1))
    remat: str = option("dots", "What the backward pass keeps.", (*REMAT_POLICIES, "none"))
    update: bool = option(True, "Measure the update.")
    decode: bool = option(True, "Measure decoding.")
    profile: bool = option(
        False, "Print what the seconds of the update over a chain are made of, on a CPU."
    )


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Returns the median wall time of calls, after one that warms up."""
    return interleaved([function], repeats)[0]


def interleaved(
    functions: list[Callable[[], Any]],
    repeats: int,
    clock: Callable[[], np.ndarray | float] = time.perf_counter,
) -> list[Any]:
    """Times each function (median), called in turn, so that a busy machine slows all alike."""
    times = [[] for _ in functions]
    for function in functions:
        jax.block_until_ready(function())
    for _ in range(repeats):
        for record, function in zip(times, functions, strict=True):
            start = clock()
            jax.block_until_ready(function())
            record.append(clock() - start)
    return [np.median(record, axis=0) for record in times]


def wall_and_processor() -> np.ndarray:
    """Reads two clocks in seconds; the second, of all threads, barely feels other processes."""
    return np.array([time.perf_counter(), time.process_time()])


def full_block(tokens: jax.Array) -> Block:
    """Makes a block without padding."""
    return Block(tokens, jnp.full(tokens.shape[:-1], tokens.shape[-1], jnp.int32))


def make_experience(prompt: jax.Array, response: jax.Array, rewards: jax.Array) -> Experience:
    """Makes experience of prompts `[B, P]`, responses `[B, G, R]` and rewards `[B, G]`."""
    return Experience(
        prompt=full_block(prompt),
        response=full_block(response),
        logprobs=jnp.zeros(response.shape, jnp.float32),
        rewards=rewards,
        stopped=jnp.ones(rewards.shape, bool),
        valid=jnp.ones(rewards.shape[0], bool),
        shown=jnp.zeros(rewards.shape[0], jnp.int32),
    )


def bench_update(options: BenchStepConfig, decoder: Decoder, params: dict) -> None:
    """Prints time and memory of the same update over a block chain and over repeated prompts."""
    group, vocab = options.group, decoder.config.vocab_size
    key = jax.random.key(1)
    prompt = jax.random.randint(key, (1, options.prompt), 0, vocab)
    response = jax.random.randint(key, (1, group, options.response), 0, vocab)
    rewards = (jnp.arange(group) % 2).astype(jnp.float32)[None]
    algorithm = GRPOOptions(group=group, advantage="dr_grpo", kl_weight=0.0)
    optimizer = create_optimizer(1e-6)
    cut = options.prompt // 4  # what is instruction, what is prompt
    # A group of one has its reward as its advantage.
    advantages = group_advantages(rewards, algorithm.advantage).reshape(group, 1)
    forms = {
        "block chain": (
            full_block(prompt[0, :cut]),
            make_experience(prompt[:, cut:], response, rewards),
        ),
        "repeated prompts": (
            full_block(prompt[0, :0]),
            make_experience(jnp.repeat(prompt, group, axis=0), response[0, :, None], advantages),
        ),
    }

    if options.profile:
        del forms["repeated prompts"]

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, instruction, experience):
        return update(algorithm, decoder, optimizer, state, None, instruction, experience)

    state = create_state(params, optimizer, 0)
    programs = [step.lower(state, *form).compile() for form in forms.values()]
    norms = []

    def call(program, form):
        nonlocal state
        state, metrics = program(state, *form)
        norms.append(metrics["gradient_norm"].sum)
        return metrics

    times = interleaved(
        [
            functools.partial(call, program, form)
            for program, form in zip(programs, forms.values(), strict=True)
        ],
        options.repeats,
        wall_and_processor,
    )
    memory = []
    for program in programs:
        analysis = program.memory_analysis()
        memory.append(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes)
    rows = [
        [
            name,
            *(
                f"{value:.2f}"
                for pair in zip(took, times[-1] / took, strict=True)
                for value in pair
            ),
            f"{used / 2**30:.2f}",
        ]
        for name, took, used in zip(forms, times, memory, strict=True)
    ]
    table(
        f"Update: prompt {options.prompt}, response {options.response}, group {group}",
        ["form", "seconds", "times faster", "CPU seconds", "times less", "peak GiB"],
        rows,
    )
    print(
        "Peak memory is the compiler's count: temporaries and arguments, Adam's moments included."
    )
    print(f"Gradient norms: {', '.join(f'{norm:.6g}' for norm in norms[: len(forms)])}.")
    if options.profile:
        program, form = programs[0], forms["block chain"]
        found = profile(program, functools.partial(call, program, form), options.repeats)
        _print_profile(found, times[0][0])


def _print_profile(found: dict[str, dict[str, float]], wall: float) -> None:
    """Prints the seconds of an update by part and phase."""
    whole = {phase: sum(phases[phase] for phases in found.values()) for phase in PHASES}
    total, rows = sum(whole.values()), []
    for part, phases in [*found.items(), ("sum", whole)]:
        own = sum(phases.values())
        seconds_of = [f"{value:.2f}" for value in (*(phases[phase] for phase in PHASES), own)]
        rows.append([part, *seconds_of, f"{100 * own / total:.0f}"])
    table("Parts of the update over a block chain, seconds", ["part", *PHASES, "sum", "%"], rows)
    print(f"Without the profiler the update takes {wall:.2f} s.")


def bench_decode(options: BenchStepConfig, decoder: Decoder, params: dict) -> None:
    """Prints the time of a decoded token, and what the machine's memory and arithmetic allow."""
    group = options.group
    tokens = jax.random.randint(
        jax.random.key(1), (1, options.prompt), 0, decoder.config.vocab_size
    )

    @functools.partial(jax.jit, static_argnums=2)
    def decode(params, tokens, count):
        blocks = (full_block(tokens),)
        sizes = {"group": group, "max_tokens": count, "stop_tokens": ()}
        sampling = Sampling.create()
        return generate(decoder, params, blocks, jax.random.key(0), sampling, **sizes).tokens

    parts = {
        "vocabulary projection": functools.partial(_vocabulary, decoder, params, group),
        "layers' projections": functools.partial(_projections, params["layers"], group),
    }
    short, long, *part_times = interleaved(
        [lambda: decode(params, tokens, SHORT), lambda: decode(params, tokens, LONG)]
        + list(parts.values()),
        options.repeats,
    )
    step = (long - short) / (LONG - SHORT)
    size = _bytes_read(decoder, params)
    bandwidth, arithmetic = _bandwidth(options.repeats), _arithmetic(options.repeats)
    flops = 2 * group * size / 4  # one multiplication and one addition a float32 weight and row

    rows = [["step", f"{1e3 * step:.1f}", "100"]]
    rows += [
        [name, f"{1e3 * took:.1f}", f"{100 * took / step:.0f}"]
        for name, took in zip(parts, part_times, strict=True)
    ]
    rest = step - sum(part_times)
    rows.append(["attention, sampling, rest", f"{1e3 * rest:.1f}", f"{100 * rest / step:.0f}"])
    title = f"Decoding: prompt {options.prompt}, group {group}, prefill excluded"
    table(title, ["part", "ms", "percent"], rows)
    reached = size / step / 1e9
    compute = flops / step / 1e9
    print(f"{group / step:.0f} tokens/s; {size / 1e6:.0f} MB of weights read a step.")
    print(
        f"Memory: {reached:.1f} of {bandwidth:.1f} GB/s ({100 * reached / bandwidth:.0f} percent)."
        f" Arithmetic: {compute:.1f} of the {arithmetic:.1f} GFLOP/s of a large product"
        f" ({100 * compute / arithmetic:.0f} percent)."
    )
    limit = "arithmetic" if compute / arithmetic > reached / bandwidth else "memory bandwidth"
    matmul = sum(part_times) / step
    print(
        f"Nearest limit: {limit}; {100 * matmul:.0f} percent of a step are products of {group} rows"
        f" with weights, at {flops / sum(part_times) / 1e9:.1f} GFLOP/s."
    )


def _bytes_read(decoder, params):
    """Counts bytes of weights that a decoded token reads; of an untied embedding, single rows."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    return size if decoder.config.tie_embeddings else size - params["embed"]["embedding"].nbytes


def _vocabulary(decoder, params, rows):
    hidden = jnp.ones((rows, decoder.config.model_width), decoder.dtype)
    return _logits(decoder, params, hidden)


@functools.partial(jax.jit, static_argnums=0)
def _logits(decoder, params, hidden):
    return decoder.apply({"params": params}, hidden, method=Decoder.logits)


@functools.partial(jax.jit, static_argnums=1)
def _projections(layers, rows):
    """Computes all layers' matrix products alone; each input depends on the product before."""

    def product(module, x):
        kernel = module["kernel"]
        return x.reshape(rows, -1) @ kernel.reshape(x.size // rows, -1)

    def one_layer(x, layer):
        attention, mlp = layer["attention"], layer["mlp"]
        narrow = product(attention["key"], x).sum() + product(attention["value"], x).sum()
        x = product(attention["output"], product(attention["query"], x) + narrow)
        return product(mlp["down"], product(mlp["gate"], x) * product(mlp["up"], x)), None

    width = layers["mlp"]["down"]["kernel"].shape[-1]
    return jax.lax.scan(one_layer, jnp.ones((rows, width)), layers)[0]


def _bandwidth(repeats):
    """Measures bytes read a second, in GB, by the sum of a large array."""
    array = jnp.ones((ARRAY_BYTES // 4,), jnp.float32)
    total = jax.jit(jnp.sum)
    return ARRAY_BYTES / seconds(lambda: total(array), 3 * repeats) / 1e9


def _arithmetic(repeats):
    """Measures GFLOP/s of one large float32 matrix product."""
    matrix = jnp.ones((MATRIX, MATRIX), jnp.float32)
    product = jax.jit(jnp.matmul)
    return 2 * MATRIX**3 / seconds(lambda: product(matrix, matrix), repeats) / 1e9


def main(options: BenchStepConfig) -> None:
    """Measures what the options ask for."""
    config = PRESETS[options.model]
    decoder = Decoder(config, remat=options.remat)
    params = jax.jit(functools.partial(init_params, config))(jax.random.key(0))
    print(f"{options.model}: {config.num_parameters / 1e6:.1f} million random float32 weights.")
    if options.decode:
        bench_decode(options, decoder, params)
    if options.update:
        bench_update(options, decoder, params)


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(BenchStepConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()

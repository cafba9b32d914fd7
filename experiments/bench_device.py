"""Measures one device in a few minutes: checks its arithmetic and times it.

Prints parity of one GRPO step with the CPU, then for each model (random weights) tokens a second of
rollout and update, the shares of the device's peaks that they reach, and both with the device's
attention kernel and with XLA's. All figures are written to one JSON file, after every part.

    python -m experiments.bench_device --output=h200.json
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.bench_step import full_block, make_experience, seconds
from experiments.command_line import run
from memr1_jax.errors import UserError
from memr1_jax.models.attention_kernels import choose_kernel
from memr1_jax.models.decoder import Decoder, init_params
from memr1_jax.models.decoder_config import PRESETS, DecoderConfig
from memr1_jax.models.loading import compute_dtype
from memr1_jax.models.sampler import Sampling, generate, rollout_weights
from memr1_jax.options import above, at_least, option
from memr1_jax.planner.chips import peaks_of
from memr1_jax.planner.roofline import (
    COMPUTE,
    Layout,
    Lengths,
    decode_work,
    prefill_work,
    update_work,
)
from memr1_jax.rl.update import GRPOOptions, create_state, update
from memr1_jax.run.files import writable_file, write_json_atomic
from memr1_jax.run.progress import table

# Of the step that is compared with the CPU: long enough for the kernels, short enough for a CPU.
SMALL = dataclasses.replace(PRESETS["tiny"], head_size=64)
PARITY = Lengths(instruction=7, prompt=160, response=24, prompts=2, group=4)


@dataclasses.dataclass(frozen=True)
class BenchDeviceConfig:
    """Set what is measured, and for how long."""

    models: str = option("smollm2-135m,llama-3.2-1b,llama-3.2-3b", "Presets, smallest first.")
    prompts: int = option(4, "Prompts of a batch.", within=at_least(1))
    group: int = option(8, "Samples a prompt.", within=at_least(2))
    prompt: int = option(1024, "Prompt length in tokens.", within=at_least(4))
    response: int = option(128, "Response length in tokens.", within=at_least(2))
    repeats: int = option(3, "Timed runs of each; the median counts.", within=at_least(1))
    dtype: str = option("auto", "Number format.", ("auto", "float32", "bfloat16"))
    attention: str = option("auto", "Attention kernel.", ("auto", "xla", "splash", "cudnn"))
    budget: float = option(300.0, "Seconds after which no further part begins.", within=above(0))
    output: str = option("bench_device.json", "The file of all figures.")


def chain(config: DecoderConfig, lengths: Lengths) -> tuple:
    """Draws an instruction and experience at full lengths, with rewards that differ."""
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = (
        (lengths.instruction,),
        (lengths.prompts, lengths.prompt),
        (lengths.prompts, lengths.group, lengths.response),
    )
    drawn = [
        jax.random.randint(key, shape, 0, config.vocab_size)
        for key, shape in zip(keys, shapes, strict=True)
    ]
    rewards = (jnp.arange(lengths.responses) % 3).astype(jnp.float32)
    rewards = rewards.reshape(lengths.prompts, lengths.group)
    return full_block(drawn[0]), make_experience(*drawn[1:], rewards)


def step_of(decoder: Decoder, group: int) -> Callable:
    """Returns one GRPO update with a reference; a plain gradient step shows the gradient."""
    algorithm = GRPOOptions(group=group, kl_weight=0.1, kl_placement="loss")
    return functools.partial(update, algorithm, decoder, optax.sgd(1.0))


def gradient_of_step(config: DecoderConfig, dtype: Any, kernel: str, device: Any) -> tuple:
    """Computes loss and gradient of one small step on a device."""
    with jax.default_device(device), jax.default_matmul_precision("highest"):
        params, reference = (init_params(config, jax.random.key(seed)) for seed in (0, 1))
        step = jax.jit(step_of(Decoder(config, dtype, kernel=kernel), PARITY.group))
        state = create_state(params, optax.sgd(1.0), 0)
        after, metrics = step(state, reference, *chain(config, PARITY))
        gradient = jax.tree.map(jnp.subtract, params, after.params)
        return jax.device_get((metrics["loss"].value(), gradient))


def parity(dtype: Any, kernel: str, config: DecoderConfig = SMALL) -> list[dict]:
    """Compares a step on this device with the same in float32 on the CPU.

    In float32, then in the number format and with the attention kernel that training would use.
    """
    device, cpu = jax.devices()[0], jax.local_devices(backend="cpu")[0]
    loss, gradient = gradient_of_step(config, jnp.float32, "xla", cpu)
    norm = float(optax.tree.norm(gradient))
    found = []
    for form in dict.fromkeys([(jnp.dtype("float32"), "xla"), (jnp.dtype(dtype), kernel)]):
        other_loss, other = gradient_of_step(config, *form, device)
        apart = optax.tree.norm(jax.tree.map(jnp.subtract, other, gradient))
        found.append(
            {
                "dtype": form[0].name,
                "attention": form[1],
                "loss": float(other_loss),
                "loss_on_cpu": float(loss),
                "gradient_error": float(apart) / norm,
            }
        )
    return found


class Measured:
    """The figures so far: written after each part, and none begun after the budget."""

    def __init__(self, options: BenchDeviceConfig):
        """Opens the file; UserError where it cannot be written."""
        self.path = writable_file(options.output)
        self.began, self.budget = time.perf_counter(), options.budget
        self.figures: dict[str, Any] = {}

    def add(self, name: str, part: Callable[[], Any]) -> Any:
        """Measures a part, or notes why it has no figures; returns them or None."""
        elapsed = time.perf_counter() - self.began
        if elapsed > self.budget:
            self.figures[name] = {"not_measured": f"{elapsed:.0f} seconds had passed"}
        else:
            try:
                self.figures[name] = part()
            except RuntimeError as error:  # most often the memory is too small
                self.figures[name] = {"not_measured": str(error).splitlines()[0][:200]}
        self.figures["seconds"] = round(time.perf_counter() - self.began, 1)
        write_json_atomic(self.path, self.figures)
        found = self.figures[name]
        if isinstance(found, dict) and "not_measured" in found:
            print(f"{name}: not measured, {found['not_measured']}.", flush=True)
            return None
        return found


def peaks(dtype: Any, repeats: int, width: int = 4096, array: int = 2**29) -> dict[str, float]:
    """Measures operations a second of a large product, and bytes a second of a sum."""
    if jax.default_backend() == "cpu":
        width //= 4
    matrix, row = jnp.ones((width, width), dtype), jnp.ones(array // 4, jnp.float32)
    product, total = jax.jit(jnp.matmul), jax.jit(jnp.sum)
    return {
        "flops": 2 * width**3 / seconds(lambda: product(matrix, matrix), repeats),
        "bandwidth": array / seconds(lambda: total(row), repeats),
    }


def rollout_figures(options, config, dtype, kernel, lengths, peak) -> dict[str, float]:
    """Times prefill and decoding of a batch."""
    decoder = Decoder(config, dtype, kernel=kernel)
    params = _weights(config, dtype)
    instruction, experience = chain(config, lengths)

    @functools.partial(jax.jit, static_argnums=1)
    def sample(params, count):
        blocks, sizes = (instruction, experience.prompt), {"group": lengths.group}
        key, sampling = jax.random.key(0), Sampling.create()
        return generate(
            decoder, params, blocks, key, sampling, max_tokens=count, stop_tokens=(), **sizes
        ).tokens

    whole = seconds(lambda: sample(params, lengths.response), options.repeats)
    prefill = seconds(lambda: sample(params, 1), options.repeats)
    flops = prefill_work(config, lengths, Layout()).flops
    # The work counts bfloat16 numbers.
    moved = decode_work(config, lengths, Layout()).bytes * jnp.dtype(dtype).itemsize / COMPUTE
    return {
        "seconds": whole,
        "prefill_seconds": prefill,
        "tokens_a_second": lengths.responses * lengths.response / whole,
        "prefill_share_of_flops": flops / prefill / peak["flops"],
        "decode_share_of_bandwidth": moved / max(whole - prefill, 1e-9) / peak["bandwidth"],
    }


def update_figures(options, config, dtype, kernel, lengths, peak) -> dict[str, float]:
    """Times reference pass and gradient of the same batch, by micro-batches of one prompt."""
    decoder = Decoder(config, dtype, remat="full", kernel=kernel)
    algorithm = GRPOOptions(
        group=lengths.group, kl_weight=0.1, kl_placement="loss", micro_batches=lengths.prompts
    )
    step = jax.jit(functools.partial(update, algorithm, decoder, optax.sgd(1e-6)), donate_argnums=0)
    instruction, experience = chain(config, lengths)
    state = create_state(_weights(config, jnp.float32), optax.sgd(1e-6), 0)
    reference = _weights(config, dtype)

    def call():
        nonlocal state
        state, metrics = step(state, reference, instruction, experience)
        return metrics

    took = seconds(call, options.repeats)
    flops = update_work(config, lengths, Layout(), remat="full").flops
    flops += prefill_work(config, lengths, Layout()).flops  # no less than the reference pass
    return {
        "seconds": took,
        "tokens_a_second": lengths.tokens / took,
        "share_of_flops": flops / took / peak["flops"],
    }


def _weights(config, dtype):
    return jax.jit(lambda key: rollout_weights(init_params(config, key), dtype))(jax.random.key(0))


def bench_model(options, measured, name, dtype, kernel, peak) -> None:
    """Measures one model with each kernel and prints a table."""
    config = PRESETS[name]
    lengths = Lengths(64, options.prompt, options.response, options.prompts, options.group)
    rows = []
    for form in dict.fromkeys([kernel, "xla"]):
        for job, figures in (("rollout", rollout_figures), ("update", update_figures)):
            part = functools.partial(figures, options, config, dtype, form, lengths, peak)
            found = measured.add(f"{name} {job} {form}", part)
            if found:
                share = found.get("share_of_flops", found.get("prefill_share_of_flops"))
                moved = found.get("decode_share_of_bandwidth")
                percent = ["" if x is None else f"{100 * x:.1f}" for x in (share, moved)]
                rows.append(
                    [job, form, found["seconds"], round(found["tokens_a_second"]), *percent]
                )
            jax.clear_caches()
    columns = ["part", "attention", "seconds", "tokens/s", "% of FLOPs", "% of bandwidth"]
    title = f"{name}: {lengths.prompts} x {lengths.group} responses of {lengths.response} tokens"
    if rows:
        table(f"{title} to prompts of {lengths.instruction + lengths.prompt}", columns, rows)


def main(options: BenchDeviceConfig) -> None:
    """Measures what the options ask for."""
    names = [name.strip() for name in options.models.split(",") if name.strip()]
    if unknown := [name for name in names if name not in PRESETS]:
        raise UserError(
            f"--models names {', '.join(unknown)}. The presets are {', '.join(sorted(PRESETS))}."
        )
    measured, device = Measured(options), jax.devices()[0]
    dtype = compute_dtype(options.dtype)
    kernel = choose_kernel(options.attention, dtype)
    measured.figures |= {
        "device": device.device_kind,
        "jax": jax.__version__,
        "dtype": jnp.dtype(dtype).name,
        "attention": kernel,
        "options": dataclasses.asdict(options),
    }
    print(f"{device.device_kind}, JAX {jax.__version__}, {jnp.dtype(dtype).name}, {kernel}.")
    if rows := measured.add("parity", lambda: parity(dtype, kernel)):
        table("One step compared with the CPU's", list(rows[0]), [list(r.values()) for r in rows])
    own = measured.add("peaks", lambda: peaks(dtype, options.repeats))
    if known := peaks_of(device.device_kind):
        measured.figures["peaks_of_data_sheet"] = dict(
            zip(("flops", "bandwidth"), known, strict=True)
        )
    peak = measured.figures.get("peaks_of_data_sheet") or own
    if peak is None:
        raise UserError("Not even a matrix product could be measured on this device.")
    whose = "its data sheet" if known else "what a large product and a sum reached"
    print(f"Shares are of {whose}: {peak['flops']:.3g} FLOP/s, {peak['bandwidth']:.3g} bytes/s.")
    for name in names:
        bench_model(options, measured, name, dtype, kernel, peak)
    print(f"{measured.figures['seconds']} seconds; all figures are in {measured.path}.")


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(BenchDeviceConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()

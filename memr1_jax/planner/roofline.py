"""Arithmetic and traffic of a train step, counted from shapes alone, and what they cost on chips.

    seconds = max(operations / peak, bytes / bandwidth)

A lower bound: every chip always works at its peak, and nothing waits for the network. Operations
are those that the model needs (model FLOPs: a multiplication and an addition are two): causal
attention counts visible pairs only, recomputation in the backward pass counts where it is asked
for. Bytes are those that the program cannot avoid: weights once a pass, keys and values, kept
activations, gradients, optimiser state. A cache has its full length from the first token on.

Axis letters: L layers, D model width, N query heads, K key/value heads, H head size, F feed-forward
width, V vocabulary, T tokens of a block, S keys above it.
"""

import dataclasses
import math
from typing import Any

from memr1_jax.models.families import SLIDING
from memr1_jax.planner.chips import Chip

COMPUTE = 2  # bytes of a number in arithmetic: bfloat16
MASTER = 4  # bytes of a trained number, its gradient and each of its moments: float32
BACKWARD = {"none": 2, "dots": 2, "full": 3}  # forward passes that a backward pass is worth


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Tokens of a block chain: one instruction, `prompts` prompts, `group` responses to each."""

    instruction: int
    prompt: int
    response: int
    prompts: int
    group: int

    @property
    def responses(self) -> int:
        """Responses in all."""
        return self.prompts * self.group

    @property
    def tokens(self) -> int:
        """Tokens of the whole chain, each block counted once."""
        above = self.instruction + self.prompts * self.prompt
        return above + self.responses * self.response


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations of all chips together, and bytes that one device moves through its memory."""

    flops: float
    bytes: float

    def times(self, count: float) -> "Work":
        """Multiplies the work by `count`."""
        return Work(count * self.flops, count * self.bytes)

    def seconds(self, chip: Chip, devices: int) -> float:
        """Returns the least time on `devices` of a chip."""
        return max(self.flops / devices / chip.device_flops, self.bytes / chip.device_bandwidth)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of the mesh axes, and parts of a batch that are computed one after another."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1
    micro_batches: int = 1

    @property
    def axes(self) -> dict[str, int]:
        """Sizes of the mesh axes."""
        return {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}

    @property
    def rows(self) -> int:
        """Devices that prompts are split over."""
        return self.data * self.fsdp

    @property
    def shards(self) -> int:
        """Devices that weights are split over."""
        return self.fsdp * self.tensor

    def __str__(self) -> str:
        """Formats the layout as flags."""
        mesh = ",".join(f"{axis}:{size}" for axis, size in self.axes.items())
        return f"--mesh={mesh} --micro_batches={self.micro_batches}"


def matrix_flops(config: Any) -> float:
    """Counts operations of one token in the projections of all layers of a `DecoderConfig`."""
    return 2.0 * config.num_layers * _kernel_size(config)


def attention_flops(config: Any, tokens: int, above: int, *, causal: bool = True) -> float:
    """Counts operations of T tokens on the keys above them and, up to themselves, on their own.

    In layers with a window they see its keys alone. Without `causal` every token counts all of its
    block, and no window, as a program with a mask computes it.
    """
    pairs = config.num_layers * tokens * (above + tokens)
    if causal:
        sliding = config.layer_kinds.count(SLIDING)
        pairs = (config.num_layers - sliding) * _visible(tokens, above)
        pairs += sliding * _visible(tokens, above, config.window) if sliding else 0
    return 4.0 * config.num_heads * config.head_size * pairs


def _visible(tokens: int, above: int, window: int | None = None) -> int:
    """Counts the keys that the tokens of a block see in all, each its own and those before it."""
    growing = tokens if window is None else min(tokens, max(window - above, 0))
    full = (tokens - growing) * (window or 0)
    return growing * above + growing * (growing + 1) // 2 + full


def forward_flops(config: Any, tokens: int, above: int, *, causal: bool = True) -> float:
    """Counts operations of one block of T tokens below `above` others, without logits."""
    return tokens * matrix_flops(config) + attention_flops(config, tokens, above, causal=causal)


def logit_flops(config: Any, tokens: int) -> float:
    """Counts operations of the output head."""
    return 2.0 * tokens * config.model_width * config.vocab_size


def chain_flops(config: Any, lengths: Lengths, *, causal: bool = True) -> float:
    """Counts operations of a forward pass over a block chain, with logits of all responses."""
    above = lengths.instruction + lengths.prompt
    return (
        prefill_flops(config, lengths, causal=causal)
        - logit_flops(config, lengths.responses)
        + lengths.responses * forward_flops(config, lengths.response, above, causal=causal)
        + logit_flops(config, lengths.responses * lengths.response)
    )


def prefill_flops(config: Any, lengths: Lengths, *, causal: bool = True) -> float:
    """Counts operations of instruction and prompts, with logits of responses' first tokens."""
    return (
        forward_flops(config, lengths.instruction, 0, causal=causal)
        + lengths.prompts
        * forward_flops(config, lengths.prompt, lengths.instruction, causal=causal)
        + logit_flops(config, lengths.responses)
    )


def decode_flops(config: Any, lengths: Lengths) -> float:
    """Counts operations of all response tokens but the last, in sequence, and their logits."""
    steps = max(lengths.response - 1, 0)
    above = lengths.instruction + lengths.prompt
    block = forward_flops(config, steps, above)
    return lengths.responses * (block + logit_flops(config, steps))


def adapter_size(config: Any, rank: int) -> int:
    """Counts the numbers in LoRA adapters on all projections."""
    return config.num_layers * rank * sum(math.prod(s) + math.prod(t) for s, t in _kernels(config))


def weight_bytes(config: Any) -> float:
    """Counts bytes of weights in the arithmetic's format, less a table that is only looked up."""
    table = 0 if config.tie_embeddings else config.vocab_size * config.model_width
    return COMPUTE * (config.num_parameters - table)


def cache_bytes(config: Any, lengths: Lengths, layout: Layout) -> float:
    """Counts bytes of a device's keys and values of a chain, responses at full length."""
    prompts = math.ceil(lengths.prompts / layout.rows)
    tokens = lengths.instruction + prompts * (lengths.prompt + lengths.group * lengths.response)
    return tokens * _key_bytes(config, layout)


def prefill_work(config: Any, lengths: Lengths, layout: Layout) -> Work:
    """Counts the work of instruction and prompts of a rollout."""
    written = dataclasses.replace(lengths, response=0)
    moved = weight_bytes(config) / layout.tensor + cache_bytes(config, written, layout)
    return Work(prefill_flops(config, lengths), moved)


def decode_work(config: Any, lengths: Lengths, layout: Layout) -> Work:
    """Counts work of decoding at full length: a step reads all weights, keys and values."""
    step = weight_bytes(config) / layout.tensor + cache_bytes(config, lengths, layout)
    return Work(decode_flops(config, lengths), max(lengths.response - 1, 0) * step)


def forward_work(config: Any, lengths: Lengths, layout: Layout) -> Work:
    """Counts work of a pass without gradients: the reference, or values before an update."""
    weights = layout.micro_batches * weight_bytes(config) / layout.tensor
    return Work(chain_flops(config, lengths), weights + cache_bytes(config, lengths, layout))


def update_work(
    config: Any, lengths: Lengths, layout: Layout, *, remat: str = "full", lora_rank: int = 0
) -> Work:
    """Counts the work of gradients by micro-batches, and of the optimiser.

    Forward and backward are worth three forward passes, four where the layers are computed again
    ("full" remat). With adapters the kernels' own gradients fall away, a third of the plain pass.
    """
    forward = chain_flops(config, lengths)
    flops = forward * (1 + BACKWARD[remat])
    trained = config.num_parameters
    if lora_rank:
        trained = adapter_size(config, lora_rank)
        kernels = lengths.tokens * matrix_flops(config)
        head = logit_flops(config, lengths.responses * lengths.response)
        flops += 2.0 * trained * lengths.tokens * (1 + BACKWARD[remat]) - kernels - head
    passes = layout.micro_batches * (1 + BACKWARD[remat])
    weights = passes * weight_bytes(config) / layout.tensor
    own = MASTER * trained / layout.shards
    # A micro-batch adds to the gradient; the optimiser reads gradient, weights and both moments,
    # and writes the last three.
    gradients = own * (2 * layout.micro_batches + 7)
    kept = 2 * kept_bytes(config, lengths, layout) * layout.micro_batches
    return Work(flops, weights + gradients + kept)


def kept_bytes(config: Any, lengths: Lengths, layout: Layout) -> float:
    """Counts bytes of layer inputs that a device keeps of one micro-batch (full remat)."""
    prompts = math.ceil(lengths.prompts / layout.micro_batches / layout.rows)
    blocks = (
        (1, lengths.instruction),
        (prompts, lengths.prompt),
        (prompts * lengths.group, lengths.response),
    )
    tokens = sum(rows * along_tensor(length, layout) for rows, length in blocks)
    return COMPUTE * config.num_layers * config.model_width * tokens


def along_tensor(size: int, layout: Layout) -> int:
    """Returns a device's part of an axis that lies over tensor where it divides evenly."""
    return size if size % layout.tensor else size // layout.tensor


def _key_bytes(config, layout):
    """Counts bytes of one token's keys and values on a device, all layers."""
    heads = along_tensor(config.num_kv_heads, layout)
    return 2 * COMPUTE * config.num_layers * heads * config.head_size


def _kernels(config):
    """Returns inputs and outputs of the projections of a layer."""
    width, mlp = (config.model_width,), (config.mlp_width,)
    query, key = (config.num_heads, config.head_size), (config.num_kv_heads, config.head_size)
    return (
        *((width, query), (width, key), (width, key), (query, width)),
        *((width, mlp), (width, mlp), (mlp, width)),
    )


def _kernel_size(config):
    return sum(math.prod(inputs) * math.prod(outputs) for inputs, outputs in _kernels(config))

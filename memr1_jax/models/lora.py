"""LoRA: adapters of low rank next to the frozen kernels of the decoder's projections.

A projection with a kernel `[*inputs, *outputs]` computes `x @ kernel + scale * (x @ a) @ b`, where
`a` is `[*inputs, r]` and `b` is `[r, *outputs]`; only `a` and `b` are trained.

Source: Hu et al. 2021, arXiv 2106.09685. Starting values are those of the peft library.

Axis letters: r rank, L layers, D model width, N query heads, H head size.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.options import above, at_least, option

TARGETS = ("query", "key", "value", "output", "gate", "up", "down")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """Train low-rank adapters in place of all weights (arXiv 2106.09685)."""

    lora_rank: int = option(
        0, "Rank of the adapters; 0: all weights are trained.", within=at_least(0)
    )
    lora_alpha: float = option(32.0, "Adapters are scaled by alpha / rank.", within=above(0))
    lora_targets: str = option(
        "all", "Matrices with an adapter: query,key,value,output,gate,up,down, or all."
    )


@dataclasses.dataclass(frozen=True)
class LoRA:
    """Rank, scale and place of the adapters; hashable, so static under `jit`."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self):
        """Checks rank and targets; raises UserError."""
        if self.rank < 1:
            raise UserError(f"The rank of LoRA must be 1 or more, not {self.rank}.")
        _check_targets(self.targets)

    @property
    def scale(self) -> float:
        """Factor of the adapters' product: alpha / rank."""
        return self.alpha / self.rank


def lora_of(options: LoRAConfig) -> LoRA | None:
    """Returns the adapters that are trained, None for full fine-tuning."""
    if not options.lora_rank:
        return None
    return LoRA(options.lora_rank, options.lora_alpha, parse_targets(options.lora_targets))


def parse_targets(text: str) -> tuple[str, ...]:
    """Parses projections named with commas, such as "query,value", in the order of TARGETS.

    "all" and "" stand for all of them. Raises UserError for other names.
    """
    if text.strip() in ("", "all"):
        return TARGETS
    names = {name.strip() for name in text.split(",")}
    _check_targets(names)
    return tuple(name for name in TARGETS if name in names)


def init_adapters(config: DecoderConfig, lora: LoRA, key: jax.Array) -> dict:
    """Makes float32 adapters that change nothing yet: A uniform within 1 / sqrt(inputs), B zero.

    A target's values do not depend on the other targets.

    Returns:
      `{"layers": {"attention": {"query": {"lora_a": [L, D, r], "lora_b": [L, r, N, H]}}}}` with all
      targets, those of the feed-forward network under "mlp".
    """
    layer: dict = {}
    for index, (name, (part, inputs, outputs)) in enumerate(_projections(config).items()):
        if name not in lora.targets:
            continue
        bound = 1 / math.sqrt(math.prod(inputs))
        layer.setdefault(part, {})[name] = {
            "lora_a": jax.random.uniform(
                jax.random.fold_in(key, index),
                (config.num_layers, *inputs, lora.rank),
                minval=-bound,
                maxval=bound,
            ),
            "lora_b": jnp.zeros((config.num_layers, lora.rank, *outputs)),
        }
    return {"layers": layer}


def abstract_adapters(config: DecoderConfig, lora: LoRA) -> dict:
    """Returns shapes and types of `init_adapters`, without the arrays."""
    return jax.eval_shape(lambda: init_adapters(config, lora, jax.random.key(0)))


def join(params: dict, adapters: dict, scale: float) -> dict:
    """Joins parameters for `Decoder.apply`: the backbone, with adapters next to its kernels.

    Nothing of the backbone is copied, and no adapters give `params` itself. `scale` goes into B, so
    that gradients of the adapters come out as they should.
    """
    if not adapters:
        return params
    if "lora_a" in adapters:
        return params | {"lora_a": adapters["lora_a"], "lora_b": adapters["lora_b"] * scale}
    return params | {name: join(params[name], part, scale) for name, part in adapters.items()}


def merge(params: dict, adapters: dict, scale: float) -> dict:
    """Merges adapters into a plain model that computes the same: `kernel + scale * a @ b`.

    Sums are float32, results have the kernel's type. Other kernels are not copied. A NumPy
    kernel is merged by NumPy and stays on the host, any other by JAX; either way one layer of one
    kernel at a time is widened to float32.
    """
    if not adapters:
        return params
    if "lora_a" in adapters:
        kernel = _merged(params["kernel"], adapters["lora_a"], adapters["lora_b"], scale)
        return params | {"kernel": kernel}
    return params | {name: merge(params[name], part, scale) for name, part in adapters.items()}


def _merged(kernel, lora_a, lora_b, scale):
    """Merges one kernel `[L, *inputs, *outputs]` with its adapters."""

    def merge_layer(kernel, a, b):
        a, b = a.astype(np.float32), b.astype(np.float32)
        update = (a.reshape(-1, a.shape[-1]) @ b.reshape(len(b), -1)).reshape(kernel.shape)
        return (kernel.astype(np.float32) + scale * update).astype(kernel.dtype)

    if not isinstance(kernel, np.ndarray):
        with jax.default_matmul_precision("highest"):
            return jax.lax.map(lambda layer: merge_layer(*layer), (kernel, lora_a, lora_b))
    merged = np.empty_like(kernel)
    layers = zip(kernel, np.asarray(lora_a), np.asarray(lora_b), strict=True)
    for index, layer in enumerate(layers):
        merged[index] = merge_layer(*layer)
    return merged


def _projections(config):
    """Returns layer part, inputs and outputs of each target, in the order of TARGETS."""
    width, hidden = (config.model_width,), (config.mlp_width,)
    heads = config.num_heads, config.head_size
    kv_heads = config.num_kv_heads, config.head_size
    return {
        "query": ("attention", width, heads),
        "key": ("attention", width, kv_heads),
        "value": ("attention", width, kv_heads),
        "output": ("attention", heads, width),
        "gate": ("mlp", width, hidden),
        "up": ("mlp", width, hidden),
        "down": ("mlp", hidden, width),
    }


def _check_targets(names):
    unknown = [name for name in names if name not in TARGETS]
    if unknown or not names:
        wrong = f"no projection is called {unknown[0]!r}" if unknown else "none is named"
        raise UserError(
            f"LoRA needs projections to adapt, but {wrong}. Name some of {', '.join(TARGETS)}, "
            'separated by commas, or "all".'
        )

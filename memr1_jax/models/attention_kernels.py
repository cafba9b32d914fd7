"""Chooses what computes attention: XLA's own products, or a kernel of the accelerator.

All forms are exact. A kernel takes the blocks whose shapes it knows, and XLA the others, decoded
tokens among them.
"""

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memr1_jax.errors import UserError
from memr1_jax.models import splash
from memr1_jax.models.attention import Projected, Source, attend
from memr1_jax.models.causal_rows import attend_causally

KERNELS = ("xla", "splash", "cudnn")
_PLATFORM = {"splash": "tpu", "cudnn": "gpu"}


def choose_kernel(flag: str, dtype: Any, platform: str | None = None) -> str:
    """Returns the kernel that `--attention=flag` means on a platform, by default this machine's.

    "auto" is splash attention on TPUs, cuDNN on GPUs where it runs in `dtype`, and else XLA.

    Raises:
      UserError: the kernel is not for this platform or number format.
    """
    platform = platform or jax.default_backend()
    platform = "gpu" if platform in ("cuda", "rocm") else platform
    half = jnp.dtype(dtype).itemsize == 2
    if flag == "auto":
        if platform == "gpu":
            return "cudnn" if half and _cudnn_fault() is None else "xla"
        return "splash" if platform == "tpu" else "xla"
    if _PLATFORM.get(flag, platform) != platform:
        raise UserError(
            f"--attention={flag} is a kernel for a {_PLATFORM[flag].upper()}, and this is to run on"
            f" a {platform.upper()}. Use --attention=auto."
        )
    if flag == "cudnn" and not half:
        raise UserError(
            f"--attention=cudnn computes in bfloat16, not in {jnp.dtype(dtype).name}. Add"
            " --dtype=bfloat16, or use --attention=auto."
        )
    if flag == "cudnn" and (fault := _cudnn_fault()):
        raise UserError(
            f"--attention=cudnn does not run on this machine ({fault}). Use --attention=auto."
        )
    return flag


@functools.cache
def _cudnn_fault() -> str | None:
    """Returns why cuDNN's attention does not run here, found out by a small call; None if it does.

    That depends on the GPU and on the versions of cuDNN and JAX.
    """
    row = jnp.ones((1, 64, 2, 64), jnp.bfloat16)

    def total(row):
        found = jax.nn.dot_product_attention(row, row, row, is_causal=True, implementation="cudnn")
        return found.astype(jnp.float32).sum()

    try:
        jax.block_until_ready(jax.grad(total)(row))
    except Exception as error:  # JAX and cuDNN raise several types.
        fault = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        warnings.warn(
            f"cuDNN's attention does not run here ({fault}); XLA computes it.", stacklevel=2
        )
        return fault
    return None


def attend_chain(
    kernel: str,
    blocks: list[Projected],
    above: list[Source],
    seen: Callable[[list[Source], int], list[Source]] = lambda sources, index: sources,
) -> list[jax.Array]:
    """Attends with every block of a chain to itself, the blocks before it and those `above`.

    Args:
      kernel: one of `KERNELS`.
      blocks: from the top of the chain down.
      above: blocks above them.
      seen: hides parts of the sources from a block, by its index; kernels do not ask it.

    Returns:
      What each block's queries found, in their shape `[*lead, T, N, H]`.
    """
    found, above = [], list(above)
    for index, block in enumerate(blocks):
        rest = blocks[index:]
        if kernel == "splash" and block.query.ndim > 3 and splash.fits(rest, above):
            return found + splash.attend_row(rest, above)
        if kernel == "cudnn" and _is_row(block):
            found.append(attend_causally(block, above, "cudnn"))
        else:
            found.append(attend(block.query, seen([*above, block.own], index)))
        above.append(block.above)
    return found


def _is_row(block: Projected) -> bool:
    """Tells whether cuDNN takes a block: prompts or an instruction, of its head sizes."""
    *lead, length, _, size = block.query.shape
    return len(lead) < 2 and math.prod(lead) > 0 and length > 1 and size % 8 == 0 and size <= 128

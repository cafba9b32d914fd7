"""The fact extractor: turns one raw turn of a dialogue into the facts that the manager is shown.

Axis letters: B turns, W tokens of a turn, P prompt length, R response length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
from flax import struct

from memr1_jax.agents.templates import Template, fill, single
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Samples, generate, greedy_sampling, rollout_weights

NOTHING = "NONE"
_MARK = "- "


@dataclasses.dataclass(frozen=True)
class FactExtractor:
    """Sizes and prompt of the extractor; static under `jit`."""

    template: Template
    prompt_length: int  # P, the instruction not counted
    response_length: int  # R
    stop_tokens: tuple[int, ...]
    turn_width: int = 64  # W


@struct.dataclass
class TurnText:
    """A raw turn as token rows with lengths: `speaker` `[W]`, `time` `[W]` and `turn` `[W]`."""

    speaker: tuple[jax.Array, jax.Array]
    time: tuple[jax.Array, jax.Array]
    turn: tuple[jax.Array, jax.Array]


def extractor_prompts(extractor: FactExtractor, turns: TurnText) -> Block:
    """Fills the prompt for turns with leading axis `[B]`; returns the block `[B, P]`."""

    def prompt(turn: TurnText):
        slots = {
            name: single(*getattr(turn, name))
            for name in ("speaker", "time", "turn")
            if name in extractor.template.parts
        }
        packed = fill(extractor.template, slots, extractor.prompt_length)
        return packed.tokens, packed.length

    return Block(*jax.vmap(prompt)(turns))


def make_extract(extractor: FactExtractor, decoder: Decoder) -> Callable[..., Samples]:
    """Compiles `extract(params, turns, active) -> Samples` with leaves `[B, ...]`, greedy."""

    def extract(params, turns: TurnText, active: jax.Array) -> Samples:
        samples = generate(
            decoder,
            rollout_weights(params, decoder.dtype),
            (extractor.template.instruction_block, extractor_prompts(extractor, turns)),
            *greedy_sampling(),
            group=1,
            max_tokens=extractor.response_length,
            stop_tokens=extractor.stop_tokens,
            active=active[:, None],
        )
        return jax.tree.map(lambda x: x[:, 0], samples)

    return jax.jit(extract)


def write_facts(facts: Sequence[str]) -> str:
    """Spells facts as `read_facts` reads them: one line each, or NONE."""
    return "\n".join(_MARK + " ".join(fact.split()) for fact in facts) or NOTHING


def read_facts(response: str) -> list[str] | None:
    """Reads the facts of a response; an empty list where it says NONE, None where it is unreadable.

    Lines that do not begin with a dash are passed over.
    """
    lines = [line.strip() for line in response.split("\n")]
    facts = [line[len(_MARK) :].strip() for line in lines if line.startswith(_MARK)]
    if not facts and NOTHING not in lines:
        return None
    return [fact for fact in facts if fact]


@functools.partial(jax.jit, static_argnums=0)
def prompt_tokens(extractor: FactExtractor, turns: TurnText) -> tuple[jax.Array, jax.Array]:
    """Returns the prompts `[B, P]` and their lengths, for demonstrations."""
    block = extractor_prompts(extractor, turns)
    return block.tokens, block.length

"""The fact extractor: turns one raw turn of a dialogue into the facts that the manager is shown.

Axis letters: B turns, W tokens of a turn, P prompt length, R response length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
from flax import struct

from memr1_jax.agents.prompt_files import facts_prompt
from memr1_jax.agents.templates import Template, fill, load_template, single
from memr1_jax.data.batches import row_batches
from memr1_jax.data.encode import Encoder
from memr1_jax.data.own_dialogues import turns_as_facts
from memr1_jax.data.types import Conversation, Fact
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.loading import Model
from memr1_jax.models.sampler import Samples, generate, greedy_sampling, rollout_weights
from memr1_jax.options import at_least, option
from memr1_jax.text.plain import one_line

NOTHING = "NONE"
_MARK = "- "
_BATCH = 32  # turns that are read together


@dataclasses.dataclass(frozen=True)
class ExtractorOptions:
    """Choose what the manager is told of a turn, and set the model that extracts it."""

    facts: str = option(
        "noted",
        "What the manager is told of a turn: the facts that the data note, the turn as it stands,"
        " or what the model of --extractor_model extracts from it before training.",
        ("noted", "turns", "extracted"),
    )
    model: str = option(
        "",
        "Model that extracts facts, such as a run's export/extractor; empty: --model.",
        flag="extractor_model",
    )
    prompt: str = option(
        "",
        "Prompt file facts_<name>.txt, or the path of your own; empty: the one that the manager's"
        " prompt names in its head.",
        flag="facts_prompt",
    )
    turn_width: int = option(128, "Tokens of a turn that the extractor reads.", within=at_least(1))
    response_length: int = option(
        128,
        "Most tokens that the extractor writes.",
        within=at_least(1),
        flag="facts_response_length",
    )


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


def create_extractor(
    model: Model,
    manager_prompt: str,
    max_prompt_length: int,
    response_length: int,
    *,
    prompt: str = "",
    turn_width: int = 64,
) -> FactExtractor:
    """Makes the extractor of a manager's model.

    Args:
      model: whose tokenizer and stop tokens it has.
      manager_prompt: names the prompt that is taken by default, see `facts_prompt`.
      max_prompt_length: tokens of a prompt, the instruction included.
      response_length: R.
      prompt: another prompt, see `read_prompt`.
      turn_width: W.

    Raises:
      UserError: the prompt leaves no room for a turn.
    """
    name = prompt or facts_prompt(manager_prompt)
    template = load_template(name, model.tokenizer, role="facts")
    room = max_prompt_length - len(template.instruction)
    if room < turn_width:
        raise UserError(
            f"--max_prompt_length={max_prompt_length} is too short: the prompt {template.name} has"
            f" {len(template.instruction)} tokens of instruction, and a turn up to {turn_width}."
        )
    return FactExtractor(template, room, response_length, model.stop_tokens, turn_width)


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


@functools.lru_cache(16)  # agents that are loaded again share their programs
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


def turn_rows(encoder: Encoder, turns: Sequence[tuple[str, str, str]], width: int) -> TurnText:
    """Encodes turns `(speaker, time, text)` as rows `[B, W]`."""
    columns = zip(*((s, t, one_line(text)) for s, t, text in turns), strict=True)
    return TurnText(*(encoder.rows(column, width) for column in columns))


def with_extracted_facts(
    extractor: FactExtractor,
    model: Model,
    params: dict,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    on_turn: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Conversation], dict[str, int]]:
    """Replaces what the data note by what the model extracts from every turn, greedily.

    Gold operations name the noted facts and so are left out.

    Returns:
      The conversations, and the numbers of turns, of facts, and of turns that were `unread`.
    """
    extract = make_extract(extractor, model.decoder)
    turns = [
        (place, session.number, turn, (turn.speaker, session.time_of(turn), turn.content))
        for place, conversation in enumerate(conversations)
        for session in conversation.sessions
        for turn in session.turns
    ]
    facts: list[list[Fact]] = [[] for _ in conversations]
    counts = {"turns": len(turns), "facts": 0, "unread": 0}
    for rows, valid in row_batches(len(turns), _BATCH):
        part = [turns[row] for row in rows]
        encoded = turn_rows(encoder, [said for *_, said in part], extractor.turn_width)
        samples = jax.device_get(extract(params, encoded, valid))
        for row in np.flatnonzero(valid):
            place, session, turn, _ = part[row]
            tokens = samples.tokens[row, : samples.length[row]]
            found = read_facts(model.tokenizer.decode(tokens, skip_special_tokens=True))
            counts["unread"] += found is None
            counts["facts"] += len(found or ())
            facts[place] += [
                Fact(turn.speaker, text, session, (turn.dia_id,)) for text in found or ()
            ]
        on_turn(min(int(rows[0]) + _BATCH, len(turns)), len(turns))
    return [
        dataclasses.replace(conversation, facts=tuple(noted), operations=())
        for conversation, noted in zip(conversations, facts, strict=True)
    ], counts


def without_notes(conversations: Sequence[Conversation]) -> list[Conversation]:
    """Returns conversations whose turns stand for what the data note."""
    return [
        turns_as_facts(dataclasses.replace(conversation, facts=(), operations=()))
        for conversation in conversations
    ]


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

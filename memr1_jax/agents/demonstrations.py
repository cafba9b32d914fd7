"""Demonstrations for supervised fine-tuning: what an agent is shown, and what it should write.

The prompts are those of the rollout, made on the device. The host reads back which memories they
show, under which ids, and writes the right response to them.

Axis letters: B rows of a batch, R response length, Q retrieved memories a speaker.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.rollout import answer_prompts, manager_prompts
from memr1_jax.agents.targets import Written, compact_response, distilled_answer, full_response
from memr1_jax.agents.tools import Tools
from memr1_jax.data.augment import NO_COPIES, AugmentOptions, alter_banks, repeats_any
from memr1_jax.data.batches import (
    AnswerBatch,
    AnswerData,
    EpisodeBatch,
    EpisodeData,
    ManagerBatch,
    ManagerData,
    row_batches,
)
from memr1_jax.data.encode import Encoder, encode_answer_data, encode_manager_data
from memr1_jax.data.tuples import ManagerTuple, manager_tuple, turn_of
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.memory.embedder import embed
from memr1_jax.memory.retrieval import retrieve
from memr1_jax.models.decoder import Block
from memr1_jax.models.hf.tokenizer import turn_end
from memr1_jax.run.streams import run_draw
from memr1_jax.text.events import Event
from memr1_jax.text.plain import one_line, plain_encoder

MOST_MEMORIES = 3  # that a distilled answer repeats
_BATCH = 64  # rows whose prompts are made at once
_NO_QUESTION = Question("", "", 0, (), 0)  # stands in for questions that are not read


@struct.dataclass
class Demonstrations:
    """Responses to rows of a data set: `tokens` `[rows, R]`, `length` `[rows]`, the end included.

    `row` `[rows]` is the place in `data` of what each responds to.
    """

    data: AnswerData | ManagerData
    row: jax.Array
    tokens: jax.Array
    length: jax.Array

    @property
    def rows(self) -> int:
        """Number of demonstrations."""
        return self.row.shape[0]

    @property
    def conversation(self) -> jax.Array:
        """Places `[rows]` of their conversations, as in `data`."""
        return self.data.conversation[self.row]

    def select(self, rows: jax.Array, valid: jax.Array) -> tuple[AnswerBatch | ManagerBatch, Block]:
        """Picks the demonstrations `rows` `[B]`, with responses as a block `[B, 1, R]`."""
        response = Block(self.tokens[rows][:, None], self.length[rows][:, None])
        return self.data.select(self.row[rows], valid), response


@struct.dataclass
class WithDemonstrations:
    """Joins an agent's data with demonstrations that it learns from in the same steps."""

    data: AnswerData | ManagerData | EpisodeData
    demonstrations: Demonstrations

    @property
    def rows(self) -> int:
        """Number of rows of the data."""
        return self.data.rows

    @property
    def conversation(self) -> jax.Array:
        """Places `[rows]` of the conversations of the data's rows."""
        return self.data.conversation

    def select(
        self, rows: jax.Array, valid: jax.Array
    ) -> AnswerBatch | ManagerBatch | EpisodeBatch:
        """Picks the batch of rows of the data, as that does."""
        return self.data.select(rows, valid)

    def draw(self, key: jax.Array, count: int) -> tuple[AnswerBatch | ManagerBatch, Block]:
        """Draws `count` demonstrations by chance."""
        rows = jax.random.randint(key, (count,), 0, self.demonstrations.rows)
        return self.demonstrations.select(rows, jnp.ones(count, bool))


def manager_demonstrations(
    manager: MemoryManager,
    tools: Tools,
    encoder: Encoder,
    tokenizer,
    conversations: Sequence[Conversation],
    *,
    window: int | None = None,
    corrupt: float = 0.0,
    seed: int = 0,
    augment: AugmentOptions = NO_COPIES,
) -> tuple[Demonstrations, dict[str, int]]:
    """Writes the gold operations of every turn that brings facts, in the prompt's schema.

    An operation names its memory by the id that the prompt shows it under. If the memory is not
    shown, UPDATE becomes ADD and DELETE becomes NONE. In the full schema all shown memories are
    listed; `old_memory` is left out where decoding is constrained, since the grammar has none.

    Args:
      manager: the agent that learns.
      tools: see `Tools`.
      encoder: as for the agent's other data.
      tokenizer: the model's, of `transformers`.
      conversations: dialogues; the generated ones among them are demonstrated.
      window: how many turns before a turn fill the bank; None means all of them.
      corrupt: probability that an operation is taught wrong, to get a start from which there is
        something to learn: NONE in place of ADD, and ADD of the fact in place of UPDATE,
        DELETE and NONE. Drawn for each fact by itself, from the seed, conversation and fact alone.
      seed: of these draws.
      augment: what the banks of altered copies lack.

    Returns:
      Demonstrations, and how often something was changed or left out, by what it was.

    Raises:
      UserError: no dialogue has gold operations, or no response fits.
    """
    check_demonstrable(conversations)
    lessons = [
        (
            conversation,
            alter_banks(turn, conversation, augment, seed, repeats_any(operations)),
            operations,
        )
        for conversation in conversations
        for turn, operations in _gold_turns(conversation, encoder.sizes.facts, window)
    ]
    data = encode_manager_data(encoder, conversations, [turn for _, turn, _ in lessons])
    data = data.replace(asked=np.zeros_like(data.asked))
    slots, shown = by_batches(functools.partial(_slots_shown, manager, tools), data)

    def seen(fact: Fact) -> str:
        return _decode(tokenizer, encoder.cut(fact.text, encoder.sizes.memory_width))

    full = manager.template.head.schema == "full"
    counts = dict.fromkeys(("corrupted", "update_not_shown", "delete_not_shown"), 0)
    targets = []
    for (conversation, turn, operations), slot, count in zip(lessons, slots, shown, strict=True):
        own = turn.banks[turn.speaker]
        listed = [own[index] for index in slot[:count]]
        written = []
        for operation in operations:
            draw = run_draw(seed, "corrupt", conversation.id, str(operation.fact))
            if draw < corrupt:
                counts["corrupted"] += 1
                event = Event.NONE if operation.event == Event.ADD else Event.ADD
                operation = dataclasses.replace(operation, event=event, replaces=None)
            written.append(_written(conversation, operation, listed, seen, counts))
        if full:
            texts = [seen(fact) for fact in listed]
            targets.append(full_response(written, texts, old_memory=tools.grammar is None))
        else:
            targets.append(compact_response(written))
    return written_demonstrations(manager, "manager", tokenizer, data, targets, counts)


def check_demonstrable(conversations: Sequence[Conversation]) -> None:
    """Raises UserError where no dialogue has gold operations to show to the manager."""
    if not any(conversation.operations for conversation in conversations):
        raise UserError(
            "These dialogues do not say which memory operations are right, so there is nothing to"
            " demonstrate to the Memory Manager. Use --data=synthetic, or learn from its own best"
            " samples with --algorithm=best_of_n."
        )


def answer_demonstrations(
    agent: AnswerAgent,
    tools: Tools,
    encoder: Encoder,
    tokenizer,
    conversations: Sequence[Conversation],
    banks: tuple[MemoryBank, MemoryBank],
    *,
    verbose: float = 0.0,
    seed: int = 0,
) -> tuple[Demonstrations, dict[str, int]]:
    """Distils the answer to every question: the memories that hold the evidence, then the gold.

    Those are the shown memories that were written at an evidence turn of the question, at most
    `MOST_MEMORIES`, best first. A question without any is left out: its answer could only be
    guessed. The layout is that of the prompt's own examples; some prompts ask for the answer alone.

    Args:
      agent: the agent that learns.
      tools: see `Tools`.
      encoder: as for the agent's other data.
      tokenizer: the model's, of `transformers`.
      conversations: dialogues with questions.
      banks: the two speakers' banks `[C, ...]`.
      verbose: probability that the best memory is taught as the answer in place of the gold
        one, to get a start from which there is something to learn. Drawn for each question by
        itself, from the seed, conversation and question alone.
      seed: of these draws.

    Returns:
      Demonstrations, and how often something was changed or left out, by what it was.

    Raises:
      UserError: there are no questions, or none can be demonstrated.
    """
    data = encode_answer_data(encoder, conversations, banks)
    slots, owners, shown = by_batches(functools.partial(memories_shown, agent, tools), data)
    held = [jax.device_get((b.tokens, b.length, b.updated, b.source)) for b in banks]
    asked = [(index, q) for index, c in enumerate(conversations) for q in c.questions]

    layout = agent.template.head.selection
    counts = {"evidence_not_shown": 0, "verbose": 0}
    targets: list[str | None] = []
    for row, (index, question) in enumerate(asked):
        conversation = conversations[index]
        evidence = {conversation.positions[turn] for turn in question.evidence}
        selected = []
        best = zip(owners[row, : shown[row]], slots[row, : shown[row]], strict=True)
        for owner, slot in best:
            tokens, length, time, source = (leaf[index, slot] for leaf in held[owner])
            if int(source) in evidence and len(selected) < MOST_MEMORIES:
                when = one_line(conversation.dates[time])
                selected.append((int(owner), when, _decode(tokenizer, tokens[:length])))
        if not selected:
            counts["evidence_not_shown"] += 1
        gold = one_line(question.answer)
        draw = run_draw(seed, "verbose", conversation.id, str(question.index))
        if selected and draw < verbose:
            counts["verbose"] += 1
            gold = selected[0][-1]
        targets.append(distilled_answer(layout, selected, gold) if selected else None)
    return written_demonstrations(agent, "answer", tokenizer, data, targets, counts)


def _gold_turns(
    conversation: Conversation, most: int, window: int | None
) -> list[tuple[ManagerTuple, tuple[GoldOperation, ...]]]:
    """Lists the turns with facts about their speaker, with the first `most` operations each."""
    arriving: dict[int, list[GoldOperation]] = {}
    for operation in conversation.operations:
        fact = conversation.facts[operation.fact]
        position = turn_of(conversation, fact)
        if fact.speaker == conversation.turns[position].speaker:
            arriving.setdefault(position, []).append(operation)
    lessons = []
    for position, operations in sorted(arriving.items()):
        facts = tuple(conversation.facts[operation.fact] for operation in operations[:most])
        turn = manager_tuple(conversation, position, facts, window, (_NO_QUESTION,))
        lessons.append((turn, tuple(operations[:most])))
    return lessons


def _written(
    conversation: Conversation,
    operation: GoldOperation,
    listed: list[Fact],
    seen: Callable[[Fact], str],
    counts: dict[str, int],
) -> Written:
    """Writes a gold operation under the ids of the prompt, which lists the facts `listed`."""
    event, place = operation.event, -1
    if event.names_memory:
        old = conversation.facts[operation.replaces]
        if old in listed:
            place = listed.index(old)
        else:
            counts[f"{event.key}_not_shown"] += 1
            event = Event.ADD if event.writes else Event.NONE
    if not event.writes:
        return Written(event, place, "")
    fact = conversation.facts[operation.fact]
    return Written(event, place, seen(dataclasses.replace(fact, text=operation.text or fact.text)))


def written_demonstrations(agent, name, tokenizer, data, targets, counts):
    """Tokenises targets as rows; leaves out None and targets longer than R."""
    ends = (turn_end(tokenizer), tokenizer.eos_token_id, *agent.stop_tokens)
    stop = next(token for token in ends if token in agent.stop_tokens)
    encode = plain_encoder(tokenizer)
    encoded = [
        (row, [*encode(target), stop]) for row, target in enumerate(targets) if target is not None
    ]
    kept = [(row, ids) for row, ids in encoded if len(ids) <= agent.response_length]
    counts["too_long"] = len(encoded) - len(kept)
    if not kept:
        reasons = ", ".join(f"{what} {number}" for what, number in counts.items())
        raise UserError(
            f"None of {len(targets)} demonstrations for the {name} agent can be used ({reasons})."
            f" Raise --{name}_response_length={agent.response_length} if they are too long, or show"
            " more memories."
        )
    tokens = np.zeros((len(kept), agent.response_length), np.int32)
    for place, (_, ids) in enumerate(kept):
        tokens[place, : len(ids)] = ids
    return Demonstrations(
        data=jax.device_put(data),
        row=jnp.array([row for row, _ in kept], jnp.int32),
        tokens=jnp.asarray(tokens),
        length=jnp.array([len(ids) for _, ids in kept], jnp.int32),
    ), counts


@functools.partial(jax.jit, static_argnums=0)
def _slots_shown(manager, tools, batch):
    """Returns the slots that the ids of each prompt stand for, and their number."""
    prompts = manager_prompts(manager, tools, batch)
    return prompts.slots, prompts.shown


@functools.partial(jax.jit, static_argnums=0)
def memories_shown(agent, tools, batch):
    """Returns slots and owners `[B, 2 Q]` of the memories shown, best first, and their number."""
    packed = answer_prompts(agent, tools, batch)

    def ranked(banks, query, dropped):
        key = embed(tools.embedder, query.tokens, query.length)
        found = [retrieve(bank, key, agent.memories) for bank in banks]
        slot, score, valid = (
            jnp.concatenate([getattr(part, name) for part in found])
            for name in ("slot", "score", "valid")
        )
        order = jnp.argsort(-score, stable=True)  # the prompt's order of priority
        return slot[order], order // agent.memories, jnp.sum(valid) - dropped

    return jax.vmap(ranked)(batch.banks, batch.query, packed.dropped)


def by_batches(function: Callable[[Any], Any], data: Any) -> Any:
    """Applies `function` to all rows of `data` in batches of one shape: NumPy `[rows, ...]`.

    A batch is picked on the host. A program that is given whole data is compiled again for other
    data, which have another number of rows.
    """
    data, every = jax.device_get(data), np.ones(_BATCH, bool)
    parts = [
        jax.device_get(function(data.select(rows, every)))
        for rows, _ in row_batches(data.rows, _BATCH)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[: data.rows], *parts)


def _decode(tokenizer, tokens):
    """Decodes a memory or fact as the prompts show it, less the space in front."""
    return tokenizer.decode(tokens, clean_up_tokenization_spaces=False).strip()

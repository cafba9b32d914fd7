"""A rollout of the fact extractor: others edit a bank by its facts and answer from it.

The frozen Memory Manager edits the bank as it does in use, and the frozen Answer Agent answers the
turn's questions from the result, so the extractor earns what a manager earns.

Axis letters: B turns, G samples a turn, R response length, F facts of a turn, W tokens of a fact,
M slots of a bank, n questions of a turn.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.consult import EXACT_MATCH, FrozenAnswerer, Marking
from memr1_jax.agents.extractor import FactExtractor, TurnText, extractor_prompts, turn_rows
from memr1_jax.agents.manager import BYTES_PER_TOKEN, MemoryManager
from memr1_jax.agents.marking import mark_edits
from memr1_jax.agents.reward import manager_reward
from memr1_jax.agents.rollout import Rollout, mean_of_asked, sample_edits
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import Facts, ManagerBatch, ManagerData
from memr1_jax.data.encode import Encoder, encode_manager_data
from memr1_jax.data.tuples import ManagerTuple, banks_before, linked_questions
from memr1_jax.data.types import Conversation
from memr1_jax.memory.bank import bank_size
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.sampler import Sampling, generate, greedy_sampling
from memr1_jax.rl.means import masked_mean, masked_means
from memr1_jax.text.fact_lines import scan_facts


@dataclasses.dataclass(frozen=True)
class FrozenManager:
    """Describes the Memory Manager that edits by an extractor's facts: sizes and decoder."""

    agent: MemoryManager
    decoder: Decoder


@struct.dataclass
class RewardedTurns:
    """Holds raw turns `[B, W]` with the banks before them and the questions on them."""

    turns: TurnText
    managed: ManagerBatch

    @property
    def valid(self) -> jax.Array:
        """Marks padding `[B]`."""
        return self.managed.valid


@struct.dataclass
class RewardedTurnsData:
    """Holds raw turns `[rows, W]`, and `managed` with the same rows; its facts are not read."""

    turns: TurnText
    managed: ManagerData

    @property
    def rows(self) -> int:
        """Number of turns."""
        return self.managed.rows

    @property
    def conversation(self) -> jax.Array:
        """Places `[rows]` of their conversations."""
        return self.managed.conversation

    def select(self, rows: jax.Array, valid: jax.Array) -> RewardedTurns:
        """Returns the batch of turns `rows` `[B]`; those outside `valid` `[B]` are padding."""
        turns = jax.tree.map(lambda x: x[rows], self.turns)
        return RewardedTurns(turns, self.managed.select(rows, valid))


def encode_rewarded_turns(
    encoder: Encoder,
    conversations: Sequence[Conversation],
    window: int | None,
    link: str,
    width: int,
) -> RewardedTurnsData:
    """Encodes every turn of a speaker that questions are linked to; see `manager_tuples`.

    Raises:
      UserError: there are none.
    """
    items, said = [], []
    for conversation in conversations:
        session_of = {t.dia_id: s for s in conversation.sessions for t in s.turns}
        for position, questions in linked_questions(conversation, link).items():
            turn = conversation.turns[position]
            if turn.speaker not in conversation.speakers:
                continue
            session = session_of[turn.dia_id]
            said.append((turn.speaker, session.time_of(turn), turn.content))
            items.append(
                ManagerTuple(
                    conversation=conversation.id,
                    speaker=conversation.speakers.index(turn.speaker),
                    session=session.number,
                    turn=position,
                    dia_id=turn.dia_id,
                    facts=(),
                    banks=banks_before(conversation, position, window),
                    questions=questions,
                )
            )
    managed = encode_manager_data(encoder, conversations, items)
    return RewardedTurnsData(turn_rows(encoder, said, width), managed)


def extractor_rollout(
    extractor: FactExtractor,
    decoder: Decoder,
    params: dict,
    manager: FrozenManager,
    manager_params: dict,
    answerer: FrozenAnswerer,
    answer_params: dict,
    tools: Tools,
    batch: RewardedTurns,
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    marking: Marking = EXACT_MATCH,
) -> Rollout:
    """Samples `group` extractions of every turn and rewards what the others make of them.

    Where no fact is read the manager is not asked, as in use, and the bank stays as it was.
    """
    managed, rows = batch.managed, (*batch.valid.shape, group)
    prompt = extractor_prompts(extractor, batch.turns)
    samples = generate(
        decoder,
        params,
        (extractor.template.instruction_block, prompt),
        key,
        sampling,
        group=group,
        max_tokens=extractor.response_length,
        stop_tokens=extractor.stop_tokens,
        active=jnp.broadcast_to(batch.valid[:, None], rows),
    )
    facts = _facts_read(extractor, tools, managed.facts, samples)
    each = jax.tree.map(lambda x: jnp.repeat(x, group, axis=0), managed)
    told = facts.length.any(-1)
    each = each.replace(facts=facts, valid=each.valid & told)
    edits = sample_edits(
        *(manager.agent, manager.decoder, manager_params, tools, each, *greedy_sampling()),
        group=1,
    )
    banks = jax.tree.map(
        lambda new, old: jnp.where(told.reshape(-1, *[1] * (old.ndim - 1)), new[:, 0], old),
        edits.banks,
        each.own,
    )
    banks, report = jax.tree.map(
        lambda x: x.reshape(*rows, *x.shape[1:]),
        (banks, jax.tree.map(lambda x: jnp.where(told, x[:, 0], 0), edits.report)),
    )
    marks = mark_edits(answerer, answer_params, marking, tools, managed, banks, report)
    asked = managed.asked & batch.valid[:, None]
    outcome = mean_of_asked(marks.outcome, asked)
    parts = manager_reward(marking.reward, outcome, report, bank_size(banks), banks.alive.shape[-1])
    valid = batch.valid[:, None]
    count = (facts.length > 0).sum(-1).reshape(rows)
    metrics = masked_means(parts | {"facts": count, "silent": count == 0}, valid)
    metrics |= masked_means(marks.values, asked[:, None])
    metrics |= {
        "response_length": masked_mean(samples.length, valid),
        "truncated": masked_mean(~samples.stopped, valid),
    }
    rewards = jnp.where(valid, sum(parts.values()), 0.0)
    return Rollout(prompt, samples, rewards, batch.valid, jnp.zeros_like(prompt.length), metrics)


def _facts_read(extractor: FactExtractor, tools: Tools, like: Facts, samples) -> Facts:
    """Reads the facts `[B G, F, W]` of responses `[B, G, R]`, with the times of `like`."""
    _, facts, width = like.tokens.shape
    group, length = samples.tokens.shape[1:]

    def read(tokens, length):
        return scan_facts(
            tools.byte_table,
            tokens,
            length,
            facts=facts,
            width=width,
            capacity=extractor.response_length * BYTES_PER_TOKEN,
        )

    tokens, lengths = jax.vmap(read)(samples.tokens.reshape(-1, length), samples.length.reshape(-1))
    time, source = (jnp.repeat(x, group, axis=0) for x in (like.time, like.source))
    return Facts(tokens, lengths, time, source)

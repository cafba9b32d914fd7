"""Answers of the frozen Answer Agent from a manager's banks, and their worth.

It has a prompt for every sample and question, many more than the manager itself. Samples
that write the same operations, or change nothing that a question finds, lead to equal prompts: each
distinct one is answered once, a part of them at a time.

Axis letters: B prompts in a batch, G edited banks a prompt, n questions, N = B G n answers,
P prompt length, R response length, M slots of a bank.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.answer import (
    AnswerAgent,
    Verdict,
    answer_prompt,
    compare,
    read_words,
    retrieve_memories,
)
from memr1_jax.agents.distinct import once_each
from memr1_jax.agents.judge import Judge, answer_block, judge_prompt, log_odds
from memr1_jax.agents.manager import Report
from memr1_jax.agents.outcomes import JUDGE
from memr1_jax.agents.reward import RewardOptions, outcome_of
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import ManagerBatch, Query
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import generate, greedy_sampling
from memr1_jax.rl.means import fields
from memr1_jax.text.normalize import Words
from memr1_jax.text.segments import Packed


@dataclasses.dataclass(frozen=True)
class FrozenAnswerer:
    """The Answer Agent that answers from a manager's edits: its sizes and its decoder.

    `together` distinct prompts are answered at a time, see `part`.
    """

    agent: AnswerAgent
    decoder: Decoder
    together: int = 0

    def part(self, prompts: int) -> int:
        """Returns how many of so many prompts are answered at a time.

        By default that is all of them on an accelerator or a mesh, where a token takes about as
        long for many rows as for few; 0, for about an eighth of them, on a CPU, where it takes as
        long as they are many.
        """
        if self.together:
            return self.together
        one_cpu = jax.default_backend() == "cpu" and jax.sharding.get_abstract_mesh().empty
        return 0 if one_cpu else prompts


@dataclasses.dataclass(frozen=True)
class Marking:
    """Holds what marks answers: the reward, and where its outcome is a judge's, the judge."""

    reward: RewardOptions
    judge: Judge | None = None
    judge_params: dict | None = None


EXACT_MATCH = Marking(RewardOptions())  # the paper's


@struct.dataclass
class Reading:
    """One response as it was read: the verdict, the answer in it, and what that is worth."""

    verdict: Verdict
    answer: Block
    outcome: jax.Array  # float32; a judge's comes later, see `answer_worth`


def read_answer(
    agent: AnswerAgent,
    reward: RewardOptions,
    tools: Tools,
    tokens: jax.Array,
    length: jax.Array,
    gold: Words,
    report: Report,
) -> Reading:
    """Reads one response `[R]`; `report` is that of the manager whose edits led to it."""
    words, labelled = read_words(agent, tools, tokens, length)
    return Reading(
        compare(words, labelled, gold),
        answer_block(tools, tokens, length),
        outcome_of(reward, words, gold, report),
    )


def answer_worth(
    marking: Marking, tools: Tools, query: Query, reading: Reading, asked: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Marks answers `[*rows]`: outcomes, and values of them that are metrics.

    The leaves of `query` broadcast against the rows, and so does `asked`: only answers to what was
    asked are shown to a judge.
    """
    answer = reading.answer
    values = fields(reading.verdict) | {"answer_tokens": answer.length}
    if not marking.reward.judged:
        return reading.outcome, values
    if marking.judge is None:
        raise ValueError("The outcome is that of a judge, but there is no judge.")
    question = Block(query.tokens, query.length)
    gold = Block(query.gold_tokens, query.gold_length)
    prompt = judge_prompt(marking.judge, tools, question, gold, answer)
    rows = answer.length.shape
    odds, first = once_each(
        lambda prompt, active: log_odds(marking.judge, marking.judge_params, prompt),
        Block(prompt.tokens.reshape(-1, prompt.tokens.shape[-1]), prompt.length.reshape(-1)),
        jnp.broadcast_to(asked, rows).reshape(-1),
        jnp.float32(0),
    )
    odds, first = odds.reshape(rows), first.reshape(rows)
    outcome = reading.outcome + marking.reward.weight_of(JUDGE) * odds
    return outcome, values | {"judge": odds, "judge_yes": odds > 0, "distinct_verdicts": first}


def consult(
    answerer: FrozenAnswerer,
    params: dict,
    marking: Marking,
    tools: Tools,
    batch: ManagerBatch,
    edited: MemoryBank,
    report: Report,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Marks greedy answers from every edited bank: outcomes and metrics, all `[B, G, n]`.

    Args:
      answerer: sizes and network.
      params: the network's parameters.
      marking: how answers are marked.
      tools: see `Tools`.
      batch: the questions `[B, n]`, which of them are asked (answers to the others are
        empty); the other speakers' banks, and who is who.
      edited: the banks `[B, G, M, ...]` to search in place of `batch.own`.
      report: of the responses that edited them, leaves `[B, G]`.
    """
    agent = answerer.agent
    packed = answerer_prompts(agent, tools, batch, edited)
    rows = packed.length.shape  # [B, G, n]

    def answer(prompt, active):
        samples = generate(
            answerer.decoder,
            params,
            (agent.template.instruction_block, prompt),
            *greedy_sampling(),
            group=1,
            max_tokens=agent.response_length,
            stop_tokens=agent.stop_tokens,
            drafts=agent.draft_tokens,
            active=active[:, None],
        )
        return Block(samples.tokens[:, 0], samples.length[:, 0])

    prompt = Block(packed.tokens.reshape(-1, agent.prompt_length), packed.length.reshape(-1))
    asked, query = each_sample((batch.asked & batch.valid[:, None], batch.queries), rows[1])
    silent = Block(jnp.zeros(agent.response_length, jnp.int32), jnp.int32(0))
    size = answerer.part(len(asked))
    response, first = once_each(answer, prompt, asked, silent, size)

    def read(part):
        response, query, report = part
        read = functools.partial(read_answer, agent, marking.reward, tools)
        return jax.vmap(read)(response.tokens, response.length, query.gold, report)

    report = jax.tree.map(lambda x: jnp.broadcast_to(x[..., None], rows).reshape(-1), report)
    reading = in_parts(read, (response, query, report), answerer.together)
    outcome, values = answer_worth(marking, tools, query, reading, asked)
    values |= {"distinct_prompts": first}
    return jax.tree.map(lambda x: x.reshape(rows), (outcome, values))


def answerer_prompts(
    agent: AnswerAgent, tools: Tools, batch: ManagerBatch, edited: MemoryBank
) -> Packed:
    """Writes the prompts `[B, G, n, P]` of questions about edited banks; see `consult`."""

    def prompt_of(own, other, speaker, scene, query):
        mine, theirs = (retrieve_memories(agent, tools, bank, query) for bank in (own, other))
        first = jax.tree.map(lambda a, b: jnp.where(speaker == 0, a, b), mine, theirs)
        second = jax.tree.map(lambda a, b: jnp.where(speaker == 0, b, a), mine, theirs)
        return answer_prompt(agent, scene, (first, second), query, tools.escapes)

    over_questions = jax.vmap(prompt_of, (None, None, None, None, 0))
    over_group = jax.vmap(over_questions, (0, None, None, None, None))
    return jax.vmap(over_group)(edited, batch.other, batch.speaker, batch.scene, batch.queries)


def each_sample(tree: Any, group: int) -> Any:
    """Repeats leaves `[B, n, ...]` of questions for each of G samples, as rows `[N, ...]`."""

    def rows(x):
        x = jnp.broadcast_to(x[:, None], (len(x), group, *x.shape[1:]))
        return x.reshape(-1, *x.shape[3:])

    return jax.tree.map(rows, tree)


def in_parts(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """Applies `function` to leaves `[N, ...]`, `size` rows at a time; 0: all at once.

    The parts run one after another, so that only one of them takes memory. Row i is in part i
    modulo their number: a mesh, which splits the rows in runs, has a share of every part.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    if not 0 < size < count:
        return function(rows)
    parts = -(-count // size)

    def cut(x):  # where the last part is not full, the last row is computed again
        x = jnp.pad(x, [(0, parts * size - count)] + [(0, 0)] * (x.ndim - 1), mode="edge")
        return x.reshape(size, parts, *x.shape[1:]).swapaxes(0, 1)

    def join(x):
        return x.swapaxes(0, 1).reshape(parts * size, *x.shape[2:])[:count]

    return jax.tree.map(join, jax.lax.map(function, jax.tree.map(cut, rows)))

"""One rollout of either agent: retrieve, prompt, sample, act, reward; all on the device.

Axis letters: B prompts in a batch, G samples a prompt, P prompt length, R response length,
F facts of a turn, W tokens of a memory or question, M slots of a bank, n questions of a turn.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.answer import (
    AnswerAgent,
    Verdict,
    answer_prompt,
    judge_answer,
    retrieve_memories,
)
from memr1_jax.agents.judge import Judge, answer_block, judge_log_odds
from memr1_jax.agents.manager import (
    ManagerPrompt,
    MemoryManager,
    Report,
    apply_response,
    grammar_constraint,
    manager_prompt,
)
from memr1_jax.agents.reward import EXACT_MATCH, Reward, answer_reward, manager_reward
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerBatch, ManagerBatch, Query
from memr1_jax.memory.bank import bank_size
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Samples, Sampling, generate
from memr1_jax.rl.metrics import Mean, masked_mean
from memr1_jax.text.segments import Packed


@struct.dataclass
class Rollout:
    """What an update needs, and what a reader wants to see.

    `prompt` `[B, P]`; `samples` `[B, G, R]`; `rewards` `[B, G]`, 0 in padding; `valid` `[B]`;
    `shown` `[B]`, the number of memory ids in a manager's prompt.
    """

    prompt: Block
    samples: Samples
    rewards: jax.Array
    valid: jax.Array
    shown: jax.Array
    metrics: dict[str, Mean]


def answer_prompts(agent: AnswerAgent, tools: Tools, batch: AnswerBatch) -> Packed:
    """Retrieves from both banks and writes the prompt `[B, P]` of every question."""

    def prompt_of(banks, scene, query):
        retrieved = tuple(retrieve_memories(agent, tools, bank, query) for bank in banks)
        return answer_prompt(agent, scene, retrieved, query)

    return jax.vmap(prompt_of)(batch.banks, batch.scene, batch.query)


def manager_prompts(manager: MemoryManager, tools: Tools, batch: ManagerBatch) -> ManagerPrompt:
    """Retrieves similar memories and writes the prompt `[B, P]` of every turn."""
    return jax.vmap(lambda bank, facts: manager_prompt(manager, tools, bank, facts))(
        batch.own, batch.facts
    )


def answer_rollout(
    agent: AnswerAgent,
    decoder: Decoder,
    params: dict,
    tools: Tools,
    batch: AnswerBatch,
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    reward: Reward = EXACT_MATCH,
    judge: Judge | None = None,
    judge_params: dict | None = None,
) -> Rollout:
    """Samples `group` answers to every question and scores them against the gold answer.

    `judge` and its parameters are needed where the reward's outcome is theirs.
    """
    packed = answer_prompts(agent, tools, batch)
    prompt = Block(packed.tokens, packed.length)
    rows = (*batch.valid.shape, group)
    samples = generate(
        decoder,
        params,
        (agent.template.instruction_block, prompt),
        key,
        sampling,
        group=group,
        max_tokens=agent.response_length,
        stop_tokens=agent.stop_tokens,
        active=jnp.broadcast_to(batch.valid[:, None], rows),
    )

    def read(tokens, length, gold):
        return _read_answer(agent, tools, tokens, length, gold)

    over_group = jax.vmap(read, (0, 0, None))
    verdict, answer = jax.vmap(over_group)(samples.tokens, samples.length, batch.query.gold)
    valid = batch.valid[:, None]
    query = jax.tree.map(lambda x: x[:, None], batch.query)
    outcome, metrics = _outcome(reward, judge, judge_params, tools, query, verdict, answer, valid)
    parts = answer_reward(reward, outcome, verdict)
    metrics |= _means(parts | _fields(verdict), valid)
    metrics |= _shape_metrics(samples, batch.valid, packed.dropped, packed.overflow)
    rewards = jnp.where(valid, sum(parts.values()), 0.0)
    return Rollout(prompt, samples, rewards, batch.valid, jnp.zeros_like(prompt.length), metrics)


@dataclasses.dataclass(frozen=True)
class FrozenAnswerer:
    """The Answer Agent that answers from a manager's edits: its sizes and its decoder."""

    agent: AnswerAgent
    decoder: Decoder


def manager_rollout(
    manager: MemoryManager,
    decoder: Decoder,
    params: dict,
    answerer: FrozenAnswerer,
    answer_params: dict,
    tools: Tools,
    batch: ManagerBatch,
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    reward: Reward = EXACT_MATCH,
    judge: Judge | None = None,
    judge_params: dict | None = None,
) -> Rollout:
    """Samples `group` edits of every bank; the frozen Answer Agent then answers from each result.

    The outcome of a sample is the mean over the turn's questions (Memory-R1, section 3.1 and
    Algorithm 1). With a grammar in `tools` decoding is constrained. `judge` and its parameters are
    needed where the reward's outcome is theirs.
    """
    prompts = manager_prompts(manager, tools, batch)
    prompt = Block(prompts.tokens, prompts.length)
    rows = (*batch.valid.shape, group)
    samples = generate(
        decoder,
        params,
        (manager.template.instruction_block, prompt),
        key,
        sampling,
        group=group,
        max_tokens=manager.response_length,
        stop_tokens=manager.stop_tokens,
        active=jnp.broadcast_to(batch.valid[:, None], rows),
        constraint=manager_constraint(tools, prompts.shown, rows),
    )

    def act(bank, prompt, facts, tokens, length):
        return apply_response(manager, tools, bank, prompt, facts, tokens, length)

    over_group = jax.vmap(act, (None, None, None, 0, 0))
    edited, report = jax.vmap(over_group)(
        batch.own, prompts, batch.facts, samples.tokens, samples.length
    )

    verdict, answer = _consult(answerer, answer_params, tools, batch, edited)
    asked = (batch.asked & batch.valid[:, None])[:, None, :]  # [B, 1, n]
    queries = jax.tree.map(lambda x: x[:, None], batch.queries)
    scores, metrics = _outcome(reward, judge, judge_params, tools, queries, verdict, answer, asked)
    outcome = jnp.where(asked, scores, 0.0).sum(-1) / jnp.maximum(asked.sum(-1), 1)

    valid = batch.valid[:, None]
    memories = bank_size(edited)
    parts = manager_reward(reward, outcome, report, memories, edited.alive.shape[-1])
    rewards = jnp.where(valid, sum(parts.values()), 0.0)
    metrics |= _means(parts | _fields(report) | {"bank_size": memories}, valid)
    metrics |= _means(_fields(verdict), asked)
    metrics["memories_shown"] = masked_mean(prompts.shown, batch.valid)
    metrics |= _shape_metrics(samples, batch.valid, prompts.dropped, prompts.overflow)
    return Rollout(prompt, samples, rewards, batch.valid, prompts.shown, metrics)


def manager_constraint(tools: Tools, shown: jax.Array, rows: tuple[int, ...]):
    """The grammar of `tools` as a constraint on `[*rows]`, or None where decoding is free."""
    if tools.grammar is None:
        return None
    shown = jnp.broadcast_to(shown[:, None], rows)
    return grammar_constraint(tools.grammar, shown, rows)


def _consult(answerer, params, tools, batch, edited):
    """Greedy answers `[B, G, n]` from every edited bank `[B, G, M, ...]`, and their verdicts."""
    agent = answerer.agent

    def prompt_of(own, other, speaker, scene, query):
        mine, theirs = (retrieve_memories(agent, tools, bank, query) for bank in (own, other))
        first = jax.tree.map(lambda a, b: jnp.where(speaker == 0, a, b), mine, theirs)
        second = jax.tree.map(lambda a, b: jnp.where(speaker == 0, b, a), mine, theirs)
        return answer_prompt(agent, scene, (first, second), query)

    over_questions = jax.vmap(prompt_of, (None, None, None, None, 0))
    over_group = jax.vmap(over_questions, (0, None, None, None, None))
    packed = jax.vmap(over_group)(edited, batch.other, batch.speaker, batch.scene, batch.queries)
    asked = batch.asked & batch.valid[:, None]
    samples = generate(
        answerer.decoder,
        params,
        (agent.template.instruction_block, Block(packed.tokens, packed.length)),
        jax.random.key(0),  # greedy: no draw is made from it
        Sampling.create(temperature=0.0),
        group=1,
        max_tokens=agent.response_length,
        stop_tokens=agent.stop_tokens,
        active=jnp.broadcast_to(asked[:, None, :, None], (*packed.length.shape, 1)),
    )

    def read(tokens, length, gold):
        return _read_answer(agent, tools, tokens[0], length[0], gold)

    over_group = jax.vmap(jax.vmap(read), (0, 0, None))
    return jax.vmap(over_group)(samples.tokens, samples.length, batch.queries.gold)


def _read_answer(agent, tools, tokens, length, gold):
    """The verdict on one response `[R]`, and the answer in it."""
    return judge_answer(agent, tools, tokens, length, gold), answer_block(tools, tokens, length)


def _outcome(
    reward: Reward,
    judge: Judge | None,
    judge_params: dict | None,
    tools: Tools,
    query: Query,
    verdict: Verdict,
    answer: Block,
    counted: jax.Array,
) -> tuple[jax.Array, dict[str, Mean]]:
    """What answers `[*rows]` are worth, and metrics over those that are `counted`.

    The leaves of `query` and `counted` broadcast against the rows.
    """
    metrics = {"answer_tokens": answer.length}
    if reward.outcome == "judge":
        if judge is None:
            raise ValueError("The outcome is that of a judge, but there is no judge.")
        question = Block(query.tokens, query.length)
        gold = Block(query.gold_tokens, query.gold_length)
        outcome = judge_log_odds(judge, judge_params, tools, question, gold, answer)
        metrics |= {"judge": outcome, "judge_yes": outcome > 0}
    else:
        outcome = getattr(verdict, reward.outcome)
    return outcome, _means(metrics, counted)


def _means(values, mask):
    return {name: masked_mean(value, mask) for name, value in values.items()}


def _shape_metrics(samples, valid, dropped, overflow):
    rows = valid[:, None]
    return {
        "response_length": masked_mean(samples.length, rows),
        "truncated": masked_mean(~samples.stopped, rows),
        "memories_dropped": masked_mean(dropped, valid),
        "prompt_overflow": masked_mean(overflow, valid),
    }


def _fields(record: Report | Verdict):
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}

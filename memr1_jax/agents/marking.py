"""The worth of a manager's banks: each outcome of the reward, and their weighted sum.

Axis letters: B prompts in a batch, G edited banks a prompt, n questions, N = B G n rows,
P prompt length, W tokens of a gold answer, M slots of a bank, U turns of evidence.
"""

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.consult import (
    FrozenAnswerer,
    Marking,
    answerer_prompts,
    consult,
    each_sample,
)
from memr1_jax.agents.distinct import once_each
from memr1_jax.agents.manager import Report
from memr1_jax.agents.outcomes import FRESH, GAIN, LIKELIHOOD, RECALL
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import ManagerBatch
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.memory.embedder import embed
from memr1_jax.memory.retrieval import retrieve
from memr1_jax.models.decoder import Block
from memr1_jax.models.logprobs import response_statistics


@struct.dataclass
class Marks:
    """Holds outcomes of edited banks `[B, G, n]`, their `worth` in [0, 1], and metrics.

    The worth of a log-probability is the probability. Outcomes that may be outside of [0, 1] are
    clipped.
    """

    outcome: jax.Array
    worth: jax.Array
    values: dict[str, jax.Array]


def mark_edits(
    answerer: FrozenAnswerer,
    params: dict,
    marking: Marking,
    tools: Tools,
    batch: ManagerBatch,
    edited: MemoryBank,
    report: Report,
) -> Marks:
    """Marks every edited bank by the weighted sum of outcomes that the reward names.

    Takes what `consult` takes; that is called only where an outcome reads an answer.
    """
    reward = marking.reward
    found: list[tuple[float, jax.Array, jax.Array]] = []  # weight, weighted outcome, worth
    values: dict[str, jax.Array] = {}
    if weight := reward.answer_weight:
        scores, values = consult(answerer, params, marking, tools, batch, edited, report)
        found.append((weight, scores, jnp.clip(scores / weight, 0.0, 1.0)))
    if reward.weight_of(RECALL) or reward.weight_of(FRESH):
        turns = turns_found(answerer.agent, tools, batch, edited)
        if weight := reward.weight_of(RECALL):
            share = share_among(turns, batch.queries.evidence)
            values = values | {RECALL: share}
            found.append((weight, weight * share, share))
        if weight := reward.weight_of(FRESH):
            share = 1 - share_among(turns, batch.queries.outdated)
            values = values | {FRESH: share}
            found.append((weight, weight * share, share))
    if reward.weight_of(LIKELIHOOD) or reward.weight_of(GAIN):
        after = gold_logprob(answerer, params, tools, batch, edited)
        values = values | {LIKELIHOOD: after}
        if weight := reward.weight_of(LIKELIHOOD):
            found.append((weight, weight * after, jnp.exp(after)))
        if weight := reward.weight_of(GAIN):
            own = batch.when_asked(jax.tree.map(lambda x: x[:, None], batch.own))
            gain = after - gold_logprob(answerer, params, tools, batch, own)
            values = values | {GAIN: gain}
            found.append((weight, weight * gain, jnp.exp(after)))
    total = sum(weight for weight, _, _ in found)
    return Marks(
        outcome=sum(outcome for _, outcome, _ in found),
        worth=sum(weight * worth for weight, _, worth in found) / total,
        values=values,
    )


def turns_found(
    agent: AnswerAgent, tools: Tools, batch: ManagerBatch, edited: MemoryBank
) -> jax.Array:
    """Returns the turns `[B, G, n, K]` of the memories that retrieval returns; -1 beyond.

    A memory stands for the turn that it was written at; both speakers' banks count. No model is
    asked.
    """
    queries = batch.queries

    def found_in(bank, key):
        found = retrieve(bank, key, agent.memories)
        source = bank.source[jnp.minimum(found.slot, bank.source.shape[-1] - 1)]
        return jnp.where(found.valid, source, -1)

    def of_question(own, theirs, key):
        return jnp.concatenate([found_in(own, key), theirs])

    def of_prompt(banks, other, tokens, length):
        keys = jax.vmap(embed, (None, 0, 0))(tools.embedder, tokens, length)
        theirs = jax.vmap(found_in, (None, 0))(other, keys)
        over_questions = jax.vmap(of_question, (None, 0, 0))
        return jax.vmap(over_questions, (0, None, None))(banks, theirs, keys)

    return jax.vmap(of_prompt)(edited, batch.other, queries.tokens, queries.length)


def share_among(found: jax.Array, wanted: jax.Array | None) -> jax.Array:
    """Returns the share `[B, G, n]` of the turns `wanted` `[B, n, U]` that are among those found.

    A question for which no turn is wanted has 0.
    """
    if wanted is None:
        raise ValueError("These questions were encoded without their evidence.")
    wanted = wanted[:, None]
    real = wanted >= 0
    hit = real & (wanted[..., None] == found[..., None, :]).any(-1)
    return (hit.sum(-1) / jnp.maximum(real.sum(-1), 1)).astype(jnp.float32)


def gold_logprob(
    answerer: FrozenAnswerer,
    params: dict,
    tools: Tools,
    batch: ManagerBatch,
    edited: MemoryBank,
) -> jax.Array:
    """Returns the mean log-probability `[B, G, n]` of the gold answer's tokens after its label.

    One pass over prompt and answer; nothing is decoded, and no memory is selected before the
    answer. Equal prompts with equal answers are computed once, and 0 is that of what is not asked.
    """
    agent = answerer.agent
    packed = answerer_prompts(agent, tools, batch, edited)
    rows, queries = packed.length.shape, batch.queries
    label = jnp.asarray(agent.label, jnp.int32)

    def measure(part, _):
        prompt, gold = part
        before = jnp.broadcast_to(label, (len(gold.length), len(label)))
        tokens = jnp.concatenate([before, gold.tokens], axis=-1)
        response = Block(tokens[:, None], (gold.length + len(label))[:, None])
        blocks = (agent.template.instruction_block, prompt, response)
        logprobs = response_statistics(answerer.decoder, params, blocks, jnp.float32(1.0)).logprobs[
            :, 0, len(label) :
        ]
        inside = jnp.arange(gold.tokens.shape[-1]) < gold.length[:, None]
        return jnp.where(inside, logprobs, 0.0).sum(-1) / jnp.maximum(gold.length, 1)

    prompt = Block(packed.tokens.reshape(-1, agent.prompt_length), packed.length.reshape(-1))
    gold = Block(queries.gold_tokens, queries.gold_length)
    gold, asked = each_sample((gold, batch.asked & batch.valid[:, None]), rows[1])
    found, _ = once_each(measure, (prompt, gold), asked, jnp.float32(0), answerer.part(len(asked)))
    return found.reshape(rows)

"""One rollout of either agent: retrieve, prompt, sample, act, reward; all on the device.

Axis letters: B prompts in a batch, G samples a prompt, P prompt length, R response length,
F facts of a turn, W tokens of a memory or question, M slots of a bank, n questions of a turn.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.answer import AnswerAgent, answer_prompt, retrieve_memories
from memr1_jax.agents.consult import (
    EXACT_MATCH,
    FrozenAnswerer,
    Marking,
    answer_worth,
    read_answer,
)
from memr1_jax.agents.manager import (
    ManagerPrompt,
    MemoryManager,
    Report,
    apply_response,
    grammar_constraint,
    manager_prompt,
)
from memr1_jax.agents.marking import mark_edits
from memr1_jax.agents.reward import (
    RewardOptions,
    answer_reward,
    growth_price,
    manager_reward,
    no_report,
)
from memr1_jax.agents.stratified import (
    floored,
    forced_constraint,
    forced_events,
    policy_shares,
    possible,
    weighted,
)
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import AnswerBatch, ManagerBatch
from memr1_jax.memory.bank import MemoryBank, bank_size
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Samples, Sampling, generate
from memr1_jax.rl.means import Mean, fields, masked_mean, masked_means
from memr1_jax.rl.trajectories import Trajectories
from memr1_jax.text.segments import Packed


@struct.dataclass
class Rollout:
    """Holds what an update needs and what a reader wants to see.

    `prompt` `[B, P]`; `samples` `[B, G, R]`; `rewards` `[B, G]`, 0 in padding; `valid` `[B]`;
    `shown` `[B]`, the number of memory ids in a manager's prompt; `trajectories` where rows are
    their steps; `costs` `[B, G]`, in units of the advantage, None where nothing is priced;
    `weights` `[B, G]` of samples that were drawn on purpose.
    """

    prompt: Block
    samples: Samples
    rewards: jax.Array
    valid: jax.Array
    shown: jax.Array
    metrics: dict[str, Mean]
    trajectories: Trajectories | None = None
    costs: jax.Array | None = None
    weights: jax.Array | None = None


def answer_prompts(agent: AnswerAgent, tools: Tools, batch: AnswerBatch) -> Packed:
    """Retrieves from both banks and writes the prompt `[B, P]` of every question."""

    def prompt_of(banks, scene, query):
        retrieved = tuple(retrieve_memories(agent, tools, bank, query) for bank in banks)
        return answer_prompt(agent, scene, retrieved, query, tools.escapes)

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
    marking: Marking = EXACT_MATCH,
) -> Rollout:
    """Samples `group` answers to every question and scores them against the gold answer."""
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
        drafts=agent.draft_tokens,
        active=jnp.broadcast_to(batch.valid[:, None], rows),
    )

    read = functools.partial(read_answer, agent, marking.reward, tools)
    over_group = jax.vmap(read, (0, 0, None, None))
    reading = jax.vmap(over_group, (0, 0, 0, None))(
        samples.tokens, samples.length, batch.query.gold, no_report()
    )
    valid = batch.valid[:, None]
    query = jax.tree.map(lambda x: x[:, None], batch.query)
    outcome, values = answer_worth(marking, tools, query, reading, valid)
    parts = answer_reward(marking.reward, outcome, reading.verdict)
    metrics = masked_means(parts | values, valid)
    metrics |= _shape_metrics(samples, batch.valid, packed.dropped, packed.overflow)
    rewards = jnp.where(valid, sum(parts.values()), 0.0)
    return Rollout(prompt, samples, rewards, batch.valid, jnp.zeros_like(prompt.length), metrics)


@struct.dataclass
class Edits:
    """The manager's work at one turn of each of B dialogues.

    `samples` `[B, G, R]`; `banks` `[B, G, M, ...]` after the edits; `report` leaves `[B, G]`;
    `weights` `[B, G]` of a stratified group.
    """

    prompts: ManagerPrompt
    samples: Samples
    banks: MemoryBank
    report: Report
    weights: jax.Array | None = None

    @property
    def prompt(self) -> Block:
        """The prompts as a block of the chain."""
        return Block(self.prompts.tokens, self.prompts.length)

    def reward_parts(self, reward: RewardOptions, outcome: jax.Array) -> dict[str, jax.Array]:
        """Returns the parts of the rewards `[B, G]` of edits with outcomes `[B, G]`."""
        memories, capacity = bank_size(self.banks), self.banks.alive.shape[-1]
        return manager_reward(reward, outcome, self.report, memories, capacity)

    def costs(
        self, reward: RewardOptions, batch: ManagerBatch, worth: jax.Array
    ) -> tuple[jax.Array | None, dict[str, Mean]]:
        """Returns what the growth of the banks costs `[B, G]`, None where it costs nothing."""
        if not reward.growth_weight:
            return None, {}
        before = jax.tree.map(lambda x: x[:, None], batch.own)
        told = jnp.sum(batch.facts.length > 0, axis=-1)[:, None]
        price, values = growth_price(reward, before, self.banks, told, worth)
        valid = batch.valid[:, None]
        return jnp.where(valid, price, 0.0), masked_means(values, valid)

    def metrics(self, active: jax.Array) -> dict[str, Mean]:
        """Returns metrics of the rows that are `active` `[B]`."""
        metrics = fields(self.report) | {"bank_size": bank_size(self.banks)}
        metrics = masked_means(metrics, active[:, None])
        metrics["memories_shown"] = masked_mean(self.prompts.shown, active)
        prompts = self.prompts
        return metrics | _shape_metrics(self.samples, active, prompts.dropped, prompts.overflow)


def sample_edits(
    manager: MemoryManager,
    decoder: Decoder,
    params: dict,
    tools: Tools,
    batch: ManagerBatch,
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    row_ids: jax.Array | None = None,
    stratified: bool = False,
) -> Edits:
    """Samples `group` responses to the facts of a turn and applies each to a copy of the bank.

    With a grammar in `tools` decoding is constrained; `stratified` as in `agents/stratified.py`.
    Padding rows of the batch give empty responses; `row_ids` `[B, G]` as in `generate`.
    """
    prompts = manager_prompts(manager, tools, batch)
    rows = (*batch.valid.shape, group)
    active = jnp.broadcast_to(batch.valid[:, None], rows)
    constraint, weights = manager_constraint(tools, prompts.shown, rows), None
    if stratified:
        events = forced_events(rows)
        active &= possible(prompts.shown, events)
        constraint = forced_constraint(tools, prompts.shown, events)
    block = Block(prompts.tokens, prompts.length)
    samples = generate(
        decoder,
        params,
        (manager.template.instruction_block, block),
        key,
        sampling,
        group=group,
        max_tokens=manager.response_length,
        stop_tokens=manager.stop_tokens,
        drafts=manager.draft_tokens,
        row_ids=row_ids,
        active=active,
        constraint=constraint,
    )
    if stratified:
        samples, weights = weighted(
            *(manager, decoder, params, tools, block, prompts.shown, samples, active, sampling)
        )

    def act(bank, prompt, facts, tokens, length):
        return apply_response(manager, tools, bank, prompt, facts, tokens, length)

    over_group = jax.vmap(act, (None, None, None, 0, 0))
    edited, report = jax.vmap(over_group)(
        batch.own, prompts, batch.facts, samples.tokens, samples.length
    )
    return Edits(prompts, samples, edited, report, weights)


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
    marking: Marking = EXACT_MATCH,
    stratified: bool = False,
    floor: float = 0.0,
) -> Rollout:
    """Samples `group` edits of every bank; the frozen Answer Agent then answers from each result.

    The outcome of a sample is the mean over the turn's questions (Memory-R1, section 3.1 and
    Algorithm 1). With a grammar in `tools` decoding is constrained; `stratified` and `floor` as in
    `agents/stratified.py`.
    """
    edits = sample_edits(
        *(manager, decoder, params, tools, batch, key, sampling),
        group=group,
        stratified=stratified,
    )
    banks = batch.when_asked(edits.banks)
    marks = mark_edits(answerer, answer_params, marking, tools, batch, banks, edits.report)
    asked = batch.asked & batch.valid[:, None]
    parts = edits.reward_parts(marking.reward, mean_of_asked(marks.outcome, asked))
    costs, growth = edits.costs(marking.reward, batch, mean_of_asked(marks.worth, asked))
    valid = batch.valid[:, None]
    rewards = jnp.where(valid, sum(parts.values()), 0.0)
    metrics = edits.metrics(batch.valid) | masked_means(parts, valid)
    metrics |= growth | masked_means(marks.values, asked[:, None])
    shown, weights = edits.prompts.shown, edits.weights
    if stratified:
        metrics |= policy_shares(weights, batch.valid)
        weights = floored(weights, edits.samples.length, floor)
    return Rollout(
        *(edits.prompt, edits.samples, rewards, batch.valid, shown, metrics),
        costs=costs,
        weights=weights,
    )


def mean_of_asked(scores: jax.Array, asked: jax.Array) -> jax.Array:
    """Averages scores `[B, G, n]` over the questions `asked` `[B, n]`: `[B, G]`, 0 over none."""
    asked = asked[:, None]
    return jnp.where(asked, scores, 0.0).sum(-1) / jnp.maximum(asked.sum(-1), 1)


def manager_constraint(tools: Tools, shown: jax.Array, rows: tuple[int, ...]):
    """Returns the grammar of `tools` as a constraint on `[*rows]`, None where decoding is free."""
    if tools.grammar is None:
        return None
    shown = jnp.broadcast_to(shown[:, None], rows)
    return grammar_constraint(tools.grammar, shown, rows)


def _shape_metrics(samples, valid, dropped, overflow):
    rows = valid[:, None]
    passes = {}
    if samples.passes is not None:
        weight = masked_mean(samples.passes, rows).sum
        passes["tokens_per_pass"] = Mean(masked_mean(samples.length, rows).sum, weight)
    return passes | {
        "response_length": masked_mean(samples.length, rows),
        "truncated": masked_mean(~samples.stopped, rows),
        "memories_dropped": masked_mean(dropped, valid),
        "prompt_overflow": masked_mean(overflow, valid),
    }

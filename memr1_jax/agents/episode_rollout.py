"""A rollout of the Memory Manager over whole episodes: a scan over turns, both banks its carry.

At each turn the manager is shown what it wrote before. Two schemes say how its operations
are rewarded:

- `terminal`: G trajectories of each episode, each with banks of its own. The frozen Answer Agent
  answers the questions at the end from them, and all operations of a trajectory share this reward
  (Memory-R1, Algorithm 5).
- `branches`: one trunk of each episode. At every turn G samples start from one snapshot of its
  banks, and each is rewarded by the questions that the turn bears on and by those of the end that
  can be answered by then; the trunk follows one of them. Rerollouts from a shared snapshot are
  also how Memory-R2 assigns credit (arXiv 2605.21768).

Axis letters: B episodes, G samples or trajectories, T turns of an episode, P prompt length,
R response length, M slots of a bank, n questions of a turn, N questions at the end.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.consult import EXACT_MATCH, FrozenAnswerer, Marking
from memr1_jax.agents.manager import MemoryManager, Report
from memr1_jax.agents.marking import Marks, mark_edits
from memr1_jax.agents.reward import episode_reward, growth_price
from memr1_jax.agents.rollout import Edits, Rollout, mean_of_asked, sample_edits
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import EpisodeBatch, EpisodeTurns, ManagerBatch, Query
from memr1_jax.data.episodes import STARTS
from memr1_jax.memory.bank import MemoryBank, bank_size
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.sampler import Sampling
from memr1_jax.options import at_least, between, option
from memr1_jax.rl.means import masked_mean, masked_means
from memr1_jax.rl.trajectories import Trajectories
from memr1_jax.run.streams import named_key

HORIZONS = ("one_step", "terminal", "branches")
TRUNKS = ("sampled", "best")
Banks = tuple[MemoryBank, MemoryBank]  # of speakers 0 and 1, leaves [B, M, ...]


@dataclasses.dataclass(frozen=True)
class HorizonOptions:
    """Set whether the manager learns from single turns or from whole episodes.

    With episodes --batch counts episodes, and --window is not used. The weights are those of the
    two outcomes of a branch, whose weighted mean counts; where one of them has no question, the
    other counts alone. Static under `jit`.
    """

    scheme: str = option(
        "one_step",
        "What earns the manager a reward: one turn's edits of a bank of noted facts; a whole"
        " episode at its end, shared by all of its turns; or every turn of an episode, in branches"
        " from the bank that the manager has made.",
        HORIZONS,
        flag="horizon",
    )
    episode_turns: int = option(
        16, "Turns of an episode that bring facts; 0: the whole dialogue.", within=at_least(0)
    )
    episode_start: str = option(
        "empty", "Banks before an episode: empty, or what a memory should hold there.", STARTS
    )
    final_questions: int = option(
        8, "Questions at the end of an episode; 0: all of them.", within=at_least(0)
    )
    local_weight: float = option(
        1.0, "Branches: weight of the turn's own questions.", within=at_least(0)
    )
    final_weight: float = option(
        1.0,
        "Branches: weight of the episode's questions, as far as they can be answered.",
        within=at_least(0),
    )
    trunk: str = option(
        "sampled",
        "Branches: the one that the episode continues from, at random (as the policy would have"
        " done) or of the highest reward.",
        TRUNKS,
    )

    branch_share: float = option(
        1.0,
        "Branches: share of an episode's turns, drawn for each step, where samples are compared;"
        " elsewhere the trunk takes one sample, which is cheaper and teaches nothing.",
        within=between(0.01, 1),
    )

    def __post_init__(self):
        """Refuses unknown names."""
        if self.scheme not in HORIZONS or self.trunk not in TRUNKS:
            raise ValueError(f"{self} is none of {HORIZONS} with a trunk of {TRUNKS}.")

    @property
    def episodic(self) -> bool:
        """Says whether the manager learns from whole episodes."""
        return self.scheme != "one_step"

    def compared(self, turns: int) -> int:
        """Counts the turns of an episode of `turns` turns that become rows of an update."""
        if self.scheme != "branches":
            return turns
        return math.ceil(self.branch_share * turns - 1e-9)


@struct.dataclass
class Unrolled:
    """A rollout, both speakers' banks after it, and the branch kept after each turn.

    Leaves of `banks` are `[B, M, ...]`, of trajectories `[B G, M, ...]`; `chosen` `[B, T]`, None
    for trajectories.
    """

    rollout: Rollout
    banks: Banks
    chosen: jax.Array | None = None


def episode_rollout(
    horizon: HorizonOptions,
    manager: MemoryManager,
    decoder: Decoder,
    params: dict,
    answerer: FrozenAnswerer,
    answer_params: dict,
    tools: Tools,
    batch: EpisodeBatch,
    key: jax.Array,
    sampling: Sampling,
    *,
    group: int,
    marking: Marking = EXACT_MATCH,
) -> Unrolled:
    """Works through episodes and rewards what was written, as `horizon` says.

    Takes what `manager_rollout` takes, with episodes in place of turns. The rollout has a row for
    every turn, that of a turn that an episode does not have being padding: with branches
    `[B T, G]`, where turns without any question teach nothing; with one reward at the end
    `[B G T, 1]`, the steps of `Trajectories`. With a single turn its samples are those of
    `manager_rollout`.
    """

    def edit(turn: ManagerBatch, index: jax.Array, group: int, of: int = 0) -> Edits:
        """Samples `group` edits, which are the first ones of a group of `of`."""
        episodes, of = turn.valid.shape[0], of or group
        first = (index * episodes + jnp.arange(episodes)) * of
        return sample_edits(
            *(manager, decoder, params, tools, turn, key, sampling),
            group=group,
            row_ids=first[:, None] + jnp.arange(group),
        )

    def ask(turn: ManagerBatch, edited: MemoryBank, report: Report) -> Marks:
        return mark_edits(answerer, answer_params, marking, tools, turn, edited, report)

    if horizon.scheme == "terminal":
        return _trajectories(edit, ask, marking.reward, batch, group)
    return _branches(horizon, edit, ask, marking.reward, batch, group, key)


def _trajectories(edit, ask, reward, batch, group):
    """Runs G trajectories of each episode as rows of one batch, with a reward at the end."""
    batch = jax.tree.map(lambda x: jnp.repeat(x, group, axis=0), batch)

    def turn(banks, item):
        index, here = item
        now = _at_turn(batch, banks, here)
        edits = edit(now, index, group=1)
        edited = jax.tree.map(lambda x: x[:, 0], edits.banks)
        seen = (edits.prompt, edits.samples, edits.prompts.shown, edits.report)
        return _banks_after(banks, now, edited), (seen, edits.metrics(now.valid))

    banks, (seen, metrics) = jax.lax.scan(turn, batch.banks, _over_turns(batch.turns))
    prompt, samples, shown, report = _by_episode(seen)
    turns, valid = batch.turns, batch.valid
    first, second = banks
    end = ManagerBatch(
        *(first, second, jnp.zeros_like(turns.speaker[:, 0]), batch.scene),
        *(turns.facts, batch.queries, batch.asked, valid),
    )
    present = turns.present & valid[:, None]
    report = jax.tree.map(lambda x: x[..., 0], report)
    whole = jax.tree.map(lambda x: jnp.where(present, x, 0).sum(-1, keepdims=True), report)
    marks = ask(end, jax.tree.map(lambda x: x[:, None], first), whole)
    asked = batch.asked & valid[:, None]
    memories = jnp.stack([bank_size(bank) for bank in banks], axis=-1)
    parts = episode_reward(
        *(reward, mean_of_asked(marks.outcome, asked)[:, 0]),
        *(report, present, memories, first.alive.shape[-1]),
    )
    rewards = jnp.where(present, sum(parts.values())[:, None], 0.0)
    metrics = _sum_over_turns(metrics) | masked_means(parts, valid)
    metrics |= masked_means(marks.values, asked[:, None])
    costs = None
    if reward.growth_weight:
        told = jnp.where(present, (turns.facts.length > 0).sum(-1), 0).sum(-1)
        worth = mean_of_asked(marks.worth, asked)[:, 0]
        price, growth = growth_price(reward, _joined(batch.banks), _joined(banks), told, worth)
        metrics |= masked_means(growth, valid)
        costs = jnp.where(present, price[:, None], 0.0).reshape(-1, 1)
    metrics["final_bank_size"] = masked_mean(memories, valid[:, None])
    rollout = Rollout(
        *_flat((prompt, samples, rewards[..., None], present, shown)),
        metrics,
        Trajectories(group, present.shape[1]),
        costs,
    )
    return Unrolled(rollout, banks)


def _joined(banks: Banks) -> MemoryBank:
    """Joins both speakers' banks in one of twice the slots, with the first's counters."""
    first, second = banks
    slots = ("tokens", "length", "key", "created", "updated", "source", "alive")
    both = {
        name: jnp.concatenate([getattr(first, name), getattr(second, name)], axis=1)
        for name in slots
    }
    return first.replace(**both)


def _branches(horizon, edit, ask, reward, batch, group, key):
    """Runs a trunk of each episode, and G branches of it at every turn or at a share of them."""
    turns = jnp.arange(batch.turns.present.shape[1])
    last = jnp.max(jnp.where(batch.turns.present, turns, -1), axis=1)

    def turn(banks, item):
        index, here = item
        now = _at_turn(batch, banks, here)
        sets = {  # of questions: their weight, and which of them are asked
            "local": (horizon.local_weight, here.queries, here.asked),
            "final": (horizon.final_weight, batch.queries, batch.asked & (batch.due <= index)),
        }
        sets = {name: parts for name, parts in sets.items() if parts[0]}
        _, queries, asked = zip(*sets.values(), strict=True)
        now = now.replace(
            queries=jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *queries),
            asked=jnp.concatenate(asked, axis=1) & now.valid[:, None],
        )
        edits = edit(now, index, group)
        marks = ask(now, edits.banks, edits.report)
        outcomes, judged, outcome = branch_outcome(sets, marks.outcome, now.valid)
        _, _, worth = branch_outcome(sets, marks.worth, now.valid)
        costs, growth = edits.costs(reward, now, worth)
        parts = edits.reward_parts(reward, outcome)
        rewards = jnp.where(judged[:, None], sum(parts.values()), 0.0)
        draw = jax.random.fold_in(named_key(key, "trunk"), index)
        chosen = choose_branch(horizon.trunk, rewards, draw)
        edited = jax.tree.map(lambda x: x[jnp.arange(len(chosen)), chosen], edits.banks)
        metrics = edits.metrics(now.valid) | masked_means(parts, judged[:, None])
        metrics |= growth | masked_means(marks.values, now.asked[:, None])
        for name, (mean, counted) in outcomes.items():
            metrics[f"{name}_outcome"] = masked_mean(mean, counted[:, None])
        if "final" in outcomes:
            ends = (index == last) & now.valid
            metrics["end_outcome"] = masked_mean(outcomes["final"][0], ends[:, None])
        seen = (edits.prompt, edits.samples, rewards, judged, edits.prompts.shown, costs)
        return _banks_after(banks, now, edited), (seen, chosen, metrics)

    def trunk(banks, item):
        index, here = item
        now = _at_turn(batch, banks, here)
        edits = edit(now, index, 1, group)
        return _banks_after(banks, now, jax.tree.map(lambda x: x[:, 0], edits.banks))

    items = _over_turns(batch.turns)
    compared = _compared_turns(horizon, len(turns), key)
    if compared is None:
        banks, (seen, chosen, metrics) = jax.lax.scan(turn, batch.banks, items)
    else:
        here = jnp.zeros(len(turns), bool).at[compared].set(True)
        step = _at_some(turn, trunk)
        banks, (seen, chosen, metrics) = jax.lax.scan(step, batch.banks, (here, items))
        seen = jax.tree.map(lambda x: x[compared], seen)
    memories = jnp.stack([bank_size(bank) for bank in banks], axis=-1)
    metrics = _sum_over_turns(metrics)
    metrics["final_bank_size"] = masked_mean(memories, batch.valid[:, None])
    *seen, costs = _flat(_by_episode(seen))
    rollout = Rollout(*seen, metrics, costs=costs)
    return Unrolled(rollout, banks, chosen.swapaxes(0, 1))


def _compared_turns(horizon: HorizonOptions, turns: int, key: jax.Array) -> jax.Array | None:
    """Draws the turns where branches are compared, in order; None for all of them."""
    count = horizon.compared(turns)
    if count == turns:
        return None
    return jnp.sort(jax.random.permutation(named_key(key, "compared"), turns)[:count])


def _at_some(turn, trunk):
    """Makes the step of a scan that runs `turn` where its item says so, and else only `trunk`."""

    def step(banks, item):
        here, item = item
        _, shapes = jax.eval_shape(turn, banks, item)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.cond(
            here, turn, lambda banks, item: (trunk(banks, item), nothing), banks, item
        )

    return step


def choose_branch(trunk: str, rewards: jax.Array, key: jax.Array) -> jax.Array:
    """Picks the branch `[B]` that a trunk follows, by `rewards` `[B, G]`; see `HorizonOptions`."""
    if trunk == "best":
        return jnp.argmax(rewards, axis=-1)
    return jax.random.randint(key, rewards.shape[:1], 0, rewards.shape[1])


def branch_outcome(
    sets: dict[str, tuple[float, Query, jax.Array]], scores: jax.Array, valid: jax.Array
) -> tuple[dict[str, tuple[jax.Array, jax.Array]], jax.Array, jax.Array]:
    """Combines the outcomes of branches over several sets of questions.

    Args:
      sets: by name the weight, the questions `[B, n]`, and which of them are asked `[B, n]`.
      scores: `[B, G, N]`, of the questions of all sets one after another.
      valid: `[B]`.

    Returns:
      By name the means `[B, G]` and where there are any `[B]`; where there is any at all `[B]`; the
      weighted mean `[B, G]` of those that there are.
    """
    outcomes, total, weights, start = {}, 0.0, 0.0, 0
    for name, (weight, _, asked) in sets.items():
        asked &= valid[:, None]
        mean = mean_of_asked(scores[..., start : start + asked.shape[1]], asked)
        outcomes[name] = mean, asked.any(-1)
        total += weight * mean
        weights += weight * outcomes[name][1]
        start += asked.shape[1]
    return outcomes, weights > 0, total / jnp.where(weights > 0, weights, 1.0)[:, None]


def _over_turns(turns: EpisodeTurns):
    """Returns number and content of each turn, as a scan wants them."""
    count = turns.present.shape[1]
    return jnp.arange(count), jax.tree.map(lambda x: x.swapaxes(0, 1), turns)


def _by_episode(tree):
    """Turns `[T, B, ...]` into `[B, T, ...]`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1), tree)


def _flat(tree):
    """Flattens `[B, T, ...]` into rows `[B T, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _sum_over_turns(metrics):
    return jax.tree.map(lambda x: x.sum(0), metrics)


def _at_turn(batch: EpisodeBatch, banks: Banks, here: EpisodeTurns) -> ManagerBatch:
    """Picks one turn of each episode; one that an episode lacks is padding."""
    first, second = banks
    own = _where(here.speaker == 0, first, second)
    other = _where(here.speaker == 0, second, first)
    valid = batch.valid & here.present
    return ManagerBatch(
        own, other, here.speaker, batch.scene, here.facts, here.queries, here.asked, valid
    )


def _banks_after(banks: Banks, turn: ManagerBatch, edited: MemoryBank) -> Banks:
    """Returns both banks after a turn: the speaker's own as it was edited."""
    return tuple(
        _where(turn.valid & (turn.speaker == speaker), edited, bank)
        for speaker, bank in enumerate(banks)
    )


def _where(rows, yes, no):
    """Picks for each row `[B]` one of two pytrees of leaves `[B, ...]`."""
    return jax.tree.map(
        lambda a, b: jnp.where(rows.reshape(-1, *[1] * (a.ndim - 1)), a, b), yes, no
    )

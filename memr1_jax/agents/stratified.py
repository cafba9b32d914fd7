"""Groups with every kind of operation in them, weighted so that their mean is the policy's.

Sample g of a group is made to begin with the operation `Event(g % 4)`: where the grammar leaves a
choice between operations, tokens that lead to others are masked. With q the distribution so
sampled, a sample counts by `p / q`, the probability that the policy gave to what was not masked:
on the usual spelling the policy's probability of the operation. Sums over a group with these
weights are unbiased for the policy's own, without the noise of which operation was drawn, as in
all-action policy gradients (arXiv 1709.00503); an operation that sampling would never have drawn
still shows what it earns. By its weight it hardly moves a policy that hardly ever chooses it,
though: with a floor it counts as if it were chosen that often, which is biased, and explores.

Axis letters: B prompts, G samples a prompt, R response length, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.tools import Tools
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.sampler import Constraint, Samples, Sampling
from memr1_jax.rl.means import Mean, masked_mean
from memr1_jax.rl.policy import under_grammar
from memr1_jax.text.events import Event
from memr1_jax.text.strata import advance_within, allowed_within, create_state


def forced_events(rows: tuple[int, ...]) -> jax.Array:
    """Returns the operation `[B, G]` that each sample begins with."""
    return jnp.broadcast_to(jnp.arange(rows[-1]) % len(Event), rows)


def possible(shown: jax.Array, events: jax.Array) -> jax.Array:
    """Tells which samples can be drawn: an operation on a memory needs one that is shown `[B]`."""
    named = jnp.asarray([event.names_memory for event in Event])[events]
    return ~named | (shown[:, None] > 0)


def forced_constraint(tools: Tools, shown: jax.Array, events: jax.Array) -> Constraint:
    """Returns the grammar as a constraint under which rows `[B, G]` begin with their `events`."""
    grammar, strata = tools.grammar, tools.strata
    shown = jnp.broadcast_to(shown[:, None], events.shape)
    return Constraint(
        state=create_state(grammar, events.shape),
        allowed=lambda state, remaining: allowed_within(
            grammar, strata, state, remaining, shown, events
        ),
        advance=lambda state, token: advance_within(grammar, strata, state, token, shown),
    )


def weighted(
    manager: MemoryManager,
    decoder: Decoder,
    params: dict,
    tools: Tools,
    prompt: Block,
    shown: jax.Array,
    samples: Samples,
    active: jax.Array,
    sampling: Sampling,
) -> tuple[Samples, jax.Array]:
    """Gives samples the policy's own log-probabilities, and a weight each.

    Takes one more pass over the prompts and the first few tokens of each response.

    Returns:
      The samples, and weights `[B, G]`: 0 outside `active`, and over a group 1 in the mean.
    """
    few = min(tools.strata.prefix, samples.tokens.shape[-1])
    tokens = samples.tokens[..., :few]
    constraint = under_grammar(tools.grammar, tokens, shown, samples.tokens.shape[-1])
    length = jnp.minimum(samples.length, few)
    blocks = (manager.template.instruction_block, prompt, Block(tokens, length))
    own = response_statistics(decoder, params, blocks, sampling.temperature, **constraint).logprobs
    choosing = _unnamed(tools, tokens, shown) & (jnp.arange(few) < length[..., None])
    drawn = samples.logprobs[..., :few]
    share = jnp.exp(jnp.where(choosing, own - drawn, 0.0).sum(-1))
    logprobs = samples.logprobs.at[..., :few].set(jnp.where(choosing, own, drawn))
    weights = jnp.where(active, len(Event) * share, 0.0)
    return samples.replace(logprobs=logprobs), weights


def floored(weights: jax.Array, length: jax.Array, floor: float) -> jax.Array:
    """Returns weights `[B, G]` as if each probability were `floor` at least.

    Args:
      weights: of a stratified group.
      length: of its samples `[B, G]`, 0 where none was drawn.
      floor: in [0, 1 / 4].
    """
    return jnp.where(length > 0, jnp.maximum(weights, len(Event) * floor), weights)


def policy_shares(weights: jax.Array, valid: jax.Array) -> dict[str, Mean]:
    """Returns the policy's probability of each operation by `weights` `[B, G]`, as metrics."""
    events = forced_events(weights.shape)
    return {
        f"policy_{event.key}": masked_mean(jnp.where(events == event, weights, 0.0).mean(-1), valid)
        for event in Event
    }


def _unnamed(tools, tokens, shown):
    """Marks the positions `[B, G, few]` before which no operation has been named."""
    shown = jnp.broadcast_to(shown[:, None], tokens.shape[:-1])
    step = functools.partial(advance_within, tools.grammar, tools.strata)

    def take(state, token):
        return step(state, token, shown), state[1]

    start = create_state(tools.grammar, tokens.shape[:-1])
    _, unnamed = jax.lax.scan(take, start, jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(unnamed, 0, -1)

"""The PPO update: steps, padding, its relation to GRPO, and that both networks learn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.critic import init_critic, response_values
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Sampling, generate
from memr1_jax.rl.ppo import (
    Optimizers,
    PPOOptions,
    ValueBatch,
    create_ppo_state,
    critic_step,
    ppo_update,
)
from memr1_jax.rl.update import (
    Experience,
    GRPOOptions,
    create_optimizer,
    create_state,
    response_mask,
    update,
)

SMALL = dataclasses.replace(
    CONFIG, vocab_size=24, num_layers=1, model_width=32, num_heads=2, num_kv_heads=1, mlp_width=32
)
DECODER = Decoder(SMALL, remat="none")
PROMPTS, GROUP, PROMPT, RESPONSE = 4, 2, 4, 4
INSTRUCTION = Block(jnp.array([3, 1, 4]), jnp.int32(3))
SGD = Optimizers(optax.sgd(0.1), optax.sgd(0.1))
FULL = {
    "group": GROUP,
    "epochs": 2,
    "mini_batches": 2,
    "kl_weight": 0.5,
    "kl_placement": "loss",
    "entropy_weight": 0.1,
    "sampler_cap": 2.0,
    "gae_lambda": 0.9,
}


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_params(SMALL))


@pytest.fixture(scope="module")
def reference(params):
    return jax.tree.map(lambda x: x * 1.1, params)


@pytest.fixture(scope="module")
def experience():
    """Returns random tokens and rewards; lengths vary."""
    return _experience(GROUP)


def _experience(group):
    rng = np.random.default_rng(0)
    rows = (PROMPTS, group)

    def tokens(*shape):
        return jnp.array(rng.integers(0, SMALL.vocab_size, shape), jnp.int32)

    return Experience(
        prompt=Block(tokens(PROMPTS, PROMPT), jnp.array([4, 2, 3, 1])),
        response=Block(
            tokens(*rows, RESPONSE), jnp.array(rng.integers(1, RESPONSE + 1, rows), jnp.int32)
        ),
        logprobs=jnp.array(rng.normal(-3, 0.5, (*rows, RESPONSE)), jnp.float32),
        rewards=jnp.array(rng.random(rows), jnp.float32),
        stopped=jnp.ones(rows, bool),
        valid=jnp.ones(PROMPTS, bool),
        shown=jnp.zeros(PROMPTS, jnp.int32),
    )


def _compiled(**options):
    algorithm = PPOOptions(**{"kl_weight": 0.0, "logit_chunk": 7} | options)

    @jax.jit
    def step(params, reference, experience):
        state = create_ppo_state(params, SGD, 0, SMALL.model_width)
        after, metrics = ppo_update(
            algorithm, DECODER, SGD, state, reference, INSTRUCTION, experience
        )
        moves = jax.tree.map(
            jnp.subtract, (after.params, after.critic), (state.params, state.critic)
        )
        return moves, metrics

    return step


@pytest.fixture(scope="module")
def full():
    return _compiled(**FULL)


def _assert_same(first, second, tolerance):
    """Moves and metrics of two updates."""
    for left, right in zip(jax.tree.leaves(first[0]), jax.tree.leaves(second[0]), strict=True):
        left, right = np.asarray(left), np.asarray(right)
        atol = tolerance * np.abs(left).max()
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=atol)
    assert first[1].keys() == second[1].keys()
    for name, mean in first[1].items():
        np.testing.assert_allclose(
            mean.value(), second[1][name].value(), rtol=tolerance, atol=1e-6, err_msg=name
        )


def test_micro_batches_change_nothing(params, reference, experience, full):
    whole = full(params, reference, experience)
    for network in whole[0]:
        assert max(float(jnp.abs(move).max()) for move in jax.tree.leaves(network)) > 1e-4
    assert float(whole[1]["loss"].weight) == float(whole[1]["value_loss"].weight) == 4
    split = _compiled(**FULL, micro_batches=2)(params, reference, experience)
    _assert_same(whole, split, 1e-3)


def test_masked_tokens_do_not_matter(params, reference, experience, full):
    padded = experience.replace(valid=jnp.arange(PROMPTS) < 3)
    counted = np.asarray(response_mask(padded, mask_truncated=False))
    rng = np.random.default_rng(1)
    tokens = np.where(counted, padded.response.tokens, rng.integers(0, 24, counted.shape))
    logprobs = np.where(counted, padded.logprobs, np.nan)
    spoiled = padded.replace(
        response=Block(jnp.array(tokens, jnp.int32), padded.response.length),
        logprobs=jnp.array(logprobs, jnp.float32),
        rewards=padded.rewards.at[3].set(1e6),
    )
    assert not np.array_equal(tokens, padded.response.tokens)
    expected = full(params, reference, padded)
    _assert_same(expected, full(params, reference, spoiled), 1e-4)
    counted = full(params, reference, experience)[1]["reward"].value()
    assert float(expected[1]["reward"].value()) != float(counted)


def test_the_first_step_on_policy_is_that_of_grpo(params):
    """Groups of one and a critic that says 0: the advantage of every token is the reward."""
    experience = _experience(group=1)
    shared = {"group": 1, "kl_weight": 0.0, "logit_chunk": 7}
    state = create_ppo_state(params, SGD, 0, SMALL.model_width)
    head = jax.tree.map(jnp.zeros_like, state.critic["value_head"])
    state = state.replace(critic=state.critic | {"value_head": head})
    ppo, metrics = jax.jit(
        lambda state: ppo_update(
            PPOOptions(**shared, whiten=False), DECODER, SGD, state, None, INSTRUCTION, experience
        )
    )(state)
    grpo, grpo_metrics = jax.jit(
        lambda state: update(
            GRPOOptions(**shared, advantage="dr_grpo"),
            DECODER,
            SGD.policy,
            state,
            None,
            INSTRUCTION,
            experience,
        )
    )(create_state(params, SGD.policy, 0))
    moves = [jax.tree.map(jnp.subtract, after.params, params) for after in (ppo, grpo)]
    both = [
        {name: found[name] for name in ("loss", "gradient_norm", "ppo_kl", "reward")}
        for found in (metrics, grpo_metrics)
    ]
    _assert_same((moves[0], both[0]), (moves[1], both[1]), 1e-4)
    assert float(both[0]["gradient_norm"].value()) > 1e-3 and both[0]["ppo_kl"].value() == 0
    assert float(metrics["value"].value()) == 0 and int(ppo.step) == 1
    np.testing.assert_allclose(metrics["return"].value(), metrics["advantage"].value())
    # The head alone can move: behind a head of zeros the decoder has no gradient.
    assert float(jnp.abs(ppo.critic["value_head"]["kernel"]).max()) > 0


def test_batches_that_do_not_divide_are_refused(params, experience):
    with pytest.raises(ValueError, match="4 prompts do not divide into 8"):
        _compiled(mini_batches=2, micro_batches=4).trace(params, None, experience)
    with pytest.raises(ValueError, match="reference policy"):
        _compiled(kl_weight=0.1).trace(params, None, experience)


def test_the_critic_learns_a_fixed_target(params, experience):
    optimizer = create_optimizer(3e-3, weight_decay=0.0)
    mask = response_mask(experience, mask_truncated=False)
    returns = jnp.where(mask, experience.rewards[..., None], 0.0)

    def values(critic, part):
        return response_values(DECODER, critic, (INSTRUCTION, part.prompt, part.response))

    @jax.jit
    def step(critic, opt_state):
        batch = ValueBatch(experience, mask, jnp.zeros_like(returns), returns)
        options = PPOOptions(value_clip=None)
        critic, opt_state, metrics = critic_step(
            options, values, optimizer, critic, opt_state, batch
        )
        return critic, opt_state, metrics["value_loss"].value()

    critic, losses = init_critic(params, jax.random.key(0), SMALL.model_width), []
    opt_state = optimizer.init(critic)
    for _ in range(60):
        critic, opt_state, loss = step(critic, opt_state)
        losses.append(float(loss))
    assert losses[-1] < 0.1 * losses[0], losses


def test_a_trivial_reward_is_learned(params):
    """Rewards one token: from a chance of 1 in 24 to nearly always, one sample a prompt."""
    target = 17
    algorithm = PPOOptions(kl_weight=0.0, epochs=2, mini_batches=2)
    optimizers = Optimizers(*(create_optimizer(rate, weight_decay=0.0) for rate in (1e-2, 1e-2)))
    prompts = 32
    prompt = Block(jnp.tile(jnp.array([[5, 6], [7, 8]]), (prompts // 2, 1)), jnp.full(prompts, 2))

    @jax.jit
    def step(state):
        samples = generate(
            DECODER,
            state.params,
            (INSTRUCTION, prompt),
            jax.random.fold_in(state.key, state.step),
            Sampling.create(),
            group=algorithm.group,
            max_tokens=3,
            stop_tokens=(0,),
        )
        here = (samples.tokens == target) & (jnp.arange(3) < samples.length[..., None])
        experience = Experience(
            prompt=prompt,
            response=samples.block,
            logprobs=samples.logprobs,
            rewards=here.sum(-1) / 3,
            stopped=samples.stopped,
            valid=jnp.ones(prompts, bool),
            shown=jnp.zeros(prompts, jnp.int32),
        )
        return ppo_update(algorithm, DECODER, optimizers, state, None, INSTRUCTION, experience)

    state, rewards = create_ppo_state(params, optimizers, 0, SMALL.model_width), []
    for _ in range(20):
        state, metrics = step(state)
        rewards.append(float(metrics["reward"].value()))
    assert rewards[0] < 0.3 and np.mean(rewards[-5:]) > 0.9, rewards

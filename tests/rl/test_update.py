"""The update: micro-batches, padding, the KL penalty, and that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import CONFIG, random_params

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Sampling, generate
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.update import (
    OPTIMIZERS,
    Experience,
    GRPOOptions,
    create_optimizer,
    create_state,
    response_mask,
    sample_advantages,
    update,
)

SMALL = dataclasses.replace(CONFIG, vocab_size=48)
DECODER = Decoder(SMALL, remat="none")
PROMPTS, GROUP, PROMPT, RESPONSE = 4, 3, 6, 5
KL = {"kl_weight": 0.5, "kl_placement": "loss"}


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_params(SMALL))


@pytest.fixture(scope="module")
def reference(params):
    return jax.tree.map(lambda x: x * 1.1, params)


@pytest.fixture(scope="module")
def experience():
    """Returns random tokens and rewards; lengths vary, one response was cut off."""
    rng = np.random.default_rng(0)

    def tokens(*shape):
        return jnp.array(rng.integers(0, SMALL.vocab_size, shape), jnp.int32)

    rows = (PROMPTS, GROUP)
    return Experience(
        prompt=Block(tokens(PROMPTS, PROMPT), jnp.array([6, 4, 5, 1])),
        response=Block(
            tokens(*rows, RESPONSE), jnp.array(rng.integers(1, RESPONSE + 1, rows), jnp.int32)
        ),
        logprobs=jnp.array(rng.normal(-3, 0.5, (*rows, RESPONSE)), jnp.float32),
        rewards=jnp.array(rng.random(rows), jnp.float32),
        stopped=jnp.ones(rows, bool).at[0, 0].set(False),
        valid=jnp.ones(PROMPTS, bool),
        shown=jnp.zeros(PROMPTS, jnp.int32),
    )


def _compiled(optimizer=None, **options):
    algorithm = GRPOOptions(**{"group": GROUP, "kl_weight": 0.0, "logit_chunk": 7} | options)
    instruction = Block(jnp.array([3, 1, 4]), jnp.int32(3))
    optimizer = optimizer or optax.sgd(1.0)

    @jax.jit
    def step(params, reference, experience):
        state = create_state(params, optimizer, 0)
        after, metrics = update(
            algorithm, DECODER, optimizer, state, reference, instruction, experience
        )
        return after.params, metrics

    return step


@pytest.fixture(scope="module")
def plain():
    return _compiled()


@pytest.fixture(scope="module")
def with_kl():
    return _compiled(**KL, entropy_weight=0.1)


def _moves(before, after):
    return jax.tree.map(lambda old, new: np.asarray(new - old, np.float64), before, after)


def _assert_close(first, second, tolerance):
    for left, right in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        left, right = np.asarray(left), np.asarray(right)
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance * np.abs(left).max())


def _gap(first, second):
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return max(float(np.abs(left - right).max()) for left, right in pairs)


def test_micro_batches_change_nothing(params, reference, experience, with_kl):
    whole, metrics = with_kl(params, reference, experience)
    step = _compiled(**KL, entropy_weight=0.1, micro_batches=2)
    split, split_metrics = step(params, reference, experience)
    # Parameters near 1 hide small moves, so the moves themselves are compared too.
    _assert_close(whole, split, 1e-5)
    _assert_close(_moves(params, whole), _moves(params, split), 1e-4)
    assert metrics.keys() == split_metrics.keys()
    for name in metrics:
        found, expected = split_metrics[name].value(), metrics[name].value()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_batch_without_contrast_leaves_the_weights(params, experience, plain):
    flat = experience.replace(rewards=jnp.broadcast_to(experience.rewards[:, :1], (PROMPTS, GROUP)))
    after, metrics = plain(params, None, flat)
    assert _gap(params, after) == 0
    assert float(metrics["informative_groups"].value()) == 0
    assert float(metrics["gradient_norm"].value()) == 0
    moved, metrics = plain(params, None, experience)
    assert _gap(params, moved) > 1e-3 and float(metrics["informative_groups"].value()) == 1


def test_the_gradient_is_that_of_the_plain_formula(params, experience, plain):
    """Writes out the sum of advantage times log-probability over the tokens' count."""
    rewards = np.asarray(experience.rewards, np.float64)
    centred = rewards - rewards.mean(1, keepdims=True)
    advantages = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
    lengths = np.asarray(experience.response.length)

    chain = [
        [3, 1, 4, *experience.prompt.tokens[b, : experience.prompt.length[b]].tolist()]
        for b in range(PROMPTS)
    ]
    rows = np.zeros((PROMPTS, GROUP, 3 + PROMPT + RESPONSE), np.int32)
    weight = np.zeros(rows.shape)  # of the log-probability of each token but the first
    for b, g in np.ndindex(PROMPTS, GROUP):
        response = experience.response.tokens[b, g, : lengths[b, g]].tolist()
        rows[b, g, : len(chain[b]) + len(response)] = chain[b] + response
        weight[b, g, len(chain[b]) : len(chain[b]) + len(response)] = advantages[b, g]

    @jax.jit
    def objective(params, rows):
        block = Block(rows, jnp.full(rows.shape[:-1], rows.shape[-1]))
        (hidden,) = DECODER.apply({"params": params}, (block,))
        logits = DECODER.apply({"params": params}, hidden[..., :-1, :], method=Decoder.logits)
        logprobs = jnp.take_along_axis(jax.nn.log_softmax(logits), rows[..., 1:, None], axis=-1)
        return jnp.sum(logprobs[..., 0] * weight[..., 1:]) / lengths.sum()

    gradient = jax.grad(objective)(params, jnp.array(rows))
    after, _ = plain(params, None, experience)
    _assert_close(gradient, _moves(params, after), 2e-3)


def test_without_a_penalty_there_is_no_reference_pass(
    params, reference, experience, plain, with_kl
):
    with pytest.raises(ValueError, match="reference policy"):
        with_kl(params, None, experience)
    flops = {}
    for name, step in (("plain", plain), ("kl", with_kl)):
        analysis = step.lower(params, reference, experience).compile().cost_analysis()
        flops[name] = analysis["flops"]
    # A forward pass is about a quarter of forward, backward and reference together.
    assert flops["plain"] < 0.9 * flops["kl"]
    assert _gap(plain(params, reference, experience)[0], plain(params, None, experience)[0]) == 0


def test_the_penalty_acts_in_the_loss_and_in_the_reward(params, reference, experience, plain):
    free, _ = plain(params, None, experience)
    in_loss, metrics = _compiled(**KL)(params, reference, experience)
    assert _gap(free, in_loss) > 1e-4 and float(metrics["kl"].value()) > 0
    in_reward, metrics = _compiled(kl_weight=0.5, kl_placement="reward")(
        params, reference, experience
    )
    assert _gap(free, in_reward) > 1e-4 and _gap(in_loss, in_reward) > 1e-4
    assert np.isfinite(float(metrics["kl"].value()))


def test_padding_rows_do_not_count(params, reference, experience, with_kl):
    kept = 2
    padded = experience.replace(valid=jnp.arange(PROMPTS) < kept)
    rng = np.random.default_rng(7)

    def spoil(x):
        noise = jnp.array(rng.integers(0, 5, x.shape)).astype(x.dtype)
        return x.at[kept:].set(noise[kept:])

    spoiled = jax.tree.map(spoil, padded).replace(valid=padded.valid)
    alone = jax.tree.map(lambda x: x[:kept], experience)
    results = [with_kl(params, reference, each) for each in (padded, spoiled, alone)]
    for after, metrics in results[1:]:
        _assert_close(_moves(params, results[0][0]), _moves(params, after), 1e-4)
        for name, mean in metrics.items():
            expected = results[0][1][name].value()
            np.testing.assert_allclose(mean.value(), expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_masks_end_with_the_response(experience):
    mask = np.asarray(response_mask(experience, mask_truncated=False))
    np.testing.assert_array_equal(mask.sum(-1), experience.response.length)
    masked = np.asarray(response_mask(experience, mask_truncated=True))
    assert masked[0, 0].sum() == 0 and (masked[1:] == mask[1:]).all()


def test_a_truncated_response_counts_in_its_group(experience):
    """Leaves it out of the loss, but what it earned and cost is not forgotten."""
    options = GRPOOptions(group=GROUP, kl_weight=0.1, kl_placement="reward", advantage="dr_grpo")
    old = experience.logprobs
    reference = old - 0.5
    found, metrics = sample_advantages(
        dataclasses.replace(options, mask_truncated=True), experience, old, reference
    )
    earned = np.asarray(experience.rewards) - 0.05 * np.asarray(experience.response.length)
    np.testing.assert_allclose(found, earned - earned.mean(1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(metrics["kl"].weight, experience.response.length.sum())


def test_parts_that_do_not_divide_are_refused(params, experience):
    with pytest.raises(ValueError, match="4 prompts do not divide into 3"):
        _compiled(micro_batches=3)(params, None, experience)


def test_the_rate_climbs_from_the_first_step():
    optimizer = create_optimizer(1e-2, warmup_steps=3, weight_decay=0.0, clip=1.0)
    weights = {"w": jnp.ones(2)}
    state, sizes = optimizer.init(weights), []
    for _ in range(5):
        moves, state = optimizer.update({"w": jnp.ones(2)}, state, weights)
        sizes.append(float(-moves["w"][0]))
    np.testing.assert_allclose(sizes, [0.0025, 0.005, 0.0075, 0.01, 0.01], rtol=1e-4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_first_step_of_an_optimiser_is_signed_and_decays(name):
    """Steps by the sign of the first gradient in both: rate (sign g + decay w)."""
    optimizer = create_optimizer(1e-2, name=name, weight_decay=0.5)
    weights, gradient = {"w": jnp.array([2.0, -4.0])}, {"w": jnp.array([0.3, -0.1])}
    moves, _ = optimizer.update(gradient, optimizer.init(weights), weights)
    np.testing.assert_allclose(moves["w"], [-0.02, 0.03], rtol=1e-4)


def test_a_trivial_reward_is_learned(params):
    """Rewards one token: from a chance of 1 in 48 to nearly always."""
    target, optimizer = 17, create_optimizer(1e-2, weight_decay=0.0)
    algorithm = GRPOOptions(group=16, kl_weight=0.0)
    instruction = Block(jnp.array([3, 1, 4]), jnp.int32(3))
    prompt = Block(jnp.array([[5, 6], [7, 8]]), jnp.array([2, 2]))

    @jax.jit
    def step(state):
        samples = generate(
            DECODER,
            state.params,
            (instruction, prompt),
            jax.random.fold_in(state.key, state.step),
            Sampling.create(),
            group=algorithm.group,
            max_tokens=4,
            stop_tokens=(0,),
        )
        here = (samples.tokens == target) & (jnp.arange(4) < samples.length[..., None])
        experience = Experience(
            prompt=prompt,
            response=samples.block,
            logprobs=samples.logprobs,
            rewards=here.sum(-1) / 4,
            stopped=samples.stopped,
            valid=jnp.ones(2, bool),
            shown=jnp.zeros(2, jnp.int32),
        )
        return update(algorithm, DECODER, optimizer, state, None, instruction, experience)

    state, rewards = create_state(params, optimizer, 0), []
    for _ in range(60):
        state, metrics = step(state)
        rewards.append(float(metrics["reward"].value()))
    assert rewards[0] < 0.2 and np.mean(rewards[-5:]) > 0.9, rewards


@pytest.mark.slow
def test_demonstrations_pull_as_hard_as_their_weight_says(params, experience):
    """Checks that, with nothing rewarded, an update is imitation at that share of the rate."""
    first = jax.tree.map(lambda x: x[:, :1], (experience.response, experience.stopped))
    shown = experience.replace(
        prompt=experience.prompt,
        response=first[0],
        stopped=first[1],
        logprobs=experience.logprobs[:, :1],
        rewards=experience.rewards[:, :1],
    )
    flat = experience.replace(rewards=jnp.zeros_like(experience.rewards))
    options = {"group": GROUP, "kl_weight": 0.0, "temperature": 0.7, "demonstration_weight": 0.25}
    instruction = Block(jnp.array([3, 1, 4]), jnp.int32(3))

    def moved(update, algorithm, rate, given, **more):
        optimizer = optax.sgd(rate)
        state = create_state(params, optimizer, 0)
        step = jax.jit(
            lambda: update(algorithm, DECODER, optimizer, state, None, instruction, given, **more)
        )
        state, metrics = step()
        return state.params, metrics

    for changes in ({}, {"micro_batches": 2}):
        algorithm = GRPOOptions(**options, **changes)
        after, metrics = moved(update, algorithm, 1.0, flat, demonstrations=shown)
        wanted, imitated = moved(imitation_update, ImitationOptions(), 0.25, shown)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), after, wanted)
        found = metrics["demonstration_nll"].value()
        np.testing.assert_allclose(found, imitated["nll"].value(), rtol=1e-5)

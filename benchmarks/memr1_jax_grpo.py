"""Runs GRPO steps of memr1_jax on the shared shape: rollout and update are one program."""

import functools

import grpo_step
import jax
import jax.numpy as jnp

import memr1_jax
from memr1_jax.models.decoder import Block, Decoder, init_params
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.sampler import Sampling, generate, rollout_weights
from memr1_jax.rl.update import Experience, GRPOOptions, create_optimizer, create_state, update


def full(tokens: jax.Array) -> Block:
    """Makes a block without padding."""
    return Block(tokens, jnp.full(tokens.shape[:-1], tokens.shape[-1], jnp.int32))


def main() -> None:
    """Runs the steps that the flags ask for."""
    options = grpo_step.arguments(__doc__, remat="dots")
    shape = grpo_step.SHAPES[options.model]
    config = DecoderConfig(
        vocab_size=shape["vocabulary"],
        num_layers=shape["layers"],
        model_width=shape["width"],
        num_heads=shape["heads"],
        num_kv_heads=shape["key_heads"],
        head_size=grpo_step.HEAD_SIZE,
        mlp_width=shape["mlp_width"],
        rope_theta=grpo_step.ROPE_THETA,
        rms_epsilon=grpo_step.NORM_EPSILON,
    )
    decoder = Decoder(config, jnp.float32, options.remat)
    algorithm = GRPOOptions(
        group=options.group,
        kl_weight=grpo_step.KL_WEIGHT,
        kl_kind="k3",
        kl_placement="loss",
        clip_low=grpo_step.CLIP,
        clip_high=grpo_step.CLIP,
        micro_batches=options.prompts // (options.micro or options.prompts),
    )
    optimizer = create_optimizer(grpo_step.LEARNING_RATE, weight_decay=0.0)
    instruction = full(jnp.zeros(0, jnp.int32))

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(state, reference, tokens, key):
        samples = generate(
            decoder,
            rollout_weights(state.params, decoder.dtype),
            (instruction, full(tokens)),
            key,
            Sampling.create(1.0),
            group=options.group,
            max_tokens=options.response_length,
            stop_tokens=(),
        )
        rewards = (samples.tokens < config.vocab_size // 2).mean(-1).astype(jnp.float32)
        experience = Experience(
            prompt=full(tokens),
            response=samples.block,
            logprobs=samples.logprobs,
            rewards=rewards,
            stopped=jnp.ones_like(samples.stopped),
            valid=jnp.ones(len(tokens), bool),
            shown=jnp.zeros(len(tokens), jnp.int32),
        )
        return update(algorithm, decoder, optimizer, state, reference, instruction, experience)

    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    reference = jax.tree.map(jnp.copy, params)
    state = create_state(params, optimizer, 0)
    clock = grpo_step.Clock("memr1_jax", memr1_jax.__version__, options)
    batches = grpo_step.prompts(options)
    for index in range(options.steps):
        clock.begin()
        state, metrics = train_step(state, reference, next(batches), jax.random.key(index))
        jax.block_until_ready(state.params)
        clock.end(reward=float(metrics["reward"].value()))
    clock.summary()


if __name__ == "__main__":
    main()

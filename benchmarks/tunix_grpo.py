"""Runs GRPO steps of tunix's own learner on the shared shape.

Its tokenizer here reads numbers, so that prompts have exactly the shared tokens, and no response
ends early. tunix starts its feed-forward kernels at zero: they get random weights, as the others'.
"""

import functools

import grpo_step
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tunix
from flax import nnx
from tunix.models.llama3 import model as llama
from tunix.rl import rl_cluster
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rollout import base_rollout


class Numbers:
    """A tokenizer whose texts are token ids, separated by spaces."""

    def encode(self, text, **_):
        """Returns the ids that a text spells."""
        return [int(number) for number in text.split()]

    def decode(self, ids, **_):
        """Spells ids."""
        return " ".join(str(int(number)) for number in ids)

    def bos_id(self):
        """Returns the token of a beginning, which these texts do not have."""
        return 0

    def eos_id(self):
        """Returns the token of an end, which these texts do not have."""
        return 1

    def pad_id(self):
        """Returns the padding token."""
        return 0


def make_model(config: llama.ModelConfig, mesh: jax.sharding.Mesh) -> llama.Llama3:
    """Makes a model of random weights."""
    with mesh:
        model = llama.Llama3(config, rngs=nnx.Rngs(0))
    weights = nnx.to_flat_state(nnx.state(model, nnx.Param))
    for index, (_, leaf) in enumerate(weights):
        if not bool(jnp.any(leaf[...])):
            key = jax.random.fold_in(jax.random.key(1), index)
            leaf[...] = 0.02 * jax.random.normal(key, leaf.shape, leaf.dtype)
    return model


def main() -> None:
    """Runs the steps that the flags ask for."""
    options = grpo_step.arguments(__doc__, remat="NONE")
    shape = grpo_step.SHAPES[options.model]
    config = llama.ModelConfig(
        num_layers=shape["layers"],
        vocab_size=shape["vocabulary"],
        embed_dim=shape["width"],
        hidden_dim=shape["mlp_width"],
        num_heads=shape["heads"],
        head_dim=grpo_step.HEAD_SIZE,
        num_kv_heads=shape["key_heads"],
        rope_theta=grpo_step.ROPE_THETA,
        norm_eps=grpo_step.NORM_EPSILON,
        remat_config=llama.RematConfig[options.remat],
        weight_tying=True,
    )
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), axis_types=axes)
    roles = rl_cluster.Role
    cluster = rl_cluster.RLCluster(
        actor=make_model(config, mesh),
        reference=make_model(config, mesh),
        tokenizer=Numbers(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys((roles.ACTOR, roles.REFERENCE, roles.ROLLOUT), mesh),
            rollout_engine="vanilla",
            offload_to_cpu=False,
            training_config=rl_cluster.RLTrainingConfig(
                actor_optimizer=optax.adamw(grpo_step.LEARNING_RATE, weight_decay=0.0),
                eval_every_n_steps=10**6,
                max_steps=options.steps,
                mini_batch_size=options.prompts,
                train_micro_batch_size=options.micro or options.prompts,
            ),
            rollout_config=base_rollout.RolloutConfig(
                max_tokens_to_generate=options.response_length,
                max_prompt_length=options.prompt_length,
                kv_cache_size=options.prompt_length + options.response_length,
                temperature=1.0,
                top_p=1.0,
                eos_tokens=[10**8],  # beyond the vocabulary
            ),
        ),
    )
    rewards = []

    def score(prompts, completions, **_):
        rewards[:] = [
            grpo_step.reward(Numbers().encode(text), shape["vocabulary"]) for text in completions
        ]
        return rewards

    learner = GRPOLearner(
        rl_cluster=cluster,
        algo_config=GRPOConfig(
            num_generations=options.group,
            num_iterations=1,
            beta=grpo_step.KL_WEIGHT,
            epsilon=grpo_step.CLIP,
        ),
        reward_fns=score,
    )
    clock = grpo_step.Clock("tunix", tunix.__version__, options)
    whole_step = learner._run_global_step  # the one place that begins and ends with a step

    @functools.wraps(whole_step)
    def timed(*arguments, **named):
        clock.begin()
        result = whole_step(*arguments, **named)
        jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
        clock.end(reward=float(np.mean(rewards)))
        return result

    learner._run_global_step = timed
    spelled = (
        {"prompts": np.array([Numbers().decode(row) for row in batch])}
        for batch in grpo_step.prompts(options)
    )
    with mesh:
        learner.train(spelled)
    clock.summary()


if __name__ == "__main__":
    main()

"""Train with a reward of your own: right answers, and the fewer words the better.

    python examples/own_reward.py

The function is traced into the compiled step, so it is pure and uses jax.numpy. From the command
line the same is `--reward=own_reward:brief`, in the folder of this file.
"""

import argparse

import jax
import jax.numpy as jnp

import memr1_jax as m1
from memr1_jax.text.match import contains


def brief(answer, gold, report) -> jax.Array:
    """Pays for an answer that holds the gold words, less a little for every further word.

    Args:
      answer: words of the answer: `hash` [A, 2], `count`, `overflow`; see `text/normalize.py`.
      gold: words of the right answer.
      report: counts of what the manager wrote; `agents/manager.py`. All are 0 where the Answer
        Agent learns.
    """
    spare = jnp.maximum(answer.count - gold.count, 0)
    return contains(answer, gold) - 0.05 * spare - 0.2 * report.invalid


def main(arguments: list[str] | None = None) -> m1.Run:
    """Trains the nano model with it, and prints what changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", default="runs/own_reward")
    parser.add_argument("--answer_steps", type=int, default=40)
    parser.add_argument("--manager_steps", type=int, default=24)
    parser.add_argument("--dialogues", type=int, default=100)
    options = parser.parse_args(arguments)
    config = m1.Config.quickstart().replace(
        answer_steps=options.answer_steps,
        manager_steps=options.manager_steps,
        synthetic_train=options.dialogues,
    )
    run = m1.train(config, output=options.output, reward=brief)
    print(run.table())
    return run


if __name__ == "__main__":
    main()

r"""Prints how varied the wording of dialogues is, by data set.

    python -m experiments.wording_variety --data=locomo,synthetic --data_path=locomo10.json \
        --synthetic_wordings=0.7 --synthetic_trivia=0.15

A row is the mean share of distinct n-grams in stretches of --words words.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from experiments.command_line import run
from memr1_jax.data.dialogues import DataConfig, data_sources, load_dialogues
from memr1_jax.data.variety import ORDERS, distinct_ngrams, fact_texts, turn_texts
from memr1_jax.options import SEEDS, at_least, option, with_default
from memr1_jax.run.progress import table


@dataclasses.dataclass(frozen=True)
class VarietyConfig(DataConfig):
    """Choose the dialogues whose wording is measured."""

    data: str = with_default(DataConfig, "data", "locomo,synthetic")
    synthetic_train: int = with_default(DataConfig, "synthetic_train", 40)
    synthetic_sessions: int = with_default(DataConfig, "synthetic_sessions", 12)
    words: int = option(5000, "Words in which distinct n-grams are counted.", within=at_least(10))
    seed: int = option(0, "Seed of generated dialogues.", within=SEEDS)


def measured(options: VarietyConfig) -> list[tuple]:
    """Returns a row for the turns and one for the facts of each data set."""
    rows = []
    for name, only in data_sources(options).items():
        with tempfile.TemporaryDirectory() as folder:
            train, evaluation = load_dialogues(only, options.seed, Path(folder), learn=False)
        dialogues = list({dialogue.id: dialogue for dialogue in (*train, *evaluation)}.values())
        for what, texts in (("turns", turn_texts), ("facts", fact_texts)):
            found = distinct_ngrams(texts(dialogues), options.words)
            rows.append((name, what, *(f"{found[order]:.3f}" for order in ORDERS)))
    return rows


def main(options: VarietyConfig) -> None:
    """Prints the table."""
    names = [f"distinct {order}-grams" for order in ORDERS]
    table(f"Wording in {options.words} words", ("data", "of", *names), measured(options))


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(VarietyConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()

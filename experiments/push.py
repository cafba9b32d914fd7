"""Publishes both agents of a run on the Hugging Face hub: `memr1 push RUN OWNER/NAME`.

Makes the model repositories OWNER/NAME-manager and OWNER/NAME-answer with generated cards;
`m1.load("OWNER/NAME")` reads them back. Log in first: `hf auth login`, or HF_TOKEN.
"""

import dataclasses
import sys
from collections.abc import Sequence

from experiments.command_line import run
from memr1_jax.errors import UserError
from memr1_jax.options import option, user_path


@dataclasses.dataclass(frozen=True)
class PushConfig:
    """Choose the run, and what of it is published where."""

    run: str = option("", "The run folder; also as the first argument.")
    name: str = option("", "OWNER/NAME on the hub; also as the second argument.")
    adapters: bool = option(False, "Publish LoRA adapters in place of merged models.")
    private: bool = option(True, "Make new repositories private.")
    license: str = option("", "The licence's identifier on the hub; empty: see the base model.")


def main(options: PushConfig) -> None:
    """Uploads and says where the agents are."""
    from memr1_jax.inference.model_card import load_call
    from memr1_jax.inference.push import push

    if not (options.run and options.name):
        raise UserError("Give a run folder and a name: memr1 push RUN OWNER/NAME.")
    pushed = push(
        options.run,
        options.name,
        adapters=options.adapters,
        private=options.private,
        license=options.license,
    )
    agents = [name.rsplit("-", 1)[1] for name in pushed]
    call = load_call(user_path(options.run), options.name, agents)
    print(f"On the hub: {', '.join(pushed)}. Load with {call}.")


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; the first two arguments may stand without their flags."""
    name, *rest = sys.argv if argv is None else argv
    for index, flag in enumerate(("run", "name")):
        if index < len(rest) and not rest[index].startswith("-"):
            rest[index] = f"--{flag}={rest[index]}"
    run(PushConfig, main, __doc__, [name, *rest])


if __name__ == "__main__":
    command()

"""The command `memr1`: one word for each job, with the flags of the module that does it."""

import importlib
import sys
from collections.abc import Sequence

from memr1_jax.errors import UserError

COMMANDS = {
    "train": ("experiments.locomo_grpo", "Trains both agents with GRPO, or with --algorithm."),
    "ppo": ("experiments.locomo_ppo", "Trains them with PPO and a critic."),
    "sft": ("experiments.locomo_sft", "Trains them on demonstrations."),
    "eval": ("experiments.locomo_eval", "Evaluates a pair of models on whole dialogues."),
    "table": ("experiments.evaluate", "Compares memory systems on one backbone."),
    "report": ("experiments.report", "Writes the page of a run again."),
    "push": ("experiments.push", "Publishes both agents of a run on the Hugging Face hub."),
    "memory": ("memr1_jax.service.cli", "Remembers, finds and answers; edits and undoes."),
    "chat": ("memr1_jax.service.chat", "Talks with a memory in the terminal."),
    "serve": ("memr1_jax.service.serve", "Serves a memory over HTTP, to mem0's clients too."),
    "mcp": ("memr1_jax.service.mcp_server", "Serves a memory to assistants over MCP."),
    "plan": ("tpu_scripts.aot_compile", "Compiles an experiment's step for TPUs; none is needed."),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that the first argument names."""
    name, *rest = list(sys.argv if argv is None else argv)[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(usage())
    elif name in COMMANDS:
        try:
            module = importlib.import_module(COMMANDS[name][0])
        except UserError as error:  # an extra is not installed
            sys.exit(_refused(error))
        module.command([f"memr1 {name}", *rest])
    else:
        sys.exit(_refused(f"memr1 has no command {name!r}.\n{usage()}"))


def _refused(why: object) -> int:
    print(f"Error: {why}", file=sys.stderr)
    return 2


def usage() -> str:
    """Lists the commands with a sentence for each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        ["Usage: memr1 COMMAND --flag=value ...", "", *lines, ""]
        + ["`memr1 COMMAND --help` lists the flags; `--flagfile=quickstart.flags` reads a set."]
    )


if __name__ == "__main__":
    main()

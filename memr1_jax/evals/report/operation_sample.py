"""Prints a random sample of what a manager did, in full, so that a person can judge it by hand."""

import collections
import dataclasses
import random
from collections.abc import Iterable, Sequence

from memr1_jax.errors import UserError
from memr1_jax.evals.report.replay import read_replay
from memr1_jax.evals.report.report_page import evaluations_in
from memr1_jax.options import at_least, option, user_path
from memr1_jax.text.events import REPORTED, Event
from memr1_jax.text.plain import one_line

_NOTHING = "unreadable"  # what a response is that holds no operation, and no NONE either


@dataclasses.dataclass(frozen=True)
class OperationSampleConfig:
    """Choose the run and the turns that are printed."""

    output: str = option("runs/locomo_grpo", "Folder of a run or an evaluation.")
    evaluation: str = option(
        "", "Evaluation of the run, such as before, after or test; empty: the last one."
    )
    count: int = option(50, "Turns that are printed.", within=at_least(1))
    only: str = option(
        "", "Operations among which turns are drawn, such as UPDATE,DELETE; empty: all turns."
    )
    seed: int = option(0, "Seed of the draw.", within=at_least(0))


def operation_sample(options: OperationSampleConfig) -> str:
    """Counts the operations of an evaluation and shows some of its turns, as Markdown.

    The turns are those of `--replay_dialogues` dialogues in which a manager was asked.

    Raises:
      UserError: the folder holds no such turns, or an operation is unknown.
    """
    folder = user_path(options.output).absolute()
    names = evaluations_in(folder)
    name = options.evaluation or (names[-1] if names else "")
    turns = [
        (dialogue["id"], turn)
        for dialogue in read_replay(folder, name)
        for turn in dialogue["turns"]
        if turn["output"] is not None
    ]
    if not turns:
        raise UserError(
            f"{folder} holds no turns of a manager"
            + (f" in replay_{name}.json" if name else "")
            + f". Its evaluations are {', '.join(names) or 'none'}; --replay_dialogues in"
            " training or evaluation says of how many dialogues turns are kept."
        )
    chosen = _chosen(turns, options)
    counts = collections.Counter(kind for _, turn in turns for kind in _kinds(turn))
    shares = ", ".join(f"{kind} {number}" for kind, number in _ordered(counts))
    lines = [
        f"# {len(chosen)} of {len(turns)} turns, evaluation {name!r}, seed {options.seed}",
        "",
        f"All {len(turns)} turns: {shares}.",
    ]
    for number, (identity, turn) in enumerate(chosen, 1):
        lines += ["", *_block(number, identity, turn)]
    return "\n".join(lines)


def _chosen(turns: Sequence[tuple[str, dict]], options: OperationSampleConfig) -> list:
    """Draws turns by the seed; they keep their order."""
    only = {word.strip().upper() for word in options.only.split(",") if word.strip()}
    if strange := sorted(only - {event.name for event in Event}):
        raise UserError(
            f"--only={options.only}: {', '.join(strange)} is none of"
            f" {', '.join(event.name for event in REPORTED)}."
        )
    found = [place for place, (_, turn) in enumerate(turns) if not only or only & {*_kinds(turn)}]
    drawn = random.Random(options.seed).sample(found, min(options.count, len(found)))
    return [turns[place] for place in sorted(drawn)]


def _kinds(turn: dict) -> list[str]:
    """Lists the operations of a turn: those applied or not, each NONE, or that it has none."""
    found = [operation["event"] for operation in turn["operations"]]
    return found + [Event.NONE.name] * turn["none"] or [_NOTHING]


def _ordered(counts: collections.Counter) -> Iterable[tuple[str, int]]:
    names = (*(event.name for event in REPORTED), _NOTHING)
    return [(name, counts[name]) for name in names if counts[name] or name != _NOTHING]


def _block(number: int, identity: str, turn: dict) -> list[str]:
    """Shows one turn: what was said, noted and shown, and what the manager made of it."""
    bank = f"bank of {turn['speaker']}, memories afterwards: {turn['size']}"
    lines = [f"## {number}. {identity} {turn['turn']}, {turn['time']}; {bank}", ""]
    lines.append(f"- {turn['said_by']} said: {_plain(turn['text'])}")
    lines += [f"- told: {_plain(fact)}" for fact in turn["facts"]]
    lines += [f"- shown {memory['id']}: {_plain(memory['text'])}" for memory in turn["shown"]]
    lines.append(f"- wrote: `{_plain(turn['output'])}`")
    changes = []
    for change in turn["changes"]:
        before, after = (change[side] and _plain(change[side]) for side in ("before", "after"))
        changes.append(f"{change['kind']}: {' -> '.join(filter(None, (before, after)))}")
    failed = [o for o in turn["operations"] if o["outcome"] != "applied"]
    changes += [f"{o['event']} of {o['id']} not applied: {o['outcome']}" for o in failed]
    return lines + [f"- {text}" for text in changes or ["nothing changed"]]


def _plain(text: str) -> str:
    """Keeps a text on one line, without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "\ufffd" for c in one_line(text))

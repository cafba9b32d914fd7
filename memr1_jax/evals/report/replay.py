"""The record of what the manager did to the banks of whole dialogues, turn by turn."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.run.files import write_json_atomic
from memr1_jax.run.json_files import read_json
from memr1_jax.run.typed_records import typed
from memr1_jax.text.events import Event

Memories = dict[int, str]  # the live memories of a bank by slot


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation as read from a response, and what became of it.

    `outcome` is "applied", "unknown" (its id was not shown), "gone" (the same response deleted that
    memory before) or "refused" (the bank was full). `slot` is where it was applied.
    """

    event: str
    id: int | None
    text: str
    outcome: str
    slot: int | None


@dataclasses.dataclass(frozen=True)
class Change:
    """Says how a slot differs after a turn: "added", "changed" or "removed"."""

    kind: str
    slot: int
    before: str | None
    after: str | None


@dataclasses.dataclass(frozen=True)
class Memory:
    """A memory as the prompt shows it, by its number there."""

    id: int
    slot: int
    text: str


@dataclasses.dataclass(frozen=True)
class TurnRecord:
    """One turn of one speaker's stream.

    `speaker` is whose bank it is, `said_by` who spoke; `size` counts the memories after the turn.
    `output` and all that follows from it keep their defaults where no manager was asked. `salvaged`
    says that entries were kept though others were broken, `skipped` counts entries without a usable
    event, id or text, `dropped` operations beyond those that are read. `questions` are the indices
    of those with this turn as their last evidence.
    """

    speaker: str
    turn: str
    said_by: str
    time: str
    text: str
    facts: tuple[str, ...]
    changes: tuple[Change, ...]
    size: int
    shown: tuple[Memory, ...] = ()
    output: str | None = None
    stopped: bool = True
    valid: bool = True
    salvaged: bool = False
    operations: tuple[Operation, ...] = ()
    none: int = 0
    skipped: int = 0
    dropped: int = 0
    questions: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class QuestionRecord:
    """A question and the answer given at the end; None where it was not asked."""

    index: int
    question: str
    gold: str
    category: int
    evidence: tuple[str, ...]
    answer: str | None
    response: str | None
    right: bool | None


@dataclasses.dataclass(frozen=True)
class DialogueRecord:
    """A dialogue's turns in its order, its questions, and how many memories a bank may hold."""

    id: str
    speakers: tuple[str, str]
    capacity: int
    turns: tuple[TurnRecord, ...]
    questions: tuple[QuestionRecord, ...]


def outcomes(
    operations: Sequence[tuple[Event, int, str]],
    slots: Sequence[int],
    alive: set[int],
    capacity: int,
) -> tuple[Operation, ...]:
    """Returns what becomes of operations `(event, id, text)` by the rules of `memory.bank`.

    Args:
      operations: in order, as `scan_operations_reference` reads them.
      slots: those of the shown memories, by id.
      alive: the slots in use before. An id names the memory that its slot held then; once that is
        deleted it names nothing, even where an ADD has filled the slot again.
      capacity: slots of the bank.
    """
    alive, named, found = set(alive), set(alive), []
    for event, place, text in operations:
        outcome, slot = "applied", None
        if event == Event.ADD:
            free = [slot for slot in range(capacity) if slot not in alive]
            slot, outcome = (free[0], "applied") if free else (None, "refused")
        elif not 0 <= place < len(slots):
            outcome = "unknown"
        elif slots[place] not in named:
            outcome = "gone"
        else:
            slot = slots[place]
        if slot is not None:
            (alive.discard if event == Event.DELETE else alive.add)(slot)
        if event == Event.DELETE:
            named.discard(slot)
        number = place if place >= 0 else None
        found.append(Operation(event.name, number, text, outcome, slot))
    return tuple(found)


def differences(
    before: Memories, after: Memories, operations: Sequence[Operation] = ()
) -> tuple[Change, ...]:
    """Lists how the bank differs by slot; a slot freed and filled again counts as both."""
    freed = {operation.slot for operation in operations if operation.event == Event.DELETE.name}
    changes = []
    for slot in sorted(before | after):
        old, new = before.get(slot), after.get(slot)
        if old == new:
            continue
        if old is not None and new is not None and slot not in freed:
            changes.append(Change("changed", slot, old, new))
            continue
        if old is not None:
            changes.append(Change("removed", slot, old, None))
        if new is not None:
            changes.append(Change("added", slot, None, new))
    return tuple(changes)


def write_replay(folder: str | os.PathLike, name: str, dialogues: Sequence[DialogueRecord]) -> None:
    """Writes `replay_<name>.json`, a list of dialogues; nothing where there are none."""
    if dialogues:
        path = Path(folder) / f"replay_{name}.json"
        write_json_atomic(path, [dataclasses.asdict(dialogue) for dialogue in dialogues])


def read_replay(folder: str | os.PathLike, name: str) -> list[dict]:
    """Reads what `write_replay` wrote, as plain dictionaries; empty without such a file.

    Raises:
      UserError: the file is damaged.
    """
    path = Path(folder) / f"replay_{name}.json"
    if not path.is_file():
        return []
    advice = "The file was damaged: remove it, and the page is made without it."
    try:
        found = typed(list[DialogueRecord], read_json(path, advice))
        for dialogue in found:
            _check(dialogue)
    except ValueError as error:
        raise UserError(f"{path}: this is no list of dialogues ({error}). {advice}") from error
    return [dataclasses.asdict(dialogue) for dialogue in found]


def _check(dialogue: DialogueRecord) -> None:
    """Raises ValueError where a turn names a missing speaker or question."""
    questions = {question.index for question in dialogue.questions}
    for turn in dialogue.turns:
        if turn.speaker not in dialogue.speakers or not questions.issuperset(turn.questions):
            raise ValueError(f"the turn {turn.turn} is of another dialogue")

"""Altered copies of training dialogues: other names, other dates, fewer and shuffled memories.

A copy asks the same of a policy with other details, so that less of a few dialogues is memorised.
Every choice is a function of the seed, the conversation and the number of the copy.
"""

import dataclasses
import datetime
import random
import re
from collections.abc import Callable, Iterable

from memr1_jax.data import open_phrases, phrases
from memr1_jax.data.times import read_times, session_time
from memr1_jax.data.tuples import ManagerTuple
from memr1_jax.data.types import Conversation, Question
from memr1_jax.options import between, option
from memr1_jax.text.events import Event

_ROLES = {"user", "assistant", "system"}
_MONTHS = tuple(f"{datetime.date(2000, month, 1):%B}" for month in range(1, 13))
_NAMES_OF_MONTHS = "|".join(name for month in _MONTHS for name in (month, month[:3]))
# A day with its month, in either order, with or without a year.
_DAY = re.compile(
    rf"\b(?:(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? (?P<month>{_NAMES_OF_MONTHS})"
    rf"|(?P<month2>{_NAMES_OF_MONTHS}) (?P<day2>\d{{1,2}})(?:st|nd|rd|th)?)\b"
    r"(?P<comma>,?)(?P<year> \d{4}\b)?"
)
_VAGUE = re.compile(rf"\b(?:{_NAMES_OF_MONTHS}|(?:19|20)\d\d)\b")  # a month or a year alone


@dataclasses.dataclass(frozen=True)
class AugmentOptions:
    """Learn from altered copies of the training conversations too."""

    copies: int = option(
        0,
        "Altered copies of each training conversation, besides the conversation itself.",
        within=between(0, 1000),
        flag="augment",
    )
    names: bool = option(True, "Give the speakers of a copy other names.", flag="augment_names")
    weeks: int = option(
        26,
        "Most whole weeks by which the dates of a copy are shifted, back or forth.",
        within=between(0, 5000),
        flag="augment_weeks",
    )
    drop: float = option(
        0.25,
        "Share of the memories that a copy's banks lack before a turn, but never evidence of the"
        " turn's questions.",
        within=between(0, 1),
        flag="augment_drop",
    )
    shuffle: bool = option(
        True, "Shuffle the memories of a copy's banks before a turn.", flag="augment_shuffle"
    )


NO_COPIES = AugmentOptions()


def with_copies(
    conversations: Iterable[Conversation], options: AugmentOptions, seed: int
) -> list[Conversation]:
    """Returns every conversation, followed by its altered copies."""
    return [
        altered(conversation, options, seed, copy) if copy else conversation
        for conversation in conversations
        for copy in range(options.copies + 1)
    ]


def altered(
    conversation: Conversation, options: AugmentOptions, seed: int, copy: int
) -> Conversation:
    """Makes copy number `copy` of a conversation, with other names and dates.

    Weekdays stay true, as dates move by whole weeks. A month or a year without a day cannot move
    with them: it stays in what is said, and questions that name one are left out of a copy whose
    dates have moved.
    """
    rng = random.Random(f"{seed}/augment/{conversation.id}/{copy}")
    made = dataclasses.replace(conversation, id=f"{conversation.id}~{copy}", copy=copy)
    if options.names and not set(conversation.speakers) & _ROLES:
        made = _renamed(made, rng)
    weeks = rng.randint(-options.weeks, options.weeks)
    return _moved(made, datetime.timedelta(weeks=weeks)) if weeks else made


def alter_banks(
    turn: ManagerTuple,
    conversation: Conversation,
    options: AugmentOptions,
    seed: int,
    repeats: bool = False,
) -> ManagerTuple:
    """Drops and shuffles memories in the banks before a turn, if its conversation is a copy.

    Evidence of the turn's questions is kept, and with `repeats` every memory is: a fact that
    repeats a dropped one would be new.
    """
    if not conversation.copy:
        return turn
    needed = {identity for question in turn.questions for identity in question.evidence}
    rng = random.Random(f"{seed}/banks/{conversation.id}/{turn.turn}")
    banks = []
    for bank in turn.banks:
        kept = [
            fact
            for fact in bank
            if rng.random() >= options.drop or repeats or needed & {*fact.sources}
        ]
        if options.shuffle:
            rng.shuffle(kept)
        banks.append(tuple(kept))
    return dataclasses.replace(turn, banks=tuple(banks))


def repeats_any(operations: Iterable) -> bool:
    """Tells whether gold operations hold a NONE, which may repeat a fact of the bank."""
    return any(operation.event == Event.NONE for operation in operations)


def _renamed(conversation: Conversation, rng: random.Random) -> Conversation:
    text = " ".join(turn.text for turn in conversation.turns)
    pool = sorted({*phrases.NAMES, *open_phrases.NAMES} - set(re.findall(r"\w+", text)))
    given = dict(zip(conversation.speakers, rng.sample(pool, 2), strict=True))
    found = re.compile(rf"\b(?:{'|'.join(map(re.escape, given))})\b")

    def rename(text: str) -> str:
        return found.sub(lambda name: given[name[0]], text)

    return _rewritten(conversation, lambda text, _: rename(text))


def _moved(conversation: Conversation, by: datetime.timedelta) -> Conversation:
    numbers = [session.number for session in conversation.sessions]
    read = dict(zip(numbers, read_times([s.time for s in conversation.sessions]), strict=True))
    latest = max((time for time in read.values() if time), default=None)

    def shift(text: str, session: int) -> str:
        now = read.get(session) or latest
        return _DAY.sub(lambda found: _moved_day(found, by, now), text)

    def shift_time(text: str, time: datetime.datetime | None) -> str:
        return session_time(time + by) if time and text == session_time(time) else text

    questions = tuple(q for q in conversation.questions if not _vague(q))
    made = _rewritten(dataclasses.replace(conversation, questions=questions), shift)
    sessions = [
        dataclasses.replace(session, time=shift_time(session.time, read[session.number]))
        for session in made.sessions
    ]
    return dataclasses.replace(made, sessions=tuple(sessions))


def _moved_day(found: re.Match, by: datetime.timedelta, now: datetime.datetime | None) -> str:
    """Moves a date and keeps its spelling; one without a year is the nearest to `now`."""
    named, day = found["month"] or found["month2"], int(found["day"] or found["day2"])
    month = [name[:3] for name in _MONTHS].index(named[:3]) + 1
    year = found["year"]
    if not year and now is None:
        return found[0]
    years = [int(year)] if year else [now.year + more for more in (-1, 0, 1)]
    days = []
    for candidate in years:
        try:
            days.append(datetime.datetime(candidate, month, day))
        except ValueError:
            continue  # 29 February of another year
    if not days:
        return found[0]
    moved = min(days, key=lambda day: abs(day - now) if now else 0) + by
    name = f"{moved:%B}" if named in _MONTHS else f"{moved:%b}"
    text = f"{moved.day} {name}" if found["day"] else f"{name} {moved.day}"
    return f"{text}{found['comma']}" + (f" {moved.year}" if year else "")


def _vague(question: Question) -> bool:
    """Tells whether a question or its answer names a month or a year without a day."""
    return any(_VAGUE.search(_DAY.sub("", text)) for text in (question.question, question.answer))


def _rewritten(conversation: Conversation, write: Callable[[str, int], str]) -> Conversation:
    """Applies `write(text, session)` to everything that is said, noted and asked."""
    session_of = {t.dia_id: s.number for s in conversation.sessions for t in s.turns}

    def ask(question: Question) -> Question:
        session = session_of[question.evidence[-1]] if question.evidence else -1
        names = ("question", "answer", "distractor")
        changed = {name: write(getattr(question, name), session) for name in names}
        return dataclasses.replace(question, **changed)

    return dataclasses.replace(
        conversation,
        speakers=tuple(write(name, -1) for name in conversation.speakers),
        sessions=tuple(
            dataclasses.replace(
                session,
                turns=tuple(
                    dataclasses.replace(
                        turn,
                        speaker=write(turn.speaker, session.number),
                        text=write(turn.text, session.number),
                        caption=turn.caption and write(turn.caption, session.number),
                    )
                    for turn in session.turns
                ),
            )
            for session in conversation.sessions
        ),
        questions=tuple(map(ask, conversation.questions)),
        facts=tuple(
            dataclasses.replace(
                fact,
                speaker=write(fact.speaker, fact.session),
                text=write(fact.text, fact.session),
            )
            for fact in conversation.facts
        ),
        operations=tuple(
            dataclasses.replace(
                operation,
                text=write(operation.text, conversation.facts[operation.fact].session),
            )
            for operation in conversation.operations
        ),
    )

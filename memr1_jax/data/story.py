"""Keeps what is true in a generated dialogue, and chooses what is told next."""

import dataclasses
import datetime
import random
import re

from memr1_jax.data import everyday, phrases, wordings
from memr1_jax.data.phrases import Kind

_PASSING = Kind("remark", ("",), lambda rng: "", (), (), ())  # of no interest to a memory


@dataclasses.dataclass(frozen=True)
class Rates:
    """Holds the arguments of `generate` that shape a session."""

    facts: int
    changes: float
    endings: float
    repeats: float
    relative_dates: float
    small_talk: float
    open_words: float
    cascades: float
    absences: int
    wordings: float = 0.0
    rephrased: float = 0.0
    trivia: float = 0.0
    everyday: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """Holds something that is true of a speaker now, and the turns that say so."""

    speaker: str
    kind: Kind
    topic: str
    value: str
    date: tuple[str, str, str]  # as `past_date` returns it; empty strings for kinds without dates
    session: int
    outdated: tuple[str, ...] = ()  # earlier values
    fact: int = -1  # the observation that says it
    turns: tuple[str, ...] = ()

    def phrase(self, rng: random.Random, templates: tuple[str, ...], when: str = "") -> str:
        """Fills one of the templates, as a sentence."""
        template = rng.choice(templates)
        text = template.format(name=self.speaker, topic=self.topic, value=self.value, when=when)
        text = re.sub(r"\ba (?=[aeio]|u(?!ni))", "an ", text)
        return text if template.startswith("{name}") else text[0].upper() + text[1:]


@dataclasses.dataclass(frozen=True)
class Telling:
    """Holds the words of the next fact turn, its note, and its meaning for the memory."""

    event: str
    said: str
    note: str
    entry: Entry  # the entry that arrives, ends or is repeated
    old: Entry | None = None  # the entry that goes


@dataclasses.dataclass
class Story:
    """Holds what was told so far and what is true now."""

    speakers: tuple[str, str]
    kinds: tuple[Kind, ...]
    live: list[Entry] = dataclasses.field(default_factory=list)
    notes: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # who, what, where
    operations: list[dict] = dataclasses.field(default_factory=list)
    endings: list[tuple[Entry, str]] = dataclasses.field(default_factory=list)  # what, where
    taken: set[tuple[str, ...]] = dataclasses.field(default_factory=set)  # told once, never reused

    def other(self, speaker: str) -> str:
        """Names whom a speaker talks to."""
        return self.speakers[speaker == self.speakers[0]]


def next_telling(
    rng: random.Random, story: Story, session: int, time: datetime.datetime, rates: Rates
) -> Telling | None:
    """Chooses what is told next: a new fact unless chance and the story allow another; or None."""
    if rates.trivia and rng.random() < rates.trivia:
        speaker = rng.choice(story.speakers)
        said, note = wordings.remark(rng, speaker)
        return Telling("NONE", said, note, Entry(speaker, _PASSING, "", "", ("",) * 3, session))
    earlier = [entry for entry in story.live if entry.session < session]
    changeable = [entry for entry in earlier if entry.kind.changed]
    endable = [entry for entry in earlier if entry.kind.ended]
    chance = rng.random()
    if chance < rates.changes:
        if changeable and (telling := _change(rng, story, rng.choice(changeable), session, rates)):
            return telling
    elif chance < rates.changes + rates.endings:
        if endable:
            entry = rng.choice(endable)
            said = entry.phrase(rng, entry.kind.ended)
            return Telling("DELETE", said, entry.phrase(rng, entry.kind.ended_notes), entry, entry)
    elif chance < rates.changes + rates.endings + rates.repeats and earlier:
        return _repeat(rng, story, rng.choice(earlier), rates)
    elif 0 <= chance - (rates.changes + rates.endings + rates.repeats) < rates.cascades:
        if telling := _dependent(rng, story, session):
            return telling
    return _novelty(rng, story, session, time, rates)


def _repeat(rng: random.Random, story: Story, entry: Entry, rates: Rates) -> Telling:
    said = entry.phrase(rng, entry.kind.says, entry.date[1])
    if rates.rephrased and rng.random() < rates.rephrased:
        known = story.notes[entry.fact][1]
        notes = (entry.phrase(rng, entry.kind.notes, entry.date[1]) for _ in range(20))
        note = next((note for note in notes if note != known), known)
        return Telling("NONE", said, note, entry)
    said = rng.choice(phrases.REPEATED).format(said=said)
    return Telling("NONE", said, entry.phrase(rng, entry.kind.notes, entry.date[1]), entry)


def _novelty(
    rng: random.Random, story: Story, session: int, time: datetime.datetime, rates: Rates
) -> Telling | None:
    free: dict[tuple[str, Kind], list[str]] = {}
    for speaker in story.speakers:
        for kind in story.kinds:
            topics = [t for t in kind.topics if (speaker, kind.name, t) not in story.taken]
            if topics:
                free[speaker, kind] = topics
    if not free:
        return None
    speaker, kind = rng.choice(list(free))
    topic = rng.choice(free[speaker, kind])
    value = _fresh_value(rng, story, speaker, kind)
    if value is None:
        return None
    story.taken.add((speaker, kind.name, topic))
    date = past_date(rng, time) if kind.whens else ("", "", "")
    entry = Entry(speaker, kind, topic, value, date, session)
    noted = date[0] if rng.random() < rates.relative_dates else date[1]
    says, notes = kind.says, kind.notes
    if rates.everyday and kind.changed and rng.random() < everyday.SUDDEN:
        says, notes = kind.changed, kind.changed_notes
    said = entry.phrase(rng, says, date[0])
    return Telling("ADD", said, entry.phrase(rng, notes, noted), entry)


def _dependent(rng: random.Random, story: Story, session: int) -> Telling | None:
    """Tells of a thing that is wherever its owner lives; None if all such things were told."""
    kind = phrases.KEPT_AT_HOME
    owners = [entry.speaker for entry in story.live if entry.kind.name == phrases.HOME]
    free = [
        (speaker, topic)
        for speaker in owners
        for topic in kind.topics
        if (speaker, kind.name, topic) not in story.taken
    ]
    if not free:
        return None
    speaker, topic = rng.choice(free)
    story.taken.add((speaker, kind.name, topic))
    entry = Entry(speaker, kind, topic, kind.draw(rng), ("", "", ""), session)
    return Telling("ADD", entry.phrase(rng, kind.says), entry.phrase(rng, kind.notes), entry)


def _change(
    rng: random.Random, story: Story, old: Entry, session: int, rates: Rates
) -> Telling | None:
    value = _fresh_value(rng, story, old.speaker, old.kind)
    if value is None:
        return None
    outdated = (*old.outdated, old.value)
    entry = dataclasses.replace(old, value=value, outdated=outdated, session=session)
    says, notes = old.kind.changed, old.kind.changed_notes
    if rates.everyday and rng.random() < everyday.BARE:
        says, notes = old.kind.says, old.kind.notes
    said = entry.phrase(rng, says)
    return Telling("UPDATE", said, entry.phrase(rng, notes), entry, old)


def _fresh_value(rng: random.Random, story: Story, speaker: str, kind: Kind) -> str | None:
    """Draws a value the speaker never had; None when the pool seems to hold no more."""
    for _ in range(50):
        value = kind.draw(rng)
        if (speaker, value) not in story.taken:
            story.taken.add((speaker, value))
            return value
    return None


def apply_telling(story: Story, telling: Telling, dia_id: str) -> None:
    """Notes the fact and the operation, and updates what is true."""
    fact, entry, old = len(story.notes), telling.entry, telling.old
    story.notes.append((entry.speaker, telling.note, dia_id))
    if telling.event == "ADD":
        story.live.append(dataclasses.replace(entry, fact=fact, turns=(dia_id,)))
    elif telling.event == "UPDATE":
        story.live[story.live.index(old)] = dataclasses.replace(entry, fact=fact, turns=(dia_id,))
    elif telling.event == "DELETE":
        story.live.remove(old)
        story.endings.append((old, dia_id))
    elif entry in story.live:
        repeated = dataclasses.replace(entry, turns=(*entry.turns, dia_id))
        story.live[story.live.index(entry)] = repeated
    story.operations.append(
        {
            "event": telling.event,
            "fact": fact,
            "text": telling.note if telling.event in ("ADD", "UPDATE") else "",
            "replaces": None if old is None else old.fact,
        }
    )


def past_date(rng: random.Random, time: datetime.datetime) -> tuple[str, str, str]:
    """Draws a past date as it is said ("yesterday"), written ("on 7 May 2023") and answered."""
    days = {"today": 0, "yesterday": 1, "two days ago": 2, "three days ago": 3, "a week ago": 7}
    said = rng.choice([*days, "last month", "last year"])
    if said == "last year":
        return said, f"in {time.year - 1}", f"{time.year - 1}"
    if said == "last month":
        answer = f"{time.replace(day=1) - datetime.timedelta(days=1):%B %Y}"
        return said, f"in {answer}", answer
    day = time - datetime.timedelta(days=days[said])
    answer = f"{day.day} {day:%B %Y}"
    return said, f"on {answer}", answer

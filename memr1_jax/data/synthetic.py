"""Generated dialogues in LoCoMo's format, with known right memory operations."""

import dataclasses
import datetime
import json
import os
import random
import re
import tempfile
from collections.abc import Sequence
from typing import Any

from memr1_jax.data import everyday, open_phrases, phrases, wordings
from memr1_jax.data.locomo import ADVERSARIAL, load_conversations
from memr1_jax.data.phrases import Kind
from memr1_jax.data.times import session_time
from memr1_jax.data.types import Conversation
from memr1_jax.options import between
from memr1_jax.run.files import write_text_atomic

# Of dialogues, sessions and facts that are generated: more do not fit into the memory of a machine.
GENERATED = between(1, 100_000)

_CHAT = {
    "greeting": phrases.GREETINGS,
    "reply": phrases.REPLIES,
    "small_talk": phrases.SMALL_TALK,
}
_PASSING = Kind("remark", ("",), lambda rng: "", (), (), ())  # of no interest to a memory


@dataclasses.dataclass(frozen=True)
class _Rates:
    """The arguments of `generate` that shape a session."""

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
class _Entry:
    """Something that is true of a speaker now, and the turns that say so."""

    speaker: str
    kind: Kind
    topic: str
    value: str
    date: tuple[str, str, str]  # as `_date` returns it; empty strings for kinds without dates
    session: int
    outdated: tuple[str, ...] = ()  # earlier values
    fact: int = -1  # the observation that says it
    turns: tuple[str, ...] = ()

    def phrase(self, rng: random.Random, templates: tuple[str, ...], when: str = "") -> str:
        template = rng.choice(templates)
        text = template.format(name=self.speaker, topic=self.topic, value=self.value, when=when)
        text = re.sub(r"\ba (?=[aeio]|u(?!ni))", "an ", text)
        return text if template.startswith("{name}") else text[0].upper() + text[1:]


@dataclasses.dataclass(frozen=True)
class _Telling:
    """What the next fact turn says, its note, and what it means for the memory."""

    event: str
    said: str
    note: str
    entry: _Entry  # the entry that arrives, ends or is repeated
    old: _Entry | None = None  # the entry that goes


@dataclasses.dataclass
class _Story:
    """What was told so far and what is true now."""

    speakers: tuple[str, str]
    kinds: tuple[Kind, ...]
    live: list[_Entry] = dataclasses.field(default_factory=list)
    notes: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  # who, what, where
    operations: list[dict] = dataclasses.field(default_factory=list)
    endings: list[tuple[_Entry, str]] = dataclasses.field(default_factory=list)  # what, where
    taken: set[tuple[str, ...]] = dataclasses.field(default_factory=set)  # told once, never reused

    def other(self, speaker: str) -> str:
        return self.speakers[speaker == self.speakers[0]]


def generate(
    seed: int,
    num_conversations: int = 10,
    num_sessions: int = 12,
    facts_per_session: int = 6,
    changes: float = 0.2,
    endings: float = 0.12,
    repeats: float = 0.08,
    relative_dates: float = 0.5,
    small_talk: float = 0.5,
    split: str = "train",
    open_words: float = 0.0,
    cascades: float = 0.0,
    absences: int = 0,
    **more: float,
) -> list[dict]:
    """Returns conversations as records of LoCoMo's format with the extra key `gold_operations`.

    Facts accumulate (ADD), change (UPDATE), end (DELETE) and are told again (NONE). A gold
    operation names observations by their position in dialogue order. Questions of categories 1 to
    4 ask about what is true at the end; their answers have one to four words. Those of what
    has changed list the answers that are `outdated`.

    Args:
      seed: the same seed, split and sizes give the same records.
      num_conversations: how many records.
      num_sessions: sessions in each, one to three months apart.
      facts_per_session: turns that tell a fact; fewer once the speakers have nothing left to tell.
      changes: share of them that change an earlier fact.
      endings: share of them that end an earlier fact.
      repeats: share of them that tell an earlier fact again.
      relative_dates: share of dated observations that say "yesterday" instead of the date.
      small_talk: chance of a further exchange without content after each fact.
      split: train, validation or test; it begins the ids and is part of the seed.
      open_words: share of names and values from outside the closed lists of `phrases`, see
        `open_phrases`; above 0 there are more wordings too.
      cascades: share of facts that depend on where a speaker lives; questions of the kind "cascade"
        ask for what follows from both.
      absences: questions of category 5 in each record, about what was never said.
      **more: `wordings`, `rephrased` and `trivia`, see `WordingOptions`; with `everyday` the facts
        are those of `everyday` in place of all others.
    """
    rates = _Rates(
        facts_per_session,
        changes,
        endings,
        repeats,
        relative_dates,
        small_talk,
        open_words,
        cascades,
        absences,
        **more,
    )
    identities = [f"{split}-{seed}-{index}" for index in range(num_conversations)]
    return [_record(identity, num_sessions, rates) for identity in identities]


def write_synthetic(
    path: str | os.PathLike,
    seed: int = 0,
    train: int = 8,
    validation: int = 2,
    test: int = 4,
    **sizes: float,
) -> None:
    """Writes a file of generated conversations for all three splits, whole or not at all.

    `sizes` go to `generate`.
    """
    counts = {"train": train, "validation": validation, "test": test}
    records = [
        record
        for split, number in counts.items()
        for record in generate(seed, number, split=split, **sizes)
    ]
    write_text_atomic(path, json.dumps(records, indent=1))


def generate_conversations(seed: int, num_conversations: int, **sizes: Any) -> list[Conversation]:
    """Returns generated dialogues as `Conversation`s; the arguments are those of `generate`."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(generate(seed, num_conversations, **sizes), file)
        file.flush()
        return load_conversations(file.name, adversarial=bool(sizes.get("absences")))


def _date(rng: random.Random, time: datetime.datetime) -> tuple[str, str, str]:
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


def _record(identity: str, num_sessions: int, rates: _Rates) -> dict:
    rng = random.Random(identity)
    if rates.everyday:
        story = _Story(everyday.speakers(rng), everyday.everyday_kinds(rng))
    elif rates.open_words:
        share = rates.open_words
        story = _Story(open_phrases.two_names(rng, share), open_phrases.widened(share))
    else:
        story = _Story(tuple(rng.sample(phrases.NAMES, 2)), phrases.KINDS)
    if rates.wordings:
        story.kinds = wordings.richer(story.kinds)
    conversation = {"speaker_a": story.speakers[0], "speaker_b": story.speakers[1]}
    observation = {}
    time = datetime.datetime(2021, 1, 1) + datetime.timedelta(days=rng.randrange(3 * 365))
    for session in range(1, num_sessions + 1):
        time += datetime.timedelta(days=rng.randint(30, 90))
        time = time.replace(hour=rng.randint(8, 21), minute=rng.randrange(60))
        noted = len(story.notes)
        conversation[f"session_{session}_date_time"] = session_time(time)
        conversation[f"session_{session}"] = _session(rng, story, session, time, rates)
        observation[f"session_{session}_observation"] = {
            speaker: [[note, turn] for who, note, turn in story.notes[noted:] if who == speaker]
            for speaker in story.speakers
        }
    return {
        "sample_id": identity,
        "conversation": conversation,
        "qa": [*_questions(rng, story), *_absence_questions(rng, story, rates.absences)],
        "event_summary": {},
        "observation": observation,
        "session_summary": {},
        "gold_operations": story.operations,
    }


def _session(
    rng: random.Random, story: _Story, number: int, time: datetime.datetime, rates: _Rates
) -> list[dict]:
    """Tells up to `rates.facts` facts, with strictly alternating speakers."""
    turns: list[dict] = []

    def say(speaker: str, text: str) -> str:
        dia_id = f"D{number}:{len(turns) + 1}"
        turns.append({"speaker": speaker, "dia_id": dia_id, "text": text})
        return dia_id

    def varied() -> bool:
        return rates.wordings > 0 and rng.random() < rates.wordings

    def chat(speaker: str, what: str) -> None:
        other = story.other(speaker)
        if varied():
            say(speaker, wordings.sentence(rng, what, other=other))
        else:
            say(speaker, rng.choice(_CHAT[what]).format(other=other))

    opener = rng.choice(story.speakers)
    chat(opener, "greeting")
    chat(story.other(opener), "greeting")
    for _ in range(rates.facts):
        telling = _next_telling(rng, story, number, time, rates)
        if telling is None:
            break
        speaker = telling.entry.speaker
        if turns[-1]["speaker"] == speaker:
            chat(story.other(speaker), "small_talk")
        said = telling.said
        if varied():
            said = wordings.framed(rng, said, other=story.other(speaker))
        elif rates.everyday:
            said = everyday.loosened(rng, said)
        _apply(story, telling, say(speaker, said))
        chat(story.other(speaker), "reply")
        if rng.random() < rates.small_talk:
            chat(speaker, "small_talk")
    return turns


def _next_telling(
    rng: random.Random, story: _Story, session: int, time: datetime.datetime, rates: _Rates
) -> _Telling | None:
    """Chooses what is told next: a new fact unless chance and the story allow another; or None."""
    if rates.trivia and rng.random() < rates.trivia:
        speaker = rng.choice(story.speakers)
        said, note = wordings.remark(rng, speaker)
        return _Telling("NONE", said, note, _Entry(speaker, _PASSING, "", "", ("",) * 3, session))
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
            return _Telling("DELETE", said, entry.phrase(rng, entry.kind.ended_notes), entry, entry)
    elif chance < rates.changes + rates.endings + rates.repeats and earlier:
        return _repeat(rng, story, rng.choice(earlier), rates)
    elif 0 <= chance - (rates.changes + rates.endings + rates.repeats) < rates.cascades:
        if telling := _dependent(rng, story, session):
            return telling
    return _novelty(rng, story, session, time, rates)


def _repeat(rng: random.Random, story: _Story, entry: _Entry, rates: _Rates) -> _Telling:
    said = entry.phrase(rng, entry.kind.says, entry.date[1])
    if rates.rephrased and rng.random() < rates.rephrased:
        known = story.notes[entry.fact][1]
        notes = (entry.phrase(rng, entry.kind.notes, entry.date[1]) for _ in range(20))
        note = next((note for note in notes if note != known), known)
        return _Telling("NONE", said, note, entry)
    said = rng.choice(phrases.REPEATED).format(said=said)
    return _Telling("NONE", said, entry.phrase(rng, entry.kind.notes, entry.date[1]), entry)


def _novelty(
    rng: random.Random, story: _Story, session: int, time: datetime.datetime, rates: _Rates
) -> _Telling | None:
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
    date = _date(rng, time) if kind.whens else ("", "", "")
    entry = _Entry(speaker, kind, topic, value, date, session)
    noted = date[0] if rng.random() < rates.relative_dates else date[1]
    says, notes = kind.says, kind.notes
    if rates.everyday and kind.changed and rng.random() < everyday.SUDDEN:
        says, notes = kind.changed, kind.changed_notes
    said = entry.phrase(rng, says, date[0])
    return _Telling("ADD", said, entry.phrase(rng, notes, noted), entry)


def _dependent(rng: random.Random, story: _Story, session: int) -> _Telling | None:
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
    entry = _Entry(speaker, kind, topic, kind.draw(rng), ("", "", ""), session)
    return _Telling("ADD", entry.phrase(rng, kind.says), entry.phrase(rng, kind.notes), entry)


def _change(
    rng: random.Random, story: _Story, old: _Entry, session: int, rates: _Rates
) -> _Telling | None:
    value = _fresh_value(rng, story, old.speaker, old.kind)
    if value is None:
        return None
    outdated = (*old.outdated, old.value)
    entry = dataclasses.replace(old, value=value, outdated=outdated, session=session)
    says, notes = old.kind.changed, old.kind.changed_notes
    if rates.everyday and rng.random() < everyday.BARE:
        says, notes = old.kind.says, old.kind.notes
    said = entry.phrase(rng, says)
    return _Telling("UPDATE", said, entry.phrase(rng, notes), entry, old)


def _fresh_value(rng: random.Random, story: _Story, speaker: str, kind: Kind) -> str | None:
    """Draws a value the speaker never had; None when the pool seems to hold no more."""
    for _ in range(50):
        value = kind.draw(rng)
        if (speaker, value) not in story.taken:
            story.taken.add((speaker, value))
            return value
    return None


def _apply(story: _Story, telling: _Telling, dia_id: str) -> None:
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


def _questions(rng: random.Random, story: _Story) -> list[dict]:
    """Asks about what is true at the end, in random order."""
    questions: list[dict] = []

    def ask(
        category: int, text: str, answer: str, turns: list[str], outdated: Sequence[str] = ()
    ) -> None:
        if len(answer.split()) <= 4:
            question = {"question": text, "answer": answer, "evidence": _in_order(turns)}
            old = {"outdated": list(outdated)} if outdated else {}
            questions.append(question | {"category": category} | old)

    for entry in story.live:
        kind, turns = entry.kind, list(entry.turns)
        if kind.asks:
            ask(4, entry.phrase(rng, kind.asks), entry.value, turns, entry.outdated)
        if kind.whens:
            ask(2, entry.phrase(rng, kind.whens), entry.date[2], turns)
        if kind.likely:
            ask(3, entry.phrase(rng, phrases.LIKELY), kind.likely, turns)

    for speaker in story.speakers:
        for kind in story.kinds:
            entries = [e for e in story.live if e.speaker == speaker and e.kind == kind]
            over = [(e, t) for e, t in story.endings if e.speaker == speaker and e.kind == kind]
            ended = [turn for _, turn in over]
            turns = [turn for entry in entries for turn in entry.turns]
            if entries and kind.lists and len(entries) + len(ended) > 1:
                listed = ", ".join(entry.value for entry in entries)
                gone = [entry.value for entry, _ in over]
                ask(1, entries[0].phrase(rng, kind.lists), listed, turns + ended, gone)
                ask(1, entries[0].phrase(rng, kind.counts), str(len(entries)), turns + ended)
            rng.shuffle(entries)
            for first, second in zip(entries[::2], entries[1::2], strict=False):
                if kind.pairs:
                    words = {"name": speaker, "first": first.topic, "second": second.topic}
                    text = rng.choice(kind.pairs).format(**words)
                    both = [*first.turns, *second.turns]
                    ask(1, text, f"{first.value}, {second.value}", both)
    questions += _cascade_questions(rng, story)
    rng.shuffle(questions)
    return questions


def _cascade_questions(rng: random.Random, story: _Story) -> list[dict]:
    """Asks where the things are that are kept at home: the answer changes when the owner moves."""
    homes = {entry.speaker: entry for entry in story.live if entry.kind.name == phrases.HOME}
    return [
        {
            "question": entry.phrase(rng, phrases.TOWN_OF_THING),
            "answer": homes[entry.speaker].value,
            "evidence": _in_order([*entry.turns, *homes[entry.speaker].turns]),
            "category": 1,
            "kind": "cascade",
            "outdated": list(homes[entry.speaker].outdated),
        }
        for entry in story.live
        if entry.kind == phrases.KEPT_AT_HOME
    ]


def _absence_questions(rng: random.Random, story: _Story, number: int) -> list[dict]:
    """Asks for values that were never told; each question invites one of the same kind."""
    never = [
        (speaker, kind, topic)
        for speaker in story.speakers
        for kind in story.kinds
        for topic in kind.topics
        if (speaker, kind.name, topic) not in story.taken
    ]
    questions = []
    for speaker, kind, topic in rng.sample(never, min(number, len(never))):
        told = [entry.value for entry in story.live if entry.kind == kind]
        value = rng.choice(told) if told else kind.draw(rng)
        asked = _Entry(speaker, kind, topic, value, ("", "", ""), 0)
        questions.append(
            {
                "question": asked.phrase(rng, kind.asks),
                "evidence": [],
                "category": ADVERSARIAL,
                "kind": "absence",
                "adversarial_answer": value,
                "reply": phrases.ABSENT,
            }
        )
    return questions


def _in_order(turns: Sequence[str]) -> list[str]:
    return sorted(turns, key=lambda turn: [int(n) for n in turn[1:].split(":")])

"""Questions about a generated dialogue, with their answers and evidence."""

import random
from collections.abc import Sequence

from memr1_jax.data import phrases
from memr1_jax.data.locomo import ADVERSARIAL
from memr1_jax.data.story import Entry, Story


def questions(rng: random.Random, story: Story) -> list[dict]:
    """Asks about what is true at the end, in random order."""
    found: list[dict] = []

    def ask(
        category: int, text: str, answer: str, turns: list[str], outdated: Sequence[str] = ()
    ) -> None:
        if len(answer.split()) <= 4:
            question = {"question": text, "answer": answer, "evidence": _in_order(turns)}
            old = {"outdated": list(outdated)} if outdated else {}
            found.append(question | {"category": category} | old)

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
    found += _cascade_questions(rng, story)
    rng.shuffle(found)
    return found


def _cascade_questions(rng: random.Random, story: Story) -> list[dict]:
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


def absence_questions(rng: random.Random, story: Story, number: int) -> list[dict]:
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
        asked = Entry(speaker, kind, topic, value, ("", "", ""), 0)
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

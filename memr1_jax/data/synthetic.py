"""Generated dialogues in LoCoMo's format, with known right memory operations."""

import datetime
import json
import os
import random
import tempfile
from typing import Any

from memr1_jax.data import everyday, open_phrases, phrases, wordings
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.story import Rates, Story, apply_telling, next_telling
from memr1_jax.data.story_questions import absence_questions, questions
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
      **more: `wordings`, `rephrased`, `trivia` and `everyday`, see `WordingOptions`.
    """
    rates = Rates(
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


def _record(identity: str, num_sessions: int, rates: Rates) -> dict:
    rng = random.Random(identity)
    if rates.everyday:
        story = Story(everyday.speakers(rng), everyday.everyday_kinds(rng))
    elif rates.open_words:
        share = rates.open_words
        story = Story(open_phrases.two_names(rng, share), open_phrases.widened(share))
    else:
        story = Story(tuple(rng.sample(phrases.NAMES, 2)), phrases.KINDS)
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
        "qa": [*questions(rng, story), *absence_questions(rng, story, rates.absences)],
        "event_summary": {},
        "observation": observation,
        "session_summary": {},
        "gold_operations": story.operations,
    }


def _session(
    rng: random.Random, story: Story, number: int, time: datetime.datetime, rates: Rates
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
        telling = next_telling(rng, story, number, time, rates)
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
        apply_telling(story, telling, say(speaker, said))
        chat(story.other(speaker), "reply")
        if rng.random() < rates.small_talk:
            chat(speaker, "small_talk")
    return turns

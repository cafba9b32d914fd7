"""Finds, checks, reads and splits the LoCoMo dialogues (arXiv 2402.17753)."""

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path

from memr1_jax.data.nodes import Node, read_json
from memr1_jax.data.notes import Note, tell
from memr1_jax.data.published import Edition, PublishedFile, find
from memr1_jax.data.references import is_turn_id, resolve_all
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event

# In the order of the published file, by which audits number them.
IDS = tuple(f"conv-{number}" for number in (26, 30, 41, 42, 43, 44, 47, 48, 49, 50))
_COUNTS = {"conversations": 10, "sessions": 272, "turns": 5882, "questions": 1986}
LOCOMO = PublishedFile(
    title="LoCoMo",
    name="locomo10.json",
    editions={
        "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4": Edition(
            "official", _COUNTS
        ),
        "13606bca884365a990b6514f5229a9d16d9a0cebfd23a503461cd11e447b77b7": Edition(
            "Structured-Memory-R1", _COUNTS
        ),
        "db827e3b2df093b49d1fef5d0a59b0faf75583ee86d087cebc44a8f038513ad7": Edition(
            "Memory-R2", _COUNTS
        ),
    },
    home="published by snap-research/LoCoMo on GitHub",
    licence="CC BY-NC 4.0",
    url="https://raw.githubusercontent.com/snap-research/LoCoMo/"
    "3eb6f2c585f5e1699204e3c3bdf7adc5c28cb376/data/locomo10.json",
    marks=tuple(f'"{name}"' for name in IDS),
)
SPLITS = {
    "train": ("conv-26",),
    "validation": ("conv-30",),
    "test": tuple(f"conv-{number}" for number in (41, 42, 43, 44, 47, 48, 49, 50)),
}
KINDS = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop", 5: "adversarial"}
ADVERSARIAL = 5
LOST_SOME = "questions that lose some of their evidence (no such turn)"
LOST_ALL = "questions that lose all of their evidence (no such turn)"
REPAIRED = "references that are not the id of one turn, but name some"
LOST_SOURCE = "facts that lose some of their turns (no such turn)"
LOST_FACT = "facts that are left out (no such turn)"

_SESSION = re.compile(r"session_([1-9][0-9]{0,8})")


@dataclasses.dataclass
class _Turns:
    """The turns of one conversation by id, and what is noted while references to them are read."""

    order: dict[str, int] = dataclasses.field(default_factory=dict)
    session: dict[str, int] = dataclasses.field(default_factory=dict)  # its number
    notes: list[Note] = dataclasses.field(default_factory=list)

    def named(self, nodes: Iterable[Node]) -> tuple[tuple[str, ...], list[str]]:
        """Finds the turns that strings name, and the strings that name a missing one."""
        nodes = list(nodes)
        found, lost = resolve_all([node.of(str).value for node in nodes], self.order)
        self.notes += [
            Note(REPAIRED, node.place, node.value)
            for node in nodes
            if node.value not in self.order and node.value not in lost
        ]
        return found, lost


def find_locomo(data_path: str | os.PathLike | None = None, strict: bool = False) -> Path:
    """Returns the path of a checked LoCoMo file, downloaded once if none is given; see `find`."""
    return find(LOCOMO, data_path, strict).path


def load_conversations(
    path: str | os.PathLike, captions: bool = False, adversarial: bool = False
) -> list[Conversation]:
    """Reads a file in LoCoMo's format, and warns of evidence and facts that name no turn.

    Generated dialogues add `gold_operations`, and to a question its `kind`, the answers that are
    `outdated` and, in category 5, the right `reply`.

    Args:
      path: the JSON file.
      captions: whether turns carry the caption of the image they share.
      adversarial: whether category 5 is kept. Its questions have an empty answer unless the file
        gives a `reply`; the wrong one that it offers is their `distractor`.

    Raises:
      UserError: the file is not JSON or not of LoCoMo's schema; the message names the place.
    """
    samples = read_json(path).of(list).items()
    conversations = [conversation_of(sample, captions, adversarial) for sample in samples]
    ids = [conversation.id for conversation in conversations]
    if twice := [identity for identity in ids if ids.count(identity) > 1]:
        raise UserError(f"{path} has more than one conversation {twice[0][:100]!r}.")
    tell(path, (note for conversation in conversations for note in conversation.notes))
    return conversations


def without_adversarial(conversation: Conversation) -> Conversation:
    """Returns the conversation without its questions of category 5."""
    kept = tuple(q for q in conversation.questions if q.category != ADVERSARIAL)
    return dataclasses.replace(conversation, questions=kept)


def split(conversations: Iterable[Conversation], name: str) -> list[Conversation]:
    """Returns the conversations of one split.

    LoCoMo's ten follow the Memory-R1 paper (`SPLITS`). Any other conversation belongs to the split
    that its file names, or that its id starts with, as in "train-7-0".

    Raises:
      UserError: the split has another name or is empty.
    """
    if name not in SPLITS:
        raise UserError(f"There is no split {name!r}; choose one of {', '.join(SPLITS)}.")
    conversations = list(conversations)
    chosen = [
        c for c in conversations if name in (c.split, c.id.split("-")[0]) or c.id in SPLITS[name]
    ]
    if not chosen:
        ids = ", ".join(c.id for c in conversations)
        raise UserError(
            f"The data hold no conversation of the split {name!r}, only: {ids}. Ids that are not "
            "LoCoMo's own must start with train-, validation- or test-; the lines of one's own "
            'dialogues may say "split": "train" instead.'
        )
    return chosen


def conversation_of(
    sample: Node, captions: bool = False, adversarial: bool = False
) -> Conversation:
    """Reads one record; see `load_conversations`."""
    identity = sample.text("sample_id")
    sample = sample.called(identity)
    record = sample["conversation"].of(dict)
    speakers = (record.text("speaker_a"), record.text("speaker_b"))
    # A file may date sessions that it does not hold, so the lists say which sessions exist.
    numbers = sorted(int(m[1]) for m in map(_SESSION.fullmatch, record.value) if m)
    sessions = tuple(_session(record, number, speakers, captions) for number in numbers)
    if not any(session.turns for session in sessions):
        raise record.error("there is no turn: expected lists session_1, session_2, ... of turns.")
    turns = _Turns()
    for session in sessions:
        for turn in session.turns:
            if turn.dia_id in turns.order:
                raise sample.error(f"the turn id {turn.dia_id} stands there twice.")
            turns.order[turn.dia_id] = len(turns.order)
            turns.session[turn.dia_id] = session.number

    questions = [
        _question(item, question_id(identity, index), index, turns)
        for index, item in enumerate(sample["qa"].items())
        if adversarial or item["category"].value != ADVERSARIAL
    ]
    facts = []
    if "observation" in sample:
        facts = _facts(sample["observation"].of(dict), speakers, turns)
    operations = ()
    if "gold_operations" in sample:
        listed = sample["gold_operations"].items()
        operations = tuple(_operation(item, len(facts)) for item in listed)
    return Conversation(
        identity,
        speakers,
        sessions,
        tuple(questions),
        tuple(facts),
        operations,
        notes=tuple(turns.notes),
    )


def question_id(conversation: str, index: int) -> str:
    """Returns what audits call question `index`: "locomo_0_qa1" in LoCoMo's own ten."""
    if conversation in IDS:
        return f"locomo_{IDS.index(conversation)}_qa{index}"
    return f"{conversation}_qa{index}"


def _question(item: Node, identity: str, index: int, turns: _Turns) -> Question:
    category = item["category"].of(int).value
    if category not in KINDS:
        raise item.error(f"the category is {category}, not one of 1 to 5.")
    invites = category == ADVERSARIAL
    evidence, lost = turns.named(item["evidence"].items())
    if lost:
        turns.notes.append(Note(LOST_SOME if evidence else LOST_ALL, item.place, lost[0]))
    reply = item.filled("reply") if "reply" in item else ""
    outdated = item["outdated"].items() if "outdated" in item else []
    return Question(
        question=item.filled("question"),
        answer=reply if invites else item.filled("answer", str, int),
        category=category,
        evidence=evidence,
        index=index,
        id=identity,
        kind=item.text("kind") if "kind" in item else KINDS[category],
        abstain=invites,
        distractor=item.text("adversarial_answer") if invites else "",
        outdated=tuple(old.of(str).value for old in outdated),
    )


def _session(record: Node, number: int, speakers: tuple[str, str], captions: bool) -> Session:
    turns = []
    for item in record[f"session_{number}"].items():
        speaker, text, dia_id = (item.text(key) for key in ("speaker", "text", "dia_id"))
        if speaker not in speakers:
            raise item.error(f"the speaker {speaker!r} is not one of {speakers}.")
        if not is_turn_id(dia_id):
            raise item.error(f"the turn id {dia_id!r} does not read like D1:3.")
        caption = item.text("blip_caption") if captions and "blip_caption" in item else None
        time = item.text("time") if "time" in item else ""
        turns.append(Turn(speaker, text, dia_id, caption, time))
    return Session(number, record.text(f"session_{number}_date_time"), tuple(turns))


def _facts(observation: Node, speakers: tuple[str, str], turns: _Turns) -> list[Fact]:
    """Returns facts in dialogue order; without an existing source they have no place in it."""
    facts = []
    # The keys are not trusted for the session: one edition names session_1_observation differently.
    for key in observation.value:
        by_speaker = observation[key].of(dict)
        for speaker in by_speaker.value:
            if speaker not in speakers:
                raise by_speaker.error(f"the speaker {speaker!r} is not one of {speakers}.")
            for item in by_speaker[speaker].items():
                text, source = item.of(list)[0].of(str).value, item[1].of(str, list)
                raw = [source] if isinstance(source.value, str) else source.items()
                sources, lost = turns.named(raw)
                if lost:
                    kind = LOST_SOURCE if sources else LOST_FACT
                    turns.notes.append(Note(kind, item.place, lost[0]))
                if sources:
                    # The place of the turn decides, as ids may count across sessions.
                    facts.append(Fact(speaker, text, turns.session[sources[-1]], sources))
    return sorted(facts, key=lambda fact: turns.order[fact.sources[-1]])


def _operation(item: Node, number_of_facts: int) -> GoldOperation:
    name = item.text("event")
    if name not in Event.__members__:
        raise item.error(f"{name!r} is none of {', '.join(Event.__members__)}.")
    fact, text = item["fact"].of(int).value, item.text("text")
    replaces = item["replaces"].of(int, type(None)).value
    for position in (fact, 0 if replaces is None else replaces):
        if not 0 <= position < number_of_facts:
            raise item.error(f"there is no fact number {position}.")
    return GoldOperation(Event[name], fact, text, replaces)

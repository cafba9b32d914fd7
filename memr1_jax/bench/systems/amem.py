"""A-Mem (arXiv 2502.12110): a network of notes, one a turn, that the model links and revises.

A note gets keywords, a context and tags (first call). Then the notes nearest to it are shown, and
the model may link it with them, and overwrite their contexts and tags (second call, "evolution").
Nothing is ever deleted. As in the original, vectors of revised notes stay as they are until all
notes are embedded again, after every hundred evolutions. A question is searched for by keywords
that the model writes, and the notes that are linked with those found are shown too.

Unlike there, notes are numbered where they are shown; decoding is greedy; and the answer prompt
is that of all rows. The original's prompts differ by the category of the question, which gives it
away, and show the gold answer among the options where there is nothing to be found.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Sequence

import numpy as np

from memr1_jax.bench.systems.answer_stage import AnswerStage, ask_for_answer
from memr1_jax.bench.systems.extraction import spoken
from memr1_jax.bench.systems.loose_json import is_true, line_of, numbers, read_counted, texts
from memr1_jax.bench.systems.management_prompts import management_call
from memr1_jax.bench.systems.neighbours import nearest
from memr1_jax.bench.systems.protocol import Answer, Call, Memory, Steps, ask
from memr1_jax.bench.systems.text_bank import Bank, Embed, add
from memr1_jax.data.types import Question, Session, Turn


@dataclasses.dataclass(frozen=True)
class Note:
    """A turn, what the model says of it, and the ids of the notes that it is linked with."""

    content: str
    time: str
    speaker: str
    source: str
    context: str = ""
    keywords: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    links: tuple[int, ...] = ()

    @property
    def indexed(self) -> str:
        """Returns the text that is embedded."""
        parts = [self.content, self.context, ", ".join(self.keywords), ", ".join(self.tags)]
        return " ".join(part for part in parts if part)

    @property
    def memory(self) -> Memory:
        """Returns the note as an answer is shown it."""
        said = {
            "context": self.context,
            "keywords": ", ".join(self.keywords),
            "tags": ", ".join(self.tags),
        }
        added = "; ".join(f"{name}: {value}" for name, value in said.items() if value)
        text = f"{self.content} ({added})" if added else self.content
        return Memory(text, self.time, self.speaker, (self.source,))


@dataclasses.dataclass(frozen=True)
class AMemSystem:
    """Sizes of A-Mem; `memories` notes are retrieved for a question, and as many linked ones."""

    name: str
    embed: Embed
    stage: AnswerStage
    memories: int = 10
    neighbours: int = 5
    reindex_every: int = 100
    max_tokens: int = 1000
    model: str = "base"

    def start(self, speakers: tuple[str, str]) -> "AMemStore":
        """Makes a store without notes."""
        return AMemStore(self, speakers)


class AMemStore:
    """The notes of one conversation, of both speakers together."""

    def __init__(self, system: AMemSystem, speakers: tuple[str, str]):
        """Begins without notes."""
        self.counts: collections.Counter = collections.Counter()
        self._system = system
        self._call = functools.partial(management_call, system.max_tokens, system.model)
        self._read = functools.partial(read_counted, counts=self.counts)
        self._speakers = speakers
        self._notes: dict[int, Note] = {}
        self._index = Bank()  # of the embedded texts, under the ids of the notes
        self._evolutions = 0

    def ingest(self, session: Session) -> Steps[None]:
        """Describes all turns at once, then joins them to the network one after another."""
        notes = [_note(turn, session.time_of(turn)) for turn in spoken(session, self._speakers)]
        if not notes:
            return
        calls = [self._call("describe", prompt="note", note=note.content) for note in notes]
        replies = yield calls
        for note, reply in zip(notes, replies, strict=True):
            value = self._read(reply, "keywords", "describe")
            note = dataclasses.replace(
                note,
                keywords=tuple(texts(value.get("keywords"))),
                context=line_of(value.get("context")),
                tags=tuple(texts(value.get("tags"))),
            )
            yield from self._join(note)

    def _join(self, note: Note) -> Steps[None]:
        """Stores a note, after the model has decided what it changes."""
        found = nearest(self._index, note.indexed, self._system.neighbours, self._system.embed)
        ids = [identity for identity, _ in found]
        if ids:
            reply = yield from ask(self._evolve_call(note, ids))
            value = self._read(reply, "should_evolve", "evolve")
            if is_true(value.get("should_evolve")):
                note = self._evolve(note, ids, value)
        new = self._index.next_id
        self._notes[new] = note
        memory = Memory(note.indexed, note.time, note.speaker, (note.source,))
        self._index = add(self._index, [memory], self._system.embed)
        self.counts["notes"] += 1
        if self._evolutions >= self._system.reindex_every:
            self._reindex()

    def _evolve(self, note: Note, ids: list[int], value: dict) -> Note:
        """Carries out a decision: revises the neighbours, and returns the note with its links."""
        self.counts["evolutions"] += 1
        self._evolutions += 1
        actions = {action.lower() for action in texts(value.get("actions"))}
        if "strengthen" in actions:
            links = [ids[place] for place in numbers(value.get("links"), len(ids), self.counts)]
            tags = tuple(texts(value.get("tags"))) or note.tags
            note = dataclasses.replace(note, links=tuple(links), tags=tags)
            self.counts["links"] += len(links)
        revised = value.get("neighbors")
        if "update_neighbor" in actions and isinstance(revised, list):
            for item in revised:
                if not isinstance(item, dict) or "id" not in item:
                    self.counts["skipped"] += 1
                    continue
                for place in numbers(item.get("id"), len(ids), self.counts):
                    old = self._notes[ids[place]]
                    self._notes[ids[place]] = dataclasses.replace(
                        old,
                        context=line_of(item.get("context")) or old.context,
                        tags=tuple(texts(item.get("tags"))) or old.tags,
                    )
                    self.counts["revised"] += 1
        return note

    def _reindex(self) -> None:
        """Embeds all notes as they are now."""
        self._evolutions = 0
        self.counts["reindexed"] += 1
        keys = self._system.embed([note.indexed for note in self._notes.values()])
        self._index = dataclasses.replace(
            self._index, keys=dict(zip(self._notes, np.asarray(keys), strict=True))
        )

    def _evolve_call(self, note: Note, ids: list[int]) -> Call:
        neighbours = [
            {
                "id": str(place),
                "text": self._notes[identity].content,
                "context": self._notes[identity].context,
                "tags": ", ".join(self._notes[identity].tags),
            }
            for place, identity in enumerate(ids)
        ]
        return self._call(
            "evolve",
            note=note.content,
            context=note.context,
            keywords=", ".join(note.keywords),
            neighbours=neighbours,
        )

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from the notes nearest to the question's keywords, and those linked with them."""
        keywords = yield from search_words(
            question.question, self._system.max_tokens, self._system.model, self.counts
        )
        begin = time.perf_counter()
        k = self._system.memories
        found = nearest(self._index, keywords, k, self._system.embed)
        ids = dict.fromkeys(identity for identity, _ in found)
        linked = dict.fromkeys(link for identity in ids for link in self._notes[identity].links)
        shown = [*ids, *[link for link in linked if link not in ids][:k]]
        seconds = time.perf_counter() - begin
        memories = [self._notes[identity].memory for identity in shown]
        return (
            yield from ask_for_answer(
                self._system.stage, self._speakers, question, memories, search_seconds=seconds
            )
        )

    def memories(self) -> Sequence[Memory]:
        """Returns all notes."""
        return [note.memory for note in self._notes.values()]


def _note(turn: Turn, when: str) -> Note:
    content = f"Speaker {turn.speaker} says: {line_of(turn.content)}"
    return Note(content, when, turn.speaker, turn.dia_id)


def search_words(
    question: str, max_tokens: int, model: str, counts: collections.Counter
) -> Steps[str]:
    """Has a language model write keywords for a question; without any, uses the question itself.

    This is part of answering, under the stage "query": it changes no memory.
    """
    call = management_call(max_tokens, model, "query", prompt="keywords", text=question)
    reply = yield from ask(call)
    value = read_counted(reply, "keywords", "query", counts)
    return ", ".join(texts(value.get("keywords"))) or question

"""Facts with the time in which they hold, as in Zep's temporal graph (arXiv 2501.13956).

A language model takes facts from every message, with the dates between which they hold (first
call, shown the four messages before). Then it is shown the stored facts nearest to the new ones and
says which they repeat, and which they contradict (second call). A repeated fact gains the turn; a
contradicted one gets an end, and stays: nothing is ever deleted. An answer is shown the nearest
facts with their ranges, by rank fusion of vectors and BM25.

There is no graph here: Zep's entities, with their summaries, and its search along edges are left
out, which saves two calls a message.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import numpy as np

from memr1_jax.bench.systems.answer_stage import AnswerStage, ask_for_answer
from memr1_jax.bench.systems.extraction import spoken
from memr1_jax.bench.systems.loose_json import line_of, numbers, read_counted
from memr1_jax.bench.systems.management_prompts import management_call
from memr1_jax.bench.systems.neighbours import fused, nearest_to_any
from memr1_jax.bench.systems.protocol import Answer, Memory, Reply, Steps, ask
from memr1_jax.bench.systems.ranking import bm25_scores
from memr1_jax.bench.systems.text_bank import Bank, Embed, add
from memr1_jax.data.types import Question, Session, Turn


@dataclasses.dataclass(frozen=True)
class TimedFact:
    """A fact; `start` and `end` are dates as the model wrote them, empty where it knew none.

    `noted` is the time of the session that it was told in.
    """

    text: str
    noted: str
    start: str
    end: str
    sources: tuple[str, ...]

    @property
    def range(self) -> str:
        """Returns the time in which it holds, in words."""
        start = f"from {self.start or self.noted}"
        return f"{start} to {self.end}" if self.end else start

    @property
    def memory(self) -> Memory:
        """Returns the fact as an answer is shown it."""
        return Memory(self.text, self.range, "", self.sources)

    @property
    def line(self) -> str:
        """Returns the fact as the manager is shown it."""
        return f"{self.text} ({self.range})"


@dataclasses.dataclass(frozen=True)
class TemporalSystem:
    """Sizes: messages shown as context, neighbours of a fact, and facts for an answer."""

    name: str
    embed: Embed
    stage: AnswerStage
    memories: int = 20
    earlier: int = 4
    neighbours: int = 5
    shown: int = 20
    max_tokens: int = 1000
    model: str = "base"

    def start(self, speakers: tuple[str, str]) -> "TemporalStore":
        """Makes a store without facts."""
        return TemporalStore(self, speakers)


class TemporalStore:
    """The facts of one conversation, of both speakers together."""

    def __init__(self, system: TemporalSystem, speakers: tuple[str, str]):
        """Begins without facts."""
        self.counts: collections.Counter = collections.Counter()
        self._system = system
        self._call = functools.partial(management_call, system.max_tokens, system.model)
        self._read = functools.partial(read_counted, counts=self.counts)
        self._speakers = speakers
        self._facts: dict[int, TimedFact] = {}
        self._index = Bank()  # of the texts, under the ids of the facts
        self._words: Callable[[str], np.ndarray] | None = None  # BM25 over the index, if made
        self._before: tuple[Turn, ...] = ()  # the last turns of earlier sessions

    def ingest(self, session: Session) -> Steps[None]:
        """Takes facts from all messages at once, then stores them message after message."""
        new = spoken(session, self._speakers)
        if not new:
            return
        turns = [*self._before, *new]
        calls = []
        for place in range(len(self._before), len(turns)):
            earlier = turns[max(place - self._system.earlier, 0) : place]
            calls.append(self._call("temporal_facts", **_message(turns[place], session, earlier)))
        self._before = tuple(turns[max(len(turns) - self._system.earlier, 0) :])
        replies = yield calls
        for turn, reply in zip(new, replies, strict=True):
            facts = self._read_facts(reply, turn, session.time_of(turn))
            if facts:
                yield from self._store(facts)

    def _read_facts(self, reply: Reply, turn: Turn, when: str) -> list[TimedFact]:
        listed = self._read(reply, "facts", "temporal_facts").get("facts")
        facts = []
        for item in listed if isinstance(listed, list) else []:
            item = item if isinstance(item, dict) else {"fact": item}
            text, start, end = (line_of(item.get(x)) for x in ("fact", "valid_from", "valid_to"))
            if text in (fact.text for fact in facts):
                self.counts["duplicates"] += 1
            elif text:
                facts.append(TimedFact(text, when, start, end, (turn.dia_id,)))
            else:
                self.counts["skipped"] += 1
        self.counts["facts"] += len(facts)
        return facts

    def _store(self, facts: Sequence[TimedFact]) -> Steps[None]:
        """Lets the model compare new facts with the nearest stored ones, and stores the new."""
        texts = [fact.text for fact in facts]
        system = self._system
        ids = nearest_to_any(self._index, texts, system.neighbours, system.shown, system.embed)
        repeated: set[int] = set()
        if ids:
            stored = [self._facts[identity].line for identity in ids]
            call = self._call(
                "temporal_resolve",
                stored=_numbered(stored),
                new=_numbered([fact.line for fact in facts]),
            )
            reply = yield from ask(call)
            value = self._read(reply, "resolutions", "temporal_resolve").get("resolutions")
            for item in value if isinstance(value, list) else []:
                if not isinstance(item, dict):
                    self.counts["skipped"] += 1
                    continue
                for place in numbers(item.get("fact"), len(facts), self.counts):
                    if self._resolve(facts[place], ids, item):
                        repeated.add(place)
        new = [fact for place, fact in enumerate(facts) if place not in repeated]
        first, self._words = self._index.next_id, None
        memories = [fact.memory for fact in new]
        self._index = add(self._index, memories, self._system.embed)
        self._facts.update(zip(range(first, self._index.next_id), new, strict=True))
        self.counts["add"] += len(new)

    def _resolve(self, fact: TimedFact, ids: Sequence[int], item: dict) -> bool:
        """Ends what a new fact contradicts; tells whether a stored fact says the same."""
        same = numbers(item.get("duplicates"), len(ids), self.counts)
        for place in numbers(item.get("contradicts"), len(ids), self.counts):
            old = self._facts[ids[place]]
            if place not in same and not old.end:
                end = fact.start or fact.noted
                self._facts[ids[place]] = dataclasses.replace(old, end=end)
                self.counts["ended"] += 1
        if same:
            old = self._facts[ids[same[0]]]
            self._facts[ids[same[0]]] = dataclasses.replace(
                old,
                start=old.start or fact.start,
                end=old.end or fact.end,
                sources=tuple(dict.fromkeys(old.sources + fact.sources)),
            )
            self.counts["duplicates"] += 1
        return bool(same)

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from the facts that are nearest to the question, best first."""
        begin = time.perf_counter()
        ids = self._search(question.question)
        shown = [self._facts[identity].memory for identity in ids]
        seconds = time.perf_counter() - begin
        return ask_for_answer(
            self._system.stage, self._speakers, question, shown, search_seconds=seconds
        )

    def _search(self, query: str) -> list[int]:
        if self._words is None:
            self._words = bm25_scores([memory.text for memory in self._index.memories])
        scores = self._words(query)
        return fused(self._index, query, scores, self._system.memories, self._system.embed)

    def memories(self) -> Sequence[Memory]:
        """Returns all facts, also those that have ended."""
        return [fact.memory for fact in self._facts.values()]


def _message(turn: Turn, session: Session, earlier: Sequence[Turn]) -> dict:
    return {
        "time": session.time_of(turn),
        "speaker": turn.speaker,
        "text": turn.content,
        "earlier": [{"speaker": t.speaker, "text": t.content} for t in earlier],
    }


def _numbered(lines: Sequence[str]) -> list[dict[str, str]]:
    return [{"id": str(place), "text": line} for place, line in enumerate(lines)]

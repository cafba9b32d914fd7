"""MemoryOS (arXiv 2506.06326): short-term pages, mid-term segments, long-term knowledge.

Pages, a turn of the first speaker with the reply, wait in a short queue. One that leaves it is
compared with the page before (does it continue?), enters the running summary of its chain, and is
summarised by subject; a subject joins the segment that it resembles, or begins one. A segment with
many new pages is hot: a profile of the first speaker and knowledge about both are drawn from it.
For a question the best segments, and of their pages the best, are shown, with the nearest
knowledge, the profile, and what is still in the queue.

Unlike in the original, heat has no visits and no clock (see `Segment.heat`); pages have no
keywords of their own, which no search there uses; decoding is greedy; and the answer prompt is that
of all rows. The original's is a role-play with an example from the test questions.
"""

import collections
import dataclasses
import functools
import time
from collections.abc import Sequence

import numpy as np

from memr1_jax.bench.systems.amem import search_words
from memr1_jax.bench.systems.answer_stage import AnswerStage, ask_for_answer
from memr1_jax.bench.systems.extraction import spoken
from memr1_jax.bench.systems.loose_json import is_true, line_of, read_counted, texts
from memr1_jax.bench.systems.management_prompts import management_call
from memr1_jax.bench.systems.memoryos_parts import Page, Segment, joined, overlap, pages_of
from memr1_jax.bench.systems.protocol import Answer, Memory, Steps, ask
from memr1_jax.bench.systems.text_bank import Embed, top
from memr1_jax.data.types import Question, Session

_TOPICS = 2  # subjects of a page at most


@dataclasses.dataclass(frozen=True)
class MemoryOSSystem:
    """Sizes of MemoryOS, as in its paper but for the larger mid-term memory of its code.

    `keep_unpaired`: see `pages_of`. `keep_unsummarised` keeps a page whose summary cannot be read
    as a segment of its own; the original loses it, which is counted.
    """

    name: str
    embed: Embed
    stage: AnswerStage
    keep_unpaired: bool = False
    keep_unsummarised: bool = False
    queue: int = 7
    segments: int = 2000
    knowledge: int = 100
    similar: float = 0.6  # at least, for a subject to join a segment
    hot: float = 5.0
    segments_searched: int = 5
    pages_shown: int = 10
    knowledge_shown: int = 10
    least_score: float = 0.1  # of a page that is shown
    max_tokens: int = 1000
    model: str = "base"

    def start(self, speakers: tuple[str, str]) -> "MemoryOSStore":
        """Makes a store with three empty tiers."""
        return MemoryOSStore(self, speakers)


class MemoryOSStore:
    """The three tiers of one conversation."""

    def __init__(self, system: MemoryOSSystem, speakers: tuple[str, str]):
        """Creates three empty tiers."""
        self.counts: collections.Counter = collections.Counter()
        self._system = system
        self._call = functools.partial(management_call, system.max_tokens, system.model)
        self._read = functools.partial(read_counted, counts=self.counts)
        self._speakers = speakers
        self._queue: collections.deque[Page] = collections.deque()
        self._pages: dict[int, Page] = {}  # those that left the queue
        self._page_keys: dict[int, np.ndarray] = {}
        self._chain_of: dict[int, int] = {}
        self._summaries: dict[int, str] = {}  # of chains
        self._last: int | None = None  # the page that left the queue last
        self._segments: dict[int, Segment] = {}
        self._next_segment = 0
        self._knowledge: dict[str, list[tuple[Memory, np.ndarray]]] = {s: [] for s in speakers}
        self._profile: Memory | None = None
        self._session = 0

    def ingest(self, session: Session) -> Steps[None]:
        """Puts the pages of a session into the queue, and moves out what no longer fits."""
        self._session += 1
        turns = spoken(session, self._speakers)
        keep = self._system.keep_unpaired
        for page in pages_of(turns, self._speakers[0], session.time_of, keep, self.counts):
            while len(self._queue) >= self._system.queue:
                yield from self._move_on(self._queue.popleft())
            self._queue.append(page)

    def _move_on(self, page: Page) -> Steps[None]:
        """Moves a page from the queue to the mid-term tier."""
        before = self._pages[self._last] if self._last is not None else None
        calls = [self._call("topics", text=page.dated)]
        if before is not None:
            calls.append(
                self._call(
                    "continuity",
                    previous=before.text,
                    previous_time=before.time,
                    page=page.text,
                    time=page.time,
                )
            )
        replies = yield calls
        goes_on = False
        if before is not None:
            goes_on = is_true(self._read(replies[1], "continues", "continuity").get("continues"))
        new = len(self._pages)
        chain = self._chain_of[self._last] if goes_on else new
        self._pages[new], self._chain_of[new], self._last = page, chain, new
        self._page_keys[new] = self._system.embed([page.text])[0]
        self.counts["continued"] += goes_on

        so_far = self._summaries.get(chain, "")
        reply = yield from ask(self._call("chain_summary", summary=so_far, page=page.dated))
        value = self._read(reply, "summary", "chain_summary")
        self._summaries[chain] = line_of(value.get("summary")) or so_far

        topics = self._read(replies[0], "topics", "topics").get("topics")
        self._file_under(new, topics if isinstance(topics, list) else [])
        yield from self._draw_from_hottest()

    def _file_under(self, page: int, topics: list) -> None:
        """Puts a page into a segment for each of its subjects."""
        read = []
        for topic in topics[:_TOPICS]:
            summary = line_of(topic.get("summary")) if isinstance(topic, dict) else ""
            if summary:
                read.append((summary, _word_set(texts(topic.get("keywords")))))
            else:
                self.counts["skipped"] += 1
        if not read and self._system.keep_unsummarised:
            read = [(self._pages[page].text, frozenset())]
        if not read:
            self.counts["pages_lost"] += 1
        for summary, keywords in read:
            key = self._system.embed([summary])[0]
            best = self._best_segments(key, keywords, 1)
            if best and best[0][1] >= self._system.similar:
                identity = best[0][0]
                old = self._segments[identity]
                if page in old.pages:
                    continue
                self._segments[identity] = dataclasses.replace(
                    old,
                    pages=(*old.pages, page),
                    fresh=(*old.fresh, page),
                    latest=self._session,
                )
                self.counts["segments_joined"] += 1
            else:
                self._make_room()
                segment = Segment(summary, keywords, key, (page,), (page,), self._session)
                self._segments[self._next_segment] = segment
                self._next_segment += 1
                self.counts["segments"] += 1

    def _make_room(self) -> None:
        """Drops the coldest segment where there is no room for another."""
        if len(self._segments) >= self._system.segments:
            coldest = min(self._segments, key=lambda i: self._segments[i].heat(self._session))
            pages = set(self._segments.pop(coldest).pages)
            self.counts["segments_evicted"] += 1
            self.counts["pages_lost"] += len(pages - self._held())

    def _held(self) -> set[int]:
        return {page for segment in self._segments.values() for page in segment.pages}

    def _best_segments(
        self, key: np.ndarray, keywords: frozenset[str], k: int
    ) -> list[tuple[int, float]]:
        ids = list(self._segments)
        scores = np.array(
            [
                float(self._segments[i].key @ key) + overlap(self._segments[i].keywords, keywords)
                for i in ids
            ]
        )
        return [(ids[place], float(scores[place])) for place in top(scores, k)]

    def _draw_from_hottest(self) -> Steps[None]:
        """Draws profile and knowledge from the fresh pages of the hottest segment, if it is hot."""
        if not self._segments:
            return
        hottest = max(self._segments, key=lambda i: self._segments[i].heat(self._session))
        segment = self._segments[hottest]
        if not segment.fresh or segment.heat(self._session) < self._system.hot:
            return
        pages = [self._pages[page] for page in segment.fresh]
        self._segments[hottest] = dataclasses.replace(segment, fresh=())
        self.counts["drawn"] += 1
        first, second = self._speakers
        lines = [{"time": page.time, "text": page.text} for page in pages]
        replies = yield [
            self._call("profile", person=first, pages=lines),
            self._call("knowledge", first=first, second=second, pages=lines),
        ]
        value = self._read(replies[1], "first", "knowledge")
        for speaker, key in zip(self._speakers, ("first", "second"), strict=True):
            self._learn(speaker, [joined(pages, text, speaker) for text in texts(value.get(key))])
        new = line_of(self._read(replies[0], "profile", "profile").get("profile"))
        if not new:
            return
        profile = joined(pages, new, first)
        if self._profile is not None:
            call = self._call("profile_merge", person=first, old=self._profile.text, new=new)
            reply = yield from ask(call)
            value = self._read(reply, "profile", "profile_merge")
            # A reply that cannot be read must not cost the old profile, nor the new one.
            text = line_of(value.get("profile")) or f"{self._profile.text} {new}"
            sources = tuple(dict.fromkeys(self._profile.sources + profile.sources))
            profile = Memory(text, profile.time, first, sources)
        self._profile = profile

    def _learn(self, speaker: str, memories: Sequence[Memory]) -> None:
        """Appends knowledge; the oldest beyond the limit is dropped and counted."""
        if memories:
            keys = self._system.embed([memory.text for memory in memories])
            self._knowledge[speaker] += zip(memories, keys, strict=True)
            over = max(len(self._knowledge[speaker]) - self._system.knowledge, 0)
            del self._knowledge[speaker][:over]
            self.counts["knowledge"] += len(memories)
            self.counts["knowledge_dropped"] += over

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from profile, pages and knowledge, best first, and then what is in the queue."""
        keywords = yield from search_words(
            question.question, self._system.max_tokens, self._system.model, self.counts
        )
        begin = time.perf_counter()
        key = self._system.embed([question.question])[0]
        found = self._best_segments(
            key, _word_set(keywords.split(", ")), self._system.segments_searched
        )
        pages = dict.fromkeys(page for i, _ in found for page in self._segments[i].pages)
        scored = [(float(self._page_keys[page] @ key), self._page_memory(page)) for page in pages]
        scored = [pair for pair in scored if pair[0] >= self._system.least_score]
        known = [
            (float(vector @ key), memory)
            for entries in self._knowledge.values()
            for memory, vector in entries
        ]
        chosen = _best(scored, self._system.pages_shown)
        chosen = _best([*chosen, *_best(known, self._system.knowledge_shown)], None)
        seconds = time.perf_counter() - begin
        shown = [self._profile] if self._profile is not None else []
        shown += [memory for _, memory in chosen] + self._queued()
        return (
            yield from ask_for_answer(
                self._system.stage, self._speakers, question, shown, search_seconds=seconds
            )
        )

    def memories(self) -> Sequence[Memory]:
        """Returns what the three tiers hold."""
        held = sorted(self._held())
        known = [memory for entries in self._knowledge.values() for memory, _ in entries]
        profile = [self._profile] if self._profile is not None else []
        return [*profile, *known, *[self._page_memory(page) for page in held], *self._queued()]

    def _queued(self) -> list[Memory]:
        return [Memory(page.text, page.time, "", page.sources) for page in self._queue]

    def _page_memory(self, page: int) -> Memory:
        """Returns a page with its chain's summary; nobody owns it, since both speak."""
        summary = self._summaries[self._chain_of[page]]
        text = self._pages[page].text + (f" (context: {summary})" if summary else "")
        return Memory(text, self._pages[page].time, "", self._pages[page].sources)


def _best(scored: Sequence[tuple[float, Memory]], k: int | None) -> list[tuple[float, Memory]]:
    return sorted(scored, key=lambda pair: -pair[0])[:k]


def _word_set(keywords: Sequence[str]) -> frozenset[str]:
    return frozenset(word.lower() for word in keywords)

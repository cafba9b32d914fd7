"""Scores what a system did to its memories against the gold operations of a dialogue.

A memory is identified by the turns that it came from, so every system that keeps them is scored, in
whatever words it remembers; the words decide between facts of the same turns. Operations are net
changes of a session: a memory that is written and taken back within one session is not counted.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from memr1_jax.bench.scoring import ADVERSARIAL
from memr1_jax.bench.systems.protocol import Memory
from memr1_jax.data.tuples import facts_before
from memr1_jax.data.types import Conversation, GoldOperation, Question, Session
from memr1_jax.evals.metrics import exact_match, f1_locomo_official, f1_squad
from memr1_jax.text.events import Event
from memr1_jax.text.normalize import normalize_text

_CASCADE = "cascade"
_SCORED = tuple(event for event in Event if event is not Event.NONE)


@dataclasses.dataclass(frozen=True)
class Change:
    """Describes a memory that came, was rewritten or went; a missing side is None."""

    event: Event
    before: Memory | None
    after: Memory | None


def changes(before: Sequence[Memory], after: Sequence[Memory]) -> list[Change]:
    """Finds what became of memories between two looks at them.

    A new memory with all the turns of one that is gone is that one rewritten; with the same text it
    has only gained turns, which is no change.
    """
    gone = list((collections.Counter(before) - collections.Counter(after)).elements())
    found = []
    for memory in (collections.Counter(after) - collections.Counter(before)).elements():
        heirs = [old for old in gone if old.sources and set(old.sources) <= set(memory.sources)]
        if not heirs:
            found.append(Change(Event.ADD, None, memory))
            continue
        old = max(heirs, key=lambda old: len(old.sources))
        gone.remove(old)
        if old.text != memory.text:
            found.append(Change(Event.UPDATE, old, memory))
    return found + [Change(Event.DELETE, memory, None) for memory in gone]


class OperationScorer:
    """Counts what a system does to its memories in one dialogue with gold operations.

    `counts` has for each event what was `made`, `gold` and `right` (the same event for the same
    fact and, for UPDATE and DELETE, on the memory of the fact that it replaces), `wrong_deletes`
    (facts that hold and whose memory went or was overwritten) and, of the memories at the end,
    `held`, `stale` (the fact in it holds no longer), `duplicates` (repetitions of a fact,
    and equal texts) and `missing` (facts that hold and are in none).
    """

    def __init__(self, conversation: Conversation):
        """Begins with no memories."""
        self.counts: collections.Counter = collections.Counter()
        self._conversation = conversation
        self._read = 0  # turns
        self._held: tuple[Memory, ...] = ()
        self._facts: dict[str, list[int]] = collections.defaultdict(list)  # by turn
        for index, fact in enumerate(conversation.facts):
            for turn in fact.sources:
                self._facts[turn].append(index)
        self._events = {operation.fact: operation.event for operation in conversation.operations}

    def look(self, session: Session, memories: Sequence[Memory]) -> None:
        """Compares the memories after a session, or a part of one, with those before."""
        turns = {turn.dia_id for turn in session.turns}
        self._read += len(turns)
        made = changes(self._held, memories)
        self._held = tuple(memories)
        facts = self._conversation.facts
        left = collections.defaultdict(list)
        for change in made:
            left[change.event].append(change)
            self.counts[f"{change.event.key}_made"] += 1
        for operation in self._conversation.operations:
            fact = facts[operation.fact]
            if fact.sources[-1] not in turns or operation.event not in _SCORED:
                continue
            self.counts[f"{operation.event.key}_gold"] += 1
            fits = [change for change in left[operation.event] if self._fits(change, operation)]
            if fits:
                best = max(fits, key=lambda c: f1_squad(_text(c), fact.text))
                left[operation.event].remove(best)
                self.counts[f"{operation.event.key}_right"] += 1
        live = set(facts_before(self._conversation, self._read))
        for change in made:
            if change.before is None:
                continue
            stated = self._stated(change.before)
            if stated is not None and facts[stated] in live and not self._repeats(change):
                self.counts["wrong_deletes"] += 1

    def finish(self) -> collections.Counter:
        """Counts what is wrong with the memories that are held at the end; returns all counts."""
        conversation, counts = self._conversation, self.counts
        live = set(facts_before(conversation, self._read))
        counts["held"] += len(self._held)
        texts = collections.Counter((memory.owner, memory.text) for memory in self._held)
        counts["duplicates"] += sum(number - 1 for number in texts.values())
        for memory in self._held:
            told = self._told(memory)
            stated = self._stated(memory)
            if told and all(self._events.get(index) == Event.NONE for index in told):
                counts["duplicates"] += texts[memory.owner, memory.text] == 1
            elif stated is not None:
                counts["stale"] += conversation.facts[stated] not in live
        known = {turn for memory in self._held for turn in memory.sources}
        counts["missing"] += sum(known.isdisjoint(fact.sources) for fact in live)
        return counts

    def _fits(self, change: Change, operation: GoldOperation) -> bool:
        """Tells whether a change of the right event stores the fact, and on the right memory."""
        told = self._conversation.facts[operation.fact].sources
        stores = change.after is None or not set(told).isdisjoint(change.after.sources)
        old = operation.replaces
        return stores and (old is None or self._stated(change.before) == old)

    def _told(self, memory: Memory) -> list[int]:
        """Lists the facts of a memory's turns, in dialogue order."""
        found = {index for turn in memory.sources for index in self._facts.get(turn, ())}
        return sorted(found)

    def _stated(self, memory: Memory) -> int | None:
        """Finds the fact that a memory states; None if it tells of none, or that one ended.

        Of the facts of its turns that is the one with most words in common, of equals the newest.
        """
        facts = self._conversation.facts
        told = [index for index in self._told(memory) if self._events.get(index) != Event.NONE]
        best = max(told, key=lambda i: (f1_squad(memory.text, facts[i].text), i), default=None)
        return None if best is None or self._events.get(best) == Event.DELETE else best

    def _repeats(self, change: Change) -> bool:
        """Tells whether a memory was rewritten with the words of a repetition alone."""
        if change.after is None:
            return False
        new = [turn for turn in change.after.sources if turn not in change.before.sources]
        told = [index for turn in new for index in self._facts.get(turn, ())]
        return bool(told) and all(self._events.get(index) == Event.NONE for index in told)


def _text(change: Change) -> str:
    return (change.after or change.before).text


def question_counts(question: Question, answer: str) -> collections.Counter:
    """Counts one answer among those on changed facts, dependent facts, and what was never said."""
    counts: collections.Counter = collections.Counter()
    if question.outdated:
        counts["changed_asked"] += 1
        counts["changed_stale"] += any(_names(answer, old) for old in question.outdated)
    if question.kind == _CASCADE:
        counts["cascade_asked"] += 1
        counts["cascade_right"] += int(exact_match(answer, question.answer))
    if question.category == ADVERSARIAL:
        counts["absence_asked"] += 1
        counts["absence_right"] += int(f1_locomo_official(answer, "", ADVERSARIAL))
    return counts


def _names(answer: str, value: str) -> bool:
    words = f" {normalize_text(answer)} "
    return f" {normalize_text(value)} " in words


_ASKED = ("changed", "cascade", "absence")
# Shares by name: the counts of the part and of the whole.
_SHARES = {
    **{f"{e.key}_precision": (f"{e.key}_right", f"{e.key}_made") for e in _SCORED},
    **{f"{e.key}_recall": (f"{e.key}_right", f"{e.key}_gold") for e in _SCORED},
    "stale": ("stale", "held"),
    "duplicates": ("duplicates", "held"),
    "stale_answers": ("changed_stale", "changed_asked"),
    "cascade": ("cascade_right", "cascade_asked"),
    "absence": ("absence_right", "absence_asked"),
}


def operation_scores(counts: Mapping[str, int]) -> dict[str, float | int | None]:
    """Computes shares from the counts of dialogues; None where there is nothing to divide by.

    Precision is the share of the operations made that are right, recall that of the gold ones;
    `stale` and `duplicates` are shares of the memories held at the end, `stale_answers` of the
    questions about what has changed; `missing` and `wrong_deletes` are counts, and None where no
    memories were looked at.
    """
    found = {
        name: counts.get(part, 0) / counts[whole] if counts.get(whole) else None
        for name, (part, whole) in _SHARES.items()
    }
    looked = "held" in counts
    return found | {n: counts.get(n, 0) if looked else None for n in ("missing", "wrong_deletes")}


def of_answers(counts: Mapping[str, int]) -> dict[str, int]:
    """Keeps the counts of answers alone, for rows that make no operations."""
    return {name: n for name, n in counts.items() if name.partition("_")[0] in _ASKED}

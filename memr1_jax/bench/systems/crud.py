"""Facts, a manager that edits a bank, and the nearest memories for an answer.

This is the pipeline of Mem0 (arXiv 2504.19413), which is also that of Memory-R1 (arXiv 2508.19828,
Algorithms 3 and 4) with untrained agents: rows of this family differ only in the fact source, the
manager or the weights. Both speakers have a bank; the streams of the two advance side by side. The
manager sees no times, scores or turns, as in the originals; memories that it stores have
the time of the turn.
"""

import collections
import dataclasses
from collections.abc import Sequence

from memr1_jax.bench.systems.answer_stage import AnswerStage
from memr1_jax.bench.systems.extraction import FactSource, arrivals
from memr1_jax.bench.systems.managers import Manager
from memr1_jax.bench.systems.protocol import Answer, Memory, Steps, side_by_side
from memr1_jax.bench.systems.speaker_banks import all_memories, answer_from_banks
from memr1_jax.bench.systems.text_bank import Bank, Embed
from memr1_jax.data.types import Question, Session


@dataclasses.dataclass(frozen=True)
class CrudSystem:
    """A bank a speaker, edited by `manager`; `memories` of each speaker are shown for an answer.

    `facts_per_call` splits groups of facts that are longer; 0 leaves them whole.
    """

    name: str
    facts: FactSource
    manager: Manager
    embed: Embed
    stage: AnswerStage
    memories: int = 30
    facts_per_call: int = 0

    def start(self, speakers: tuple[str, str]) -> "CrudStore":
        """Makes a store with two empty banks."""
        return CrudStore(self, speakers)


class CrudStore:
    """The banks of one conversation."""

    def __init__(self, system: CrudSystem, speakers: tuple[str, str]):
        """Creates empty banks for the two speakers."""
        self.counts: collections.Counter = collections.Counter()
        self._system = system
        self._speakers = speakers
        self._banks = {speaker: Bank() for speaker in speakers}

    def ingest(self, session: Session) -> Steps[None]:
        """Finds the facts of a session and has them managed, both speakers at once."""
        facts = yield from self._system.facts(session, self._speakers, self.counts)
        banks = yield from side_by_side(
            [self._stream(speaker, facts, session) for speaker in self._speakers]
        )
        self._banks = dict(zip(self._speakers, banks, strict=True))

    def _stream(self, speaker, facts, session: Session) -> Steps[Bank]:
        bank = self._banks[speaker]
        times = {turn.dia_id: session.time_of(turn) for turn in session.turns}
        for group in arrivals(facts, speaker):
            when = times[group[0].sources[-1]]
            size = self._system.facts_per_call or len(group)
            for start in range(0, len(group), size):
                part = group[start : start + size]
                bank = yield from self._system.manager(bank, part, when, self.counts)
        return bank

    def answer(self, question: Question) -> Steps[Answer]:
        """Answers from the nearest memories of both speakers, best first."""
        system = self._system
        return answer_from_banks(
            system.stage, self._speakers, question, self._banks, system.memories, system.embed
        )

    def memories(self) -> Sequence[Memory]:
        """Returns all memories of both speakers."""
        return all_memories(self._banks)

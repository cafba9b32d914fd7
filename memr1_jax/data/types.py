"""Records of a dialogue, its questions and its facts for the rest of the project.

All benchmarks become `Conversation`s. An evaluation walks through its `stages`: it reads their
sessions one after another and asks each stage's questions before it continues. It hands a memory
only sessions. Questions and what belongs to them (answers, evidence, options) are not part of a
session; `facts` are annotations, fit for training and for rows that say that they use them.
"""

import dataclasses
import functools
from collections.abc import Iterator

from memr1_jax.data.notes import Note
from memr1_jax.text.events import Event


@dataclasses.dataclass(frozen=True)
class Turn:
    """One utterance; `caption` describes the image that was shared with it, if any.

    The speaker is one of the conversation's two, or "system" where a data set has such messages
    and the loader was asked to keep them. `time` is empty unless the turn has one of its own.
    """

    speaker: str
    text: str
    dia_id: str
    caption: str | None = None
    time: str = ""

    @property
    def content(self) -> str:
        """The text, with the caption of a shared image in brackets."""
        return f"{self.text} [shared: {self.caption}]" if self.caption else self.text


@dataclasses.dataclass(frozen=True)
class Session:
    """Turns of one sitting; `time` is as the data set writes it, empty if it has none.

    LoCoMo writes "1:56 pm on 8 May, 2023", LongMemEval "2023/05/20 (Sat) 02:21", MSC "7 days 8
    hours ago", counted from the question.
    """

    number: int
    time: str
    turns: tuple[Turn, ...]

    def time_of(self, turn: Turn) -> str:
        """Returns when one of its turns was said: the turn's own time, or else the session's."""
        return turn.time or self.time


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with its gold answer.

    Attributes:
      question: what is asked.
      answer: the gold answer; for a multiple-choice question its label, as in "(c)"; empty where
        there is none.
      category: LoCoMo's number, 1 to 5; 0 in other data sets.
      evidence: ids of existing turns in dialogue order, so the last one is the latest.
      index: the position in the file's own list, which published audits of the data refer to.
      id: what the data set or its audits call the question.
      kind: its type as the data set names it.
      time: when it is asked, as the data set writes it; empty if unknown.
      options: the choices of a multiple-choice question, labels included.
      abstain: whether the right answer is that the dialogue does not say.
      after: how many of the conversation's turns precede the question, and may be used to answer
        it; None for all of them. See `Conversation.stages`.
      evidence_sessions: numbers of the sessions that the data set marks as evidence.
      distractor: a wrong answer that an adversarial question invites. It is never the gold.
      corrected: the answer according to an audit, where that differs from `answer`.
      doubt: what the audit objects to, as it names it; empty where it agrees.
      outdated: answers that were right once and no longer are, the latest last.
      accepted: further right answers.
      rubric: what an answer must say or do, each judged by itself; empty where the gold is enough.
    """

    question: str
    answer: str
    category: int
    evidence: tuple[str, ...]
    index: int
    id: str = ""
    kind: str = ""
    time: str = ""
    options: tuple[str, ...] = ()
    abstain: bool = False
    after: int | None = None
    evidence_sessions: tuple[int, ...] = ()
    distractor: str = ""
    corrected: str | None = None
    doubt: str = ""
    outdated: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    rubric: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fact:
    """One statement about a speaker, with the ids of the turns it was drawn from in order."""

    speaker: str
    text: str
    session: int
    sources: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GoldOperation:
    """The right memory operation for one fact; only generated dialogues have them.

    `fact` is the position in `Conversation.facts` of the fact that arrives, `replaces` that of the
    fact whose entry an UPDATE rewrites or a DELETE removes. `text` is what the entry says
    afterwards; it is empty for DELETE and NONE.
    """

    event: Event
    fact: int
    text: str = ""
    replaces: int | None = None


@dataclasses.dataclass(frozen=True)
class Stage:
    """The next sessions to read, and the questions that are asked once they have been read."""

    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Two people's dialogue over many sessions, or a user's with an assistant.

    Attributes:
      id: unique in its data set.
      speakers: both of them, or ("user", "assistant").
      sessions: in the order in which they took place.
      questions: in the order of the file.
      facts: in the order of the turns they belong to.
      operations: only of generated dialogues.
      one_bank: whether one memory holds what both sides say, as in a chat of a user with an
        assistant. Otherwise each speaker has a memory of their own.
      split: the part of the data set it belongs to, where the file itself says so.
      source: the data set it comes from, where a run mixes several.
      copy: 0 for a conversation as it was read, else the number of an altered copy.
      sessions_read: 0, or how many sessions the stage of a curriculum reads that it belongs to.
      notes: what the reader left out or changed, such as evidence that names no turn.
    """

    id: str
    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]
    facts: tuple[Fact, ...]
    operations: tuple[GoldOperation, ...] = ()
    one_bank: bool = False
    split: str = ""
    source: str = ""
    copy: int = 0
    sessions_read: int = 0
    notes: tuple[Note, ...] = dataclasses.field(default=(), compare=False)

    @property
    def owners(self) -> tuple[str, ...]:
        """Names who has a memory: both speakers, or with `one_bank` the first alone."""
        return self.speakers[:1] if self.one_bank else self.speakers

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The dialogue in parts, each with the questions that follow it: read, ask, continue.

        Most data sets ask everything at the end, in one stage. Where `Question.after` falls inside
        a session, the session is cut there; its parts keep its number and time. Turns after the
        last question are left out.
        """
        whole = len(self.turns)
        asked: dict[int, list[Question]] = {}
        for question in self.questions:
            asked.setdefault(whole if question.after is None else question.after, []).append(
                question
            )
        stages, start = [], 0
        for place in sorted(asked):
            stages.append(Stage(tuple(self._between(start, place)), tuple(asked[place])))
            start = place
        return tuple(stages)

    def _between(self, start: int, stop: int) -> Iterator[Session]:
        """Yields the parts of sessions within turns `start` to `stop`."""
        position = 0
        for session in self.sessions:
            turns = session.turns[max(0, start - position) : max(0, stop - position)]
            position += len(session.turns)
            if turns:
                yield dataclasses.replace(session, turns=turns)

    @functools.cached_property
    def turns(self) -> tuple[Turn, ...]:
        """All turns in dialogue order, across sessions."""
        return tuple(turn for session in self.sessions for turn in session.turns)

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """The position of each turn id in `turns`."""
        return {turn.dia_id: position for position, turn in enumerate(self.turns)}

    @functools.cached_property
    def dates(self) -> tuple[str, ...]:
        """Lists when something was said, in order: each session's time, and those of turns."""
        return tuple(time for _, time in self._dated[0])

    @functools.cached_property
    def date_of_turn(self) -> tuple[int, ...]:
        """The place in `dates` of each turn."""
        return self._dated[1]

    @functools.cached_property
    def _dated(self) -> tuple[dict[tuple[int, str], int], tuple[int, ...]]:
        places: dict[tuple[int, str], int] = {}
        turns = []
        for session in self.sessions:
            places.setdefault((session.number, session.time), len(places))
            for turn in session.turns:
                date = session.number, session.time_of(turn)
                turns.append(places.setdefault(date, len(places)))
        return places, tuple(turns)

    @functools.cached_property
    def times(self) -> dict[int, str]:
        """The time of each session by its number."""
        return {session.number: session.time for session in self.sessions}

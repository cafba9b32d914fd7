"""What a dialogue, its questions and its facts look like to the rest of the project."""

import dataclasses
import functools

from memr1_jax.text.events import Event


@dataclasses.dataclass(frozen=True)
class Turn:
    """One utterance; `caption` describes the image that was shared with it, if any."""

    speaker: str
    text: str
    dia_id: str
    caption: str | None = None

    @property
    def content(self) -> str:
        """The text, with the caption of a shared image in brackets."""
        return f"{self.text} [shared: {self.caption}]" if self.caption else self.text


@dataclasses.dataclass(frozen=True)
class Session:
    """Turns of one sitting; `time` reads like "1:56 pm on 8 May, 2023"."""

    number: int
    time: str
    turns: tuple[Turn, ...]


@dataclasses.dataclass(frozen=True)
class Question:
    """A question with its gold answer.

    `evidence` holds the ids of existing turns in dialogue order, so the last one is the latest.
    `index` is the position in the file's own list, which published audits of the data refer to.
    """

    question: str
    answer: str
    category: int
    evidence: tuple[str, ...]
    index: int


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
class Conversation:
    """Two people's dialogue over many sessions.

    `facts` stand in the order of the turns they belong to. `irregular` lists the raw evidence and
    source strings that were not exactly one existing turn id; they were resolved as far as
    possible.
    """

    id: str
    speakers: tuple[str, str]
    sessions: tuple[Session, ...]
    questions: tuple[Question, ...]
    facts: tuple[Fact, ...]
    operations: tuple[GoldOperation, ...] = ()
    irregular: tuple[str, ...] = ()

    @functools.cached_property
    def turns(self) -> tuple[Turn, ...]:
        """All turns in dialogue order, across sessions."""
        return tuple(turn for session in self.sessions for turn in session.turns)

    @functools.cached_property
    def positions(self) -> dict[str, int]:
        """The position of each turn id in `turns`."""
        return {turn.dia_id: position for position, turn in enumerate(self.turns)}

    @functools.cached_property
    def times(self) -> dict[int, str]:
        """The time of each session by its number."""
        return {session.number: session.time for session in self.sessions}

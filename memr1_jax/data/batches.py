"""Batches as fixed-shape arrays, and the resident data they are picked from by row number.

The whole data set stays on the device; each step sends it only a list of row numbers.

Axis letters: B rows of a batch, C conversations, F facts of a turn, W tokens of a text, M slots of
a bank, n questions of a turn, U turns of evidence, S dates; T turns of an episode, with N
questions at its end.
"""

from collections.abc import Iterator

import jax
import numpy as np
from flax import struct

from memr1_jax.memory.bank import MemoryBank
from memr1_jax.text.normalize import Words


def row_batches(rows: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields row numbers and valid-row masks, each `[batch]`; the last row fills the last batch."""
    for start in range(0, rows, batch):
        index = np.arange(start, start + batch)
        yield np.minimum(index, rows - 1).astype(np.int32), index < rows


@struct.dataclass
class Scene:
    """The names and dates of one conversation, as tokens.

    `names` `[2, W]`, `name_length` `[2]`; `times` `[S, W]`, `time_length` `[S]`, those of
    `Conversation.dates`; banks refer to them by index.
    """

    names: jax.Array
    name_length: jax.Array
    times: jax.Array
    time_length: jax.Array


@struct.dataclass
class Query:
    """A question: `tokens` `[W]`, `length`; and its gold answer, in words and in tokens `[W]`.

    `evidence` `[U]`: the turns that its answer rests on, as memories name their source; -1 beyond.
    `outdated` `[U]`: likewise those of what the evidence has replaced. None where no reward asks
    for them.
    """

    tokens: jax.Array
    length: jax.Array
    gold: Words
    gold_tokens: jax.Array
    gold_length: jax.Array
    evidence: jax.Array | None = None
    outdated: jax.Array | None = None


@struct.dataclass
class Facts:
    """The new facts of one turn: `tokens` `[F, W]`, `length` `[F]` (0 for none).

    `time` is the index of the turn's date, `source` the turn's position.
    """

    tokens: jax.Array
    length: jax.Array
    time: jax.Array
    source: jax.Array


@struct.dataclass
class AnswerBatch:
    """Questions with the two banks to search: leaves `[B, ...]`; `valid` `[B]` marks padding."""

    banks: tuple[MemoryBank, MemoryBank]
    scene: Scene
    query: Query
    valid: jax.Array


@struct.dataclass
class ManagerBatch:
    """Turns with the bank to edit, the other speaker's bank, and the questions that will judge.

    Leaves `[B, ...]`; `queries` `[B, n, ...]` with `asked` `[B, n]`; `speaker` `[B]` is 0 or 1.
    `late` `[B, M]` marks dead slots of `own` whose memories join it after the edits, before the
    questions are asked; None: there are none.
    """

    own: MemoryBank
    other: MemoryBank
    speaker: jax.Array
    scene: Scene
    facts: Facts
    queries: Query
    asked: jax.Array
    valid: jax.Array
    late: jax.Array | None = None

    def when_asked(self, edited: MemoryBank) -> MemoryBank:
        """Returns edited banks `[B, G, M, ...]` with what has joined them by then."""
        if self.late is None:
            return edited
        return edited.replace(alive=edited.alive | self.late[:, None])


@struct.dataclass
class AnswerData:
    """Questions `[rows, ...]` on `conversation` `[rows]`, whose banks and scenes are `[C, ...]`."""

    banks: tuple[MemoryBank, MemoryBank]
    scene: Scene
    query: Query
    conversation: jax.Array

    @property
    def rows(self) -> int:
        """Number of questions."""
        return self.conversation.shape[0]

    def select(self, rows: jax.Array, valid: jax.Array) -> AnswerBatch:
        """Returns the batch of questions `rows` `[B]`; those outside `valid` `[B]` are padding."""
        conversation = self.conversation[rows]
        banks, scene = jax.tree.map(lambda x: x[conversation], (self.banks, self.scene))
        query = jax.tree.map(lambda x: x[rows], self.query)
        return AnswerBatch(banks, scene, query, valid)


@struct.dataclass
class ManagerData:
    """Turns `[rows, ...]` of `conversation` `[rows]`, whose scenes are `[C, ...]`.

    The other fields are those of a `ManagerBatch`.
    """

    own: MemoryBank
    other: MemoryBank
    speaker: jax.Array
    facts: Facts
    queries: Query
    asked: jax.Array
    scene: Scene
    conversation: jax.Array
    late: jax.Array | None = None

    @property
    def rows(self) -> int:
        """Number of turns."""
        return self.conversation.shape[0]

    def select(self, rows: jax.Array, valid: jax.Array) -> ManagerBatch:
        """Returns the batch of turns `rows` `[B]`; those outside `valid` `[B]` are padding."""
        scene = jax.tree.map(lambda x: x[self.conversation[rows]], self.scene)
        picked = jax.tree.map(
            lambda x: x[rows],
            (self.own, self.other, self.speaker, self.facts, self.queries, self.asked, self.late),
        )
        own, other, speaker, facts, queries, asked, late = picked
        return ManagerBatch(own, other, speaker, scene, facts, queries, asked, valid, late)


@struct.dataclass
class EpisodeTurns:
    """The turns of episodes, leaves `[B, T, ...]`: those outside `present` `[B, T]` are padding.

    The other fields are those of a `ManagerBatch`.
    """

    present: jax.Array
    speaker: jax.Array
    facts: Facts
    queries: Query
    asked: jax.Array


@struct.dataclass
class EpisodeBatch:
    """Episodes: both speakers' banks before them, their turns, and the questions at their end.

    Leaves `[B, ...]`; `queries` `[B, N, ...]` with `asked` `[B, N]`; `due` `[B, N]` is the turn of
    the episode after which a question can be answered; `valid` `[B]` marks padding.
    """

    banks: tuple[MemoryBank, MemoryBank]
    scene: Scene
    turns: EpisodeTurns
    queries: Query
    asked: jax.Array
    due: jax.Array
    valid: jax.Array


@struct.dataclass
class EpisodeData:
    """Episodes `[rows, ...]` of `conversation` `[rows]`, whose scenes are `[C, ...]`.

    The other fields are those of an `EpisodeBatch`.
    """

    banks: tuple[MemoryBank, MemoryBank]
    turns: EpisodeTurns
    queries: Query
    asked: jax.Array
    due: jax.Array
    scene: Scene
    conversation: jax.Array

    @property
    def rows(self) -> int:
        """Number of episodes."""
        return self.conversation.shape[0]

    def select(self, rows: jax.Array, valid: jax.Array) -> EpisodeBatch:
        """Returns the batch of episodes `rows` `[B]`; those outside `valid` `[B]` are padding."""
        scene = jax.tree.map(lambda x: x[self.conversation[rows]], self.scene)
        banks, *rest = jax.tree.map(
            lambda x: x[rows], (self.banks, self.turns, self.queries, self.asked, self.due)
        )
        return EpisodeBatch(banks, scene, *rest, valid)

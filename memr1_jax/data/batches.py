"""Batches as fixed-shape arrays, and the resident data that they are picked from by row number.

A data set lies on the device as a whole; what travels to it at each step is a list of row numbers.

Axis letters: B rows of a batch, C conversations, F facts of a turn, W tokens of a text, M slots of
a bank, n questions of a turn, S sessions.
"""

import jax
from flax import struct

from memr1_jax.memory.bank import MemoryBank
from memr1_jax.text.normalize import Words


@struct.dataclass
class Scene:
    """The names and dates of one conversation, as tokens.

    `names` `[2, W]`, `name_length` `[2]`; `times` `[S, W]`, `time_length` `[S]`, one time stamp a
    session; banks refer to them by index.
    """

    names: jax.Array
    name_length: jax.Array
    times: jax.Array
    time_length: jax.Array


@struct.dataclass
class Query:
    """A question: `tokens` `[W]`, `length`; and its gold answer, in words and in tokens `[W]`."""

    tokens: jax.Array
    length: jax.Array
    gold: Words
    gold_tokens: jax.Array
    gold_length: jax.Array


@struct.dataclass
class Facts:
    """The new facts of one turn: `tokens` `[F, W]`, `length` `[F]` (0 for none).

    `time` is the index of the session's time stamp, `source` the dialogue turn.
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
    """

    own: MemoryBank
    other: MemoryBank
    speaker: jax.Array
    scene: Scene
    facts: Facts
    queries: Query
    asked: jax.Array
    valid: jax.Array


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
        """The batch of questions `rows` `[B]`, of which those outside `valid` `[B]` are padding."""
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

    @property
    def rows(self) -> int:
        """Number of turns."""
        return self.conversation.shape[0]

    def select(self, rows: jax.Array, valid: jax.Array) -> ManagerBatch:
        """The batch of turns `rows` `[B]`, of which those outside `valid` `[B]` are padding."""
        scene = jax.tree.map(lambda x: x[self.conversation[rows]], self.scene)
        picked = jax.tree.map(
            lambda x: x[rows],
            (self.own, self.other, self.speaker, self.facts, self.queries, self.asked),
        )
        own, other, speaker, facts, queries, asked = picked
        return ManagerBatch(own, other, speaker, scene, facts, queries, asked, valid)

"""What both agents need besides weights: the tokenizer and the embedder as arrays.

Axis letters: V vocabulary, W tokens of a memory.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memr1_jax.memory.embedder import Embedder
from memr1_jax.text.byte_table import ByteTable, build_byte_table
from memr1_jax.text.grammar import Grammar
from memr1_jax.text.json_scanner import ScannerTables
from memr1_jax.text.normalize import UnicodeTables, unicode_tables


@struct.dataclass
class Tools:
    """Arrays that are passed through every compiled program (never closed over: they are large)."""

    embedder: Embedder
    byte_table: ByteTable
    unicode: UnicodeTables
    scanner: ScannerTables | None  # of the manager's output schema
    grammar: Grammar | None  # only where the manager's decoding is constrained
    opening: jax.Array  # [V] the form of each token that opens a word in running text


@struct.dataclass
class Scene:
    """The names and dates of one conversation, as tokens.

    `names` `[2, Wn]`, `name_length` `[2]`; `times` `[S, Wt]`, `time_length` `[S]`, one time stamp a
    session; banks refer to them by index.
    """

    names: jax.Array
    name_length: jax.Array
    times: jax.Array
    time_length: jax.Array


def create_tools(tokenizer, vocab_size: int, embedder: Embedder, *, scanner=None, grammar=None):
    """Tools of a tokenizer; see `Tools`."""
    table = build_byte_table(tokenizer, vocab_size)
    return Tools(
        embedder=embedder,
        byte_table=jax.tree.map(jnp.asarray, table),
        unicode=jax.tree.map(jnp.asarray, unicode_tables()),
        scanner=jax.tree.map(jnp.asarray, scanner),
        grammar=jax.tree.map(jnp.asarray, grammar),
        opening=jnp.asarray(_opening_tokens(table)),
    )


def _opening_tokens(table: ByteTable) -> np.ndarray:
    """For each token, the token with one more space in front, or itself where there is none.

    Memories are kept in the form that they have after a colon or a dash, with a leading space; the
    text that a manager writes begins right after a quote.
    """
    spelling = [
        bytes(row[:length]) for row, length in zip(table.bytes, table.length, strict=True)
    ]
    known = {text: token for token, text in reversed(list(enumerate(spelling))) if text}
    return np.array(
        [known.get(b" " + text, token) if text else token for token, text in enumerate(spelling)],
        np.int32,
    )

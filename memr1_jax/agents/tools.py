"""Arrays that both agents need besides weights: the tokenizer and the embedder.

Axis letters: V vocabulary, W tokens of a memory.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memr1_jax.memory.embedder import Embedder
from memr1_jax.text.byte_table import ByteTable
from memr1_jax.text.grammar import Grammar
from memr1_jax.text.json_automaton import ScannerTables, scanner_tables
from memr1_jax.text.json_escapes import Escapes, build_escapes
from memr1_jax.text.normalize import UnicodeTables, unicode_tables
from memr1_jax.text.strata import Strata


@struct.dataclass
class Tools:
    """Arrays that are passed through every compiled program (never closed over: they are large)."""

    embedder: Embedder
    byte_table: ByteTable
    unicode: UnicodeTables
    scanner: ScannerTables  # of the manager's output
    grammar: Grammar | None  # only where the manager's decoding is constrained
    escapes: Escapes  # of texts that are shown as JSON
    opening: jax.Array  # [V] the form of each token that opens a word in running text
    strata: Strata | None = None  # only where a group is stratified

    def after_space(self, token: jax.Array) -> jax.Array:
        """Returns the form that a first token has after a colon; with a space already, itself."""
        spaced = self.byte_table.bytes[token, 0] == ord(" ")
        return jnp.where(spaced, token, self.opening[token])


def create_tools(
    table: ByteTable,
    embedder: Embedder,
    grammar: Grammar | None = None,
    strata: Strata | None = None,
) -> Tools:
    """Creates tools on the device from a tokenizer's byte table (NumPy) and an embedder."""
    tools = Tools(
        embedder=embedder,
        byte_table=table,
        unicode=unicode_tables(),
        scanner=scanner_tables(),
        grammar=grammar,
        escapes=build_escapes(table),
        opening=_opening_tokens(table),
        strata=strata,
    )
    return jax.device_put(tools)


def _opening_tokens(table: ByteTable) -> np.ndarray:
    """Finds for each token the one with one more space in front, itself where there is none.

    Memories are kept in the form that they have after a colon or a dash, with a leading space; the
    text that a manager writes begins right after a quote.
    """
    spelling = [bytes(row[:length]) for row, length in zip(table.bytes, table.length, strict=True)]
    known = {text: token for token, text in reversed(list(enumerate(spelling))) if text}
    return np.array(
        [known.get(b" " + text, token) if text else token for token, text in enumerate(spelling)],
        np.int32,
    )

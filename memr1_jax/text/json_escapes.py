"""Escapes texts on the device, so that they can stand between the quotes of a JSON string.

Axis letters: V vocabulary, W tokens of a text, n tokens that need an escape, K tokens of the
longest escaped form.
"""

import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.text.byte_table import ByteTable
from memr1_jax.text.segments import lay_out

_WHITE_SPACE = frozenset(b"\t\n\v\f\r\x1c\x1d\x1e\x1f")  # folded before a text is shown


@flax.struct.dataclass
class Escapes:
    """Holds the escaped forms of tokens.

    `row [V]` int32 is a row of `tokens [1 + n, K]` and `length [1 + n]`; 0: the token stays.
    """

    row: jax.Array
    tokens: jax.Array
    length: jax.Array


def build_escapes(table: ByteTable) -> Escapes:
    """Spells the escaped form of every token with a quote, backslash or control character.

    Arrays are NumPy's. Tokens with line breaks and the like stay: folded texts have none.
    """
    rows = zip(table.bytes, table.length, strict=True)
    spelled = {token: bytes(row[:n]) for token, (row, n) in enumerate(rows) if n}
    known = {text: token for token, text in reversed(spelled.items())}
    forms: list[list[int]] = [[]]
    row = np.zeros(len(table.length), np.int32)
    for token, text in spelled.items():
        escaped = b"".join(map(_escape, text))
        if escaped != text and _WHITE_SPACE.isdisjoint(text):
            row[token] = len(forms)
            forms.append(_spell(escaped, known, table.bytes.shape[1]))
    tokens = np.zeros((len(forms), max(1, *map(len, forms))), np.int32)
    for place, form in enumerate(forms):
        tokens[place, : len(form)] = form
    return on_host(Escapes, row, tokens, np.array([len(form) for form in forms], np.int32))


def escape(escapes: Escapes, tokens: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Escapes a text: tokens `[W]` and their number become tokens `[2 W]` and theirs.

    A text that would need more room ends after its last token with a whole escape.
    """
    width = tokens.shape[0]
    row = escapes.row[tokens]
    size = jnp.where(row > 0, escapes.length[row], 1)
    size = jnp.where(jnp.arange(width) < length, size, 0)
    size = jnp.where(jnp.cumsum(size) <= 2 * width, size, 0)  # a prefix: the sum never falls
    piece, offset, total = lay_out(size, 2 * width)
    form = escapes.tokens[row[piece], jnp.minimum(offset, escapes.tokens.shape[1] - 1)]
    written = jnp.where(row[piece] > 0, form, tokens[piece])
    return jnp.where(jnp.arange(2 * width) < total, written, 0), total


def _escape(byte: int) -> bytes:
    return json.dumps(chr(byte))[1:-1].encode() if byte < 0x80 else bytes([byte])


def _spell(text: bytes, known: dict[bytes, int], longest: int) -> list[int]:
    """Takes the longest token at each place; a byte without a token is left out."""
    tokens = []
    while text:
        sizes = range(min(longest, len(text)), 0, -1)
        size = next((size for size in sizes if text[:size] in known), 0)
        if size:
            tokens.append(known[text[:size]])
        text = text[max(size, 1) :]
    return tokens

"""The bytes of every token, as one array: token ids become text by a gather."""

import functools
import json
import re
from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.arrays import on_host
from memr1_jax.errors import UserError
from memr1_jax.text.plain import control_tokens
from memr1_jax.text.reasoning import END
from memr1_jax.text.segments import lay_out


@flax.struct.dataclass
class ByteTable:
    """The spelling of each token.

    `bytes [V, X]` uint8, zero after `length [V]` int32; X is the longest token. A length of 0
    marks tokens without text: special and added ones but white space and the end of reasoning, and
    ids that the tokenizer does not use. `byte_token [256]` int32 is the id of the token that spells
    just this byte, -1 where none does; if several do, the usual one: a piece rather than a stand-in
    for bytes without one, then the lowest.
    """

    bytes: jax.Array
    length: jax.Array
    byte_token: jax.Array


@flax.struct.dataclass
class ByteText:
    """The bytes of a token sequence.

    `bytes [C]` uint8, zero after `length`; `token [C]` int32, the index in the sequence of the
    token that wrote the byte; `first [C]` bool, the first byte of its token; `overflow` bool, true
    when the text was cut at the capacity.
    """

    bytes: jax.Array
    length: jax.Array
    token: jax.Array
    first: jax.Array
    overflow: jax.Array


def _byte_level_alphabet() -> dict[str, int]:
    """Lists the printable stand-ins of the 256 bytes in byte-level vocabularies (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _decoder_names(state: dict) -> set[str]:
    """Lists the types of the tokenizer's decoder and of its parts."""
    decoder = state.get("decoder") or {}
    return {part.get("type") for part in [decoder, *decoder.get("decoders", [])]}


_BYTE_FALLBACK = re.compile("<0x[0-9A-Fa-f]{2}>")


def _spell_byte_level(token: str) -> bytes:
    """Spells a token; one with other characters spells itself, as in the decoder."""
    try:
        return bytes(_ALPHABET[character] for character in token)
    except KeyError:
        return token.encode("utf-8")


def _spell_sentencepiece(token: str) -> bytes:
    if _BYTE_FALLBACK.fullmatch(token):
        return bytes([int(token[3:5], 16)])
    return token.replace("\u2581", " ").encode("utf-8")


def build_byte_table(tokenizer, vocab_size: int) -> ByteTable:
    """Reads the spelling of all tokens from a fast tokenizer, as NumPy arrays of V = `vocab_size`.

    `tokenizer` is a Hugging Face fast tokenizer or the `tokenizers.Tokenizer` in it: byte-level
    BPE (Llama-3, Qwen, SmolLM) or sentencepiece (Gemma, Mistral; `▁` for a space, `<0xNN>` for a
    byte). The space that sentencepiece puts in front of a text is kept.

    Raises:
        UserError: if the tokenizer is of another kind, or has more tokens than `vocab_size`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} is not a fast tokenizer, so the bytes of "
            "its tokens cannot be read. Load it with transformers.AutoTokenizer and a "
            "tokenizer.json."
        )
    decoders = _decoder_names(json.loads(backend.to_str()))
    if "ByteLevel" in decoders:
        spell = _spell_byte_level
    elif decoders & {"Metaspace", "ByteFallback"}:
        spell = _spell_sentencepiece
    else:
        raise UserError(
            "The tokenizer is neither byte-level nor sentencepiece (its decoder is "
            f"{sorted(map(str, decoders))}). Use a model with one of these two."
        )

    vocabulary = backend.get_vocab(with_added_tokens=True)
    tokens = max(vocabulary.values()) + 1
    if tokens > vocab_size:
        raise UserError(
            f"The tokenizer has {tokens} tokens, but the model's vocab_size is {vocab_size}. "
            "Use the tokenizer that belongs to the model."
        )
    added = control_tokens(backend)
    spelled = {i: spell(token) for token, i in vocabulary.items() if i not in added}
    stand_ins = {i for token, i in vocabulary.items() if _BYTE_FALLBACK.fullmatch(token)}
    # Nothing before it is read, so that this mark, where it is one token, must be seen.
    spelled |= {i: END.encode() for i, token in added.items() if token.content == END}
    table = np.zeros((vocab_size, max(map(len, spelled.values()), default=1)), np.uint8)
    length = np.zeros(vocab_size, np.int32)
    byte_token = np.full(256, -1, np.int32)
    # Downwards, the usual token of a byte last, so that it is kept.
    for i in sorted(spelled, key=lambda i: (i not in stand_ins, -i)):
        text = spelled[i]
        table[i, : len(text)] = np.frombuffer(text, np.uint8)
        length[i] = len(text)
        if len(text) == 1:
            byte_token[text[0]] = i
    return on_host(ByteTable, bytes=table, length=length, byte_token=byte_token)


def begins_character(table: ByteTable) -> jax.Array:
    """Tells for each token whether its first byte begins a character of UTF-8: `[V]` bool."""
    return table.bytes[:, 0] >> 6 != 0b10


def cut_to_width(
    tokens: Sequence[int], width: int, begins: np.ndarray | None = None
) -> Sequence[int]:
    """Returns the first `width` tokens of a text, or up to three fewer, so as to cut no character.

    `begins` is that of `begins_character`, in NumPy; without it tokens are taken to be whole.
    """
    if len(tokens) <= width or begins is None:
        return tokens[:width]
    ends = (end for end in range(width, max(width - 4, -1), -1) if begins[tokens[end]])
    return tokens[: next(ends, width)]


@functools.partial(jax.jit, static_argnums=3)
def tokens_to_bytes(
    table: ByteTable, tokens: jax.Array, length: jax.Array, capacity: int
) -> ByteText:
    """Writes the first `length` of tokens `[T]` as at most `capacity` = C bytes."""
    valid = jnp.arange(tokens.shape[0]) < length
    size = jnp.where(valid, jnp.asarray(table.length)[tokens], 0)
    token, offset, total = lay_out(size, capacity)
    inside = jnp.arange(capacity) < total
    width = table.bytes.shape[1]
    text = jnp.asarray(table.bytes)[tokens[token], jnp.clip(offset, 0, width - 1)]
    return ByteText(
        bytes=jnp.where(inside, text, 0),
        length=jnp.minimum(total, capacity),
        token=token,
        first=inside & (offset == 0),
        overflow=total > capacity,
    )

"""Reads the manager's JSON into operations, on the device, with texts as tokens.

Two schemas, told apart as they are read:

- full: `{"memory": [{"id": "0", "text": "...", "event": "ADD"}, ...]}`. Anything malformed or
  missing up to the last brace means no operation at all; with `salvage` the entries of the list
  that are complete before the fault count.
- compact: objects `{"op": "UPDATE", "id": 0, "text": "..."}` with white space and commas between.
  Those complete before the first fault count; with `salvage` each object counts by itself, and
  after a broken one reading resumes at the next line that begins with a brace. Without any
  complete object the response is invalid.

Reasoning is not read (`reasoning`). A brace that is not followed by a key and its colon is
prose, an object that breaks off before any other is complete may be, and both are passed over.

In both, `op` and `event` mean the same, keys come in any order, the last of equal keys wins, and
unknown keys are skipped. A regular language cannot count brackets, so a nested value under any key
but `memory` of the first object is malformed, as are a `memory` that is not a list of objects, NaN
and Infinity. Otherwise the language is that of Python's json module. Text around the JSON is
ignored, but clears `strict`, and so does a fault.

One entry is skipped, and counted, if its event is unknown, if an ADD or UPDATE has no text or one
of white space alone, or if an UPDATE or DELETE has no id. An id is one to nine digits, as a number
or as a string; whether it was shown is for the bank to check. An event NONE is counted but takes no
place among the operations. `json_reference` states the same in plain Python.

The automaton runs in a scan over bytes that carries nothing but its state. Everything else follows
from where its actions fell, by cumulative sums and maxima.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from memr1_jax.text.byte_table import ByteTable, ByteText, begins_character, tokens_to_bytes
from memr1_jax.text.events import Event
from memr1_jax.text.json_automaton import Action, ScannerTables
from memr1_jax.text.normalize import decode_utf8
from memr1_jax.text.reasoning import reasoning_end
from memr1_jax.text.white_space import folded_spaces, is_space, latest

_ID_DIGITS = 9


@flax.struct.dataclass
class ScannedOperations:
    """The operations of one response; rows at and after `count` are zero, `id` is -1 there.

    `event [O]`, `id [O]` (-1: none), `tokens [O, W]`, `length [O]`, `count`, all int32. `valid`
    bool: the schema was met; `strict` bool: and nothing stood around it; `salvaged` bool: objects
    were kept though another one is broken. Counters, int32: `none` events NONE; `skipped` faulty
    entries; `dropped` operations beyond O; `cut` texts longer than W, which end at a whole
    character; `unspelled` bytes without a token of their own. `overflow` bool: the response had
    more than C bytes and the rest was not read.
    """

    event: jax.Array
    id: jax.Array
    tokens: jax.Array
    length: jax.Array
    count: jax.Array
    valid: jax.Array
    strict: jax.Array
    salvaged: jax.Array
    none: jax.Array
    skipped: jax.Array
    dropped: jax.Array
    cut: jax.Array
    unspelled: jax.Array
    overflow: jax.Array


def _run(tables: ScannerTables, text: ByteText) -> tuple[jax.Array, jax.Array]:
    """Returns the action at each byte `[C]` and the last state."""
    place = jnp.arange(text.bytes.shape[0])
    inside = (place >= reasoning_end(text.bytes, text.length)) & (place < text.length)
    table = jnp.asarray(tables.next)

    def read(state, step):
        byte, real = step
        return jnp.where(real, table[state, byte], state), state

    last, states = jax.lax.scan(read, jnp.int16(0), (text.bytes, inside), unroll=8)
    action = jnp.asarray(tables.action)[states, text.bytes].astype(jnp.int32)
    return jnp.where(inside, action, Action.NOTHING), last


def _read_number(action: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """Reads the number that the DIGIT actions in `(start, end)` spell, -1 if none; `[O]`."""
    digit = (action >= Action.DIGIT) & (action < Action.DIGIT + 10)
    seen = jnp.cumsum(digit)
    target = jnp.where(digit, seen - 1, action.shape[0])
    digits = jnp.zeros_like(action).at[target].set(action - Action.DIGIT, mode="drop")
    size = seen[end] - seen[start]
    value = jnp.zeros_like(start)
    for k in range(_ID_DIGITS):
        value = jnp.where(k < size, value * 10 + digits[seen[start] + k], value)
    faults = jnp.cumsum(action == Action.NOT_A_DIGIT)
    sound = (size > 0) & (size <= _ID_DIGITS) & (faults[end] == faults[start])
    return jnp.where(sound, value, -1)


class _Characters(NamedTuple):
    """The characters of string literals at each byte.

    `code [C]` is the code point that begins there, if `begins [C]`; `spelled [C, 4]` uint8 are the
    UTF-8 bytes that a byte stands for and `size [C]` their number. A `raw [C]` byte stands for
    itself, the last byte of an escape for the whole character, the other bytes of an escape for
    nothing. The second half of a surrogate pair stands for the pair, a lone half for U+FFFD.
    """

    code: jax.Array
    begins: jax.Array
    raw: jax.Array
    spelled: jax.Array
    size: jax.Array


def _characters(text: ByteText, action: jax.Array) -> _Characters:
    """Decodes the bytes of string literals."""
    value = text.bytes.astype(jnp.int32)

    def back(array, steps):
        return jnp.concatenate([jnp.zeros(steps, array.dtype), array])[: array.shape[0]]

    def ahead(array, steps):
        return jnp.concatenate([array, jnp.zeros(steps, array.dtype)])[steps:]

    nibble = jnp.where(value <= ord("9"), value - ord("0"), (value | 0x20) - ord("a") + 10)
    unit = sum(back(nibble, k) << (4 * k) for k in range(4))
    unicode = action == Action.UNICODE_ESCAPE
    high = unicode & (unit >> 10 == 0xD800 >> 10)
    low = unicode & (unit >> 10 == 0xDC00 >> 10)
    paired_high, paired_low = high & ahead(low, 6), low & back(high, 6)
    pair = 0x10000 + ((back(unit, 6) & 0x3FF) << 10) + (unit & 0x3FF)
    code = jnp.where(paired_low, pair, jnp.where(high | low, 0xFFFD, unit))

    simple = value
    for letter, meaning in zip("bfnrt", "\b\f\n\r\t", strict=True):
        simple = jnp.where(value == ord(letter), ord(meaning), simple)
    code = jnp.where(unicode, code, simple)

    size = 1 + (code >= 0x80) + (code >= 0x800) + (code >= 0x10000)
    lead = jnp.asarray([0, 0, 0xC0, 0xE0, 0xF0])[size]
    parts = []
    for k in range(4):
        part = code >> (6 * jnp.maximum(size - 1 - k, 0))
        parts.append(lead | part if k == 0 else 0x80 | (part & 0x3F))
    raw = action == Action.RAW
    spelled = jnp.where(raw[:, None], value[:, None], jnp.stack(parts, axis=1))
    written = (action == Action.SIMPLE_ESCAPE) | (unicode & ~paired_high)
    read, begins = decode_utf8(text.bytes, jnp.int32(0), text.length)
    return _Characters(
        code=jnp.where(raw, read, code),
        begins=jnp.where(raw, begins, written),
        raw=raw,
        spelled=spelled.astype(jnp.uint8),
        size=jnp.where(raw, 1, jnp.where(written, size, 0)),
    )


def raw_characters(text: ByteText) -> _Characters:
    """Decodes a text in which every byte stands for itself."""
    return _characters(text, jnp.full(text.bytes.shape, Action.RAW, jnp.int32))


def _folded(
    text: ByteText, characters: _Characters, inside: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Folds white space to single spaces in the texts, which are `inside [C]`.

    Returns `spelled` and `size` as in `_Characters`, and which bytes `[C]` stand for themselves.
    """
    begins, raw = characters.begins, characters.raw
    space, kept = folded_spaces(characters.code, begins, inside)
    folded = raw & space[jnp.maximum(latest(begins), 0)]  # all bytes of raw white space
    plain = raw & (~folded | kept & (text.bytes == ord(" ")))
    size = jnp.where(kept, 1, jnp.where(folded | space, 0, characters.size))
    spelled = jnp.where(kept[:, None], ord(" "), characters.spelled)
    return spelled.astype(jnp.uint8), size, plain & inside


def texts_as_tokens(table, tokens, text, characters, owner, inside, operations, width):
    """Writes the text bytes (`inside [C]`, of operation `owner [C]`) as tokens `[O, W]`.

    A token all of whose bytes are text is copied; other bytes become single-byte tokens. Returns
    the tokens, their number `[O]`, that of the whole texts, and how many bytes have no token.
    """
    spelled, size, plain = _folded(text, characters, inside)
    counted = jnp.zeros(tokens.shape[0], jnp.int32).at[text.token].add(plain)
    whole = (counted == jnp.asarray(table.length)[tokens])[text.token] & plain

    size = jnp.where(inside, size, 0)
    single = jnp.asarray(table.byte_token)[spelled]
    written = jnp.arange(4) < size[:, None]
    written = written & jnp.where(whole, text.first, True)[:, None]
    output = jnp.where(whole[:, None], tokens[text.token][:, None], single)
    unspelled = jnp.sum(written & (output < 0), dtype=jnp.int32)
    written = written & (output >= 0)

    number = jnp.sum(written, axis=1, dtype=jnp.int32)
    owner = jnp.where(inside, owner, operations)
    length = jnp.zeros(operations, jnp.int32).at[owner].add(number, mode="drop")
    start = jnp.cumsum(length) - length
    before = jnp.cumsum(number) - number - start[jnp.minimum(owner, operations - 1)]
    column = before[:, None] + jnp.cumsum(written, axis=1) - 1
    row = jnp.where(written, owner[:, None], operations)
    result = jnp.zeros((operations, width + 1), jnp.int32)
    result = result.at[row, column].set(output, mode="drop")
    kept = jnp.where(length > width, _whole_characters(table, result), length)
    result = jnp.where(jnp.arange(width) < kept[:, None], result[:, :width], 0)
    return result, kept, length, unspelled


def _whole_characters(table: ByteTable, tokens: jax.Array) -> jax.Array:
    """Counts the first W of `tokens [O, W + 1]` that end at a whole character: `[O]`.

    Where none of the last tokens begins a character the text is not UTF-8, and all W are kept.
    """
    width = tokens.shape[1] - 1
    nearest = [width - k for k in range(min(4, width + 1))]
    begins = begins_character(table)[tokens[:, jnp.asarray(nearest)]]
    found = jnp.asarray(nearest)[jnp.argmax(begins, axis=1)]
    return jnp.where(jnp.any(begins, axis=1), found, width)


def scan_operations(
    tables: ScannerTables,
    table: ByteTable,
    tokens: jax.Array,
    length: jax.Array,
    *,
    max_operations: int,
    max_text: int,
    capacity: int,
    salvage: bool = False,
) -> ScannedOperations:
    """Reads a response: the first `length` of `tokens [R]` int32.

    O = `max_operations`, W = `max_text` tokens, C = `capacity` bytes; `salvage` keeps the
    intact part of a broken response. `tables` come from `scanner_tables()`. Source: the rules of
    Memory-R1 (arXiv 2508.19828) for the full schema.
    """
    text = tokens_to_bytes(table, tokens, length, capacity)
    action, last = _run(tables, text)
    place = jnp.arange(capacity, dtype=jnp.int32)

    # The document as a whole. Of several memory lists the last one counts.
    opened = latest((action == Action.OPEN) | (action == Action.REOPEN))
    list_start = latest(action == Action.ARRAY)[-1]
    full = list_start >= 0
    after, between = jnp.asarray(tables.after)[last], jnp.asarray(tables.between)[last]
    close = (action == Action.CLOSE) & (place > list_start)
    unfinished = jnp.where(full, ~after, opened[-1] > latest(close)[-1])
    fault = action == Action.FAULT
    broken = unfinished | jnp.any(fault)
    if not salvage:
        faults = jnp.cumsum(fault & (jnp.cumsum(close) > 0))
        close = close & jnp.where(full, after, faults == 0)
    valid = jnp.any(close) | (full & after)
    junk = (action == Action.JUNK) | (action == Action.REOPEN) | fault
    strict = valid & (after | between) & ~jnp.any(junk)

    # Each entry, judged at its closing brace: what came last, and after its opening brace?
    characters = _characters(text, action)
    seen = jnp.cumsum(characters.begins & ~is_space(characters.code))
    op_key, id_key = latest(action == Action.OP_KEY), latest(action == Action.ID_KEY)
    text_key, begin = latest(action == Action.TEXT_KEY), latest(action == Action.TEXT_BEGIN)
    named = latest(action >= Action.EVENT)
    known = (named > op_key) & (op_key > opened)
    event = jnp.where(known, action[named] - Action.EVENT, Event.NONE)
    end = latest(action == Action.TEXT_END)
    has_text = (begin > text_key) & (text_key > opened) & (end > begin)
    has_text = has_text & (seen[end] > seen[jnp.maximum(begin, 0)])
    number = _read_number(action, jnp.maximum(id_key, 0), place)
    number = jnp.where(id_key > opened, number, -1)

    needs_text = jnp.asarray([e.writes for e in Event])[event]
    needs_id = jnp.asarray([e.names_memory for e in Event])[event]
    sound = close & known & (has_text | ~needs_text) & ((number >= 0) | ~needs_id)
    acts = sound & (event != Event.NONE)

    # The first O operations, by the places of their closing braces.
    rank = jnp.cumsum(acts) - 1
    target = jnp.where(acts, rank, max_operations)
    closes = jnp.zeros(max_operations, jnp.int32).at[target].set(place, mode="drop")
    found = rank[-1] + 1
    count = jnp.minimum(found, max_operations)
    used = jnp.arange(max_operations) < count
    spelled = used & needs_text[closes]

    # A byte belongs to the next operation that closes, if it lies in the text that counts there.
    owner = jnp.minimum(rank + 1 - acts, max_operations - 1)
    inside = spelled[owner] & (place > begin[closes][owner]) & (place < end[closes][owner])
    written, kept, sizes, unspelled = texts_as_tokens(
        table, tokens, text, characters, owner, inside, max_operations, max_text
    )
    return ScannedOperations(
        event=jnp.where(used, event[closes], Event.NONE),
        id=jnp.where(used, number[closes], -1),
        tokens=written,
        length=kept,
        count=count,
        valid=valid,
        strict=strict,
        salvaged=valid & broken,
        none=jnp.sum(sound & ~acts, dtype=jnp.int32),
        skipped=jnp.sum(close & ~sound, dtype=jnp.int32),
        dropped=found - count,
        cut=jnp.sum(sizes > max_text, dtype=jnp.int32),
        unspelled=unspelled,
        overflow=text.overflow,
    )

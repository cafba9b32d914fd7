"""Read the manager's JSON into operations, on the device, with texts as tokens.

Two schemas, told apart by what is read:

- full: `{"memory": [{"id": "0", "text": "...", "event": "ADD"}, ...]}`. Anything malformed or
  missing up to the last brace means no operation at all.
- compact: objects `{"op": "UPDATE", "id": 0, "text": "..."}` with white space and commas between.
  Those complete before the first fault count; without any, the response is invalid.

In both, `op` and `event` mean the same, keys come in any order, the last of equal keys wins, and
unknown keys are skipped. A regular language cannot count brackets, so a nested value under any key
but `memory` of the first object is malformed, as are a `memory` that is no list of objects, NaN
and Infinity. Otherwise the language is that of Python's json module. Text around the JSON is
ignored, but clears `strict`, and so does a fault.

One entry is skipped, and counted, if its event is unknown, if an ADD or UPDATE has no text, or if
an UPDATE or DELETE has no id. An id is one to nine digits, as a number or as a string; whether it
was shown is for the bank to check. An event NONE is counted but takes no place among the
operations. `json_reference` states the same in plain Python.

The automaton runs in a scan over bytes that carries nothing but its state. Everything else follows
from where its actions fell, by cumulative sums and maxima.
"""

import flax.struct
import jax
import jax.numpy as jnp

from memr1_jax.text.byte_table import ByteTable, ByteText, tokens_to_bytes
from memr1_jax.text.events import Event
from memr1_jax.text.json_automaton import Action, ScannerTables
from memr1_jax.text.normalize import decode_utf8
from memr1_jax.text.white_space import folded_spaces, latest

_ID_DIGITS = 9


@flax.struct.dataclass
class ScannedOperations:
    """The operations of one response; rows at and after `count` are zero, `id` is -1 there.

    `event [O]`, `id [O]` (-1: none), `tokens [O, W]`, `length [O]`, `count`, all int32. `valid`
    bool: the schema was met; `strict` bool: and nothing stood around it. Counters, int32: `none`
    events NONE; `skipped` faulty entries; `dropped` operations beyond O; `cut` texts longer than
    W; `unspelled` bytes without a token of their own. `overflow` bool: the response had more than
    C bytes and the rest was not read.
    """

    event: jax.Array
    id: jax.Array
    tokens: jax.Array
    length: jax.Array
    count: jax.Array
    valid: jax.Array
    strict: jax.Array
    none: jax.Array
    skipped: jax.Array
    dropped: jax.Array
    cut: jax.Array
    unspelled: jax.Array
    overflow: jax.Array


def _run(tables: ScannerTables, text: ByteText) -> tuple[jax.Array, jax.Array]:
    """Return the action at each byte `[C]` and the last state."""
    inside = jnp.arange(text.bytes.shape[0]) < text.length
    table = jnp.asarray(tables.next)

    def read(state, step):
        byte, real = step
        return jnp.where(real, table[state, byte], state), state

    last, states = jax.lax.scan(read, jnp.int16(0), (text.bytes, inside), unroll=8)
    action = jnp.asarray(tables.action)[states, text.bytes].astype(jnp.int32)
    return jnp.where(inside, action, Action.NOTHING), last


def _read_number(action: jax.Array, start: jax.Array, end: jax.Array) -> jax.Array:
    """The number that the DIGIT actions in `(start, end)` spell, -1 if there is none; `[O]`."""
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


def _decoded(
    text: ByteText, action: jax.Array, inside: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Decodes each byte of a string literal to the UTF-8 bytes that it stands for.

    Returns `[C, 4]` uint8, their number `[C]`, and which bytes `[C]` stand for themselves. A raw
    byte does, the last byte of an escape stands for the whole character, the other bytes of an
    escape for nothing. The second half of a surrogate pair stands for the pair, a lone half for
    U+FFFD. White space is folded to single spaces in the texts, which are `inside [C]`.
    """
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
    spelled = []
    for k in range(4):
        part = code >> (6 * jnp.maximum(size - 1 - k, 0))
        spelled.append(lead | part if k == 0 else 0x80 | (part & 0x3F))
    raw = action == Action.RAW
    spelled = jnp.where(raw[:, None], value[:, None], jnp.stack(spelled, axis=1))
    written = (action == Action.SIMPLE_ESCAPE) | (unicode & ~paired_high)
    size = jnp.where(raw, 1, jnp.where(written, size, 0))

    read, begins = decode_utf8(text.bytes, 0, text.length)
    begins = jnp.where(raw, begins, written)
    space, kept = folded_spaces(jnp.where(raw, read, code), begins, inside)
    folded = raw & space[jnp.maximum(latest(begins), 0)]  # all bytes of raw white space
    plain = raw & (~folded | kept & (value == ord(" ")))
    size = jnp.where(kept, 1, jnp.where(folded | space, 0, size))
    spelled = jnp.where(kept[:, None], ord(" "), spelled)
    return spelled.astype(jnp.uint8), size, plain & inside


def _texts_as_tokens(table, tokens, text, action, owner, inside, operations, width):
    """Write the text bytes (`inside [C]`, of operation `owner [C]`) as tokens `[O, W]`.

    A token all of whose bytes are text is copied; other bytes become single-byte tokens. Returns
    the tokens, the full lengths `[O]`, and how many bytes have no token.
    """
    spelled, size, plain = _decoded(text, action, inside)
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
    result = jnp.zeros((operations, width), jnp.int32)
    return result.at[row, column].set(output, mode="drop"), length, unspelled


def scan_operations(
    tables: ScannerTables,
    table: ByteTable,
    tokens: jax.Array,
    length: jax.Array,
    *,
    max_operations: int,
    max_text: int,
    capacity: int,
) -> ScannedOperations:
    """Read a response: `tokens [R]` int32, of which the first `length` count.

    O = `max_operations`, W = `max_text` tokens, C = `capacity` bytes. `tables` come from
    `scanner_tables()`. Source: the rules of Memory-R1 (arXiv 2508.19828) for the full schema.
    """
    text = tokens_to_bytes(table, tokens, length, capacity)
    action, last = _run(tables, text)
    place = jnp.arange(capacity, dtype=jnp.int32)

    # The document as a whole. Of several memory lists the last one counts.
    close = action == Action.CLOSE
    list_start = latest(action == Action.ARRAY)[-1]
    full = list_start >= 0
    after, between = jnp.asarray(tables.after)[last], jnp.asarray(tables.between)[last]
    valid = jnp.where(full, after, jnp.any(close))
    strict = valid & (after | between) & ~jnp.any(action == Action.JUNK)
    close = close & valid & (place > list_start)

    # Each entry, judged at its closing brace: what came last, and after its opening brace?
    opened = latest(action == Action.OPEN)
    op_key, id_key = latest(action == Action.OP_KEY), latest(action == Action.ID_KEY)
    text_key, begin = latest(action == Action.TEXT_KEY), latest(action == Action.TEXT_BEGIN)
    named = latest(action >= Action.EVENT)
    known = (named > op_key) & (op_key > opened)
    event = jnp.where(known, action[named] - Action.EVENT, Event.NONE)
    end = latest(action == Action.TEXT_END)
    has_text = (begin > text_key) & (text_key > opened) & (end > begin + 1)
    number = _read_number(action, jnp.maximum(id_key, 0), place)
    number = jnp.where(id_key > opened, number, -1)

    needs_text = (event == Event.ADD) | (event == Event.UPDATE)
    needs_id = (event == Event.UPDATE) | (event == Event.DELETE)
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
    written, sizes, unspelled = _texts_as_tokens(
        table, tokens, text, action, owner, inside, max_operations, max_text
    )
    return ScannedOperations(
        event=jnp.where(used, event[closes], Event.NONE),
        id=jnp.where(used, number[closes], -1),
        tokens=written,
        length=jnp.minimum(sizes, max_text),
        count=count,
        valid=valid,
        strict=strict,
        none=jnp.sum(sound & ~acts, dtype=jnp.int32),
        skipped=jnp.sum(close & ~sound, dtype=jnp.int32),
        dropped=found - count,
        cut=jnp.sum(sizes > max_text, dtype=jnp.int32),
        unspelled=unspelled,
        overflow=text.overflow,
    )

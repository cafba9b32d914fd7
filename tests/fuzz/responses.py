"""Random responses, as managers and Answer Agents might write them."""

import json
import random

from memr1_jax.text.byte_table import ByteTable

TEXTS = [
    "tea",
    "",
    "é 王",
    "  ",
    "\u3000\t",
    "\u2009é",
    " a \n\n b\u2028\u3000",
    "x\u0085\u00a0\ty ",
    "  z",
    '"}]',
    "\\",
    "\n\t",
    "🎈",
    "{[",
    "a" * 20,
    "0",
    "x" * 9,
    "\x7f",
]
SCALARS = [None, True, False, 0, -1, 12, 3.5, 1e30, 10**12, "0", "007", "9" * 9, "-3", "x", ""]
EVENTS = ["ADD", "UPDATE", "DELETE", "NONE", "NOOP", "add", "Update", "ADDED", "", " ADD", None, 1]
FAULTS = [[], {}, [1], {"id": 1}, float("nan"), float("-inf")]


def _entry(rng, faulty):
    pairs = []
    keys = ["op", "event", "id", "text", "old_memory", "opx", "memory" if faulty else "i"]
    for key in rng.sample(["op", "id", "text"], 3) + rng.choices(keys, k=rng.choice([0, 0, 1, 2])):
        values = {"op": EVENTS[:7], "event": EVENTS, "id": [0, 3, "4"] * 5 + SCALARS, "text": TEXTS}
        value = rng.choice(values.get(key, SCALARS))
        if faulty and rng.random() < 0.1:
            value = rng.choice(FAULTS + SCALARS + TEXTS)
        pairs.append(f"{_dump(rng, key)}{rng.choice([': ', ':'])}{_dump(rng, value)}")
    return "{" + rng.choice([", ", ",", " , "]).join(pairs) + "}"


def _dump(rng, value):
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5)
    if isinstance(value, str) and value and rng.random() < 0.1:
        text = '"' + "".join(f"\\u{ord(c) & 0xFFFF:04{rng.choice('xX')}}" for c in value) + '"'
    return text


def document(rng: random.Random, capacity: int) -> bytes:
    """Writes a response of either schema, whole, edited, cut off or nested."""
    faulty = rng.random() < 0.3
    entries = [_entry(rng, faulty) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5]))]
    if rng.random() < 0.5:
        text = rng.choice(["\n", "\n", ", ", "", " "]).join(entries)
    else:
        text = '{"memory": [' + rng.choice([", ", ","]).join(entries) + "]}"
        if rng.random() < 0.1:
            text = text[:-1] + ", " + rng.choice(['"memory": [{"op": "NONE"}]}', '"a": 1}', "}"])
    before = [
        "\n",
        "```json\n",
        "é[",
        "{ids} ",
        "{}",
        '{"op": ...}\n',
        "<think>{</think>",
        "<think>",
    ]
    data = (rng.choice([""] * 12 + before) + text).encode()
    data += rng.choice([b""] * 6 + [b" \n", b"\n```", b"]", b"}", b",", b"\xff"])
    kind = rng.choice(["whole", "whole", "edited", "edited", "cut", "nested"])
    if kind == "cut":
        data = data[: rng.randrange(len(data) + 1)]
    if kind == "edited":
        for _ in range(rng.choice([1, 1, 2, 4])):
            at = rng.randrange(len(data) or 1)
            byte = bytes([rng.choice([*b'{}[]",:\\u0 dDeE.-+1\n\0', rng.randrange(256)])])
            data = data[:at] + rng.choice([byte, b"", byte + data[at : at + 1]]) + data[at + 1 :]
    if kind == "nested":
        data += rng.choice([b"[" * 99, b'{"a":' * 20, b'{"op": ' + b"9" * 90 + b"}"])
    return data[:capacity]


def random_split(data: bytes, byte_table: ByteTable, rng: random.Random) -> list[int]:
    """Spells bytes with tokens of random length, as a sampling model may."""
    spelled = _spellings(id(byte_table), byte_table)
    tokens, start = [], 0
    while start < len(data):
        sizes = [n for n in range(1, 13) if data[start : start + n] in spelled]
        size = rng.choice(sizes[-3:])
        tokens.append(spelled[data[start : start + size]])
        start += size
    return tokens


_CACHE = {}


def _spellings(key, table):
    if key not in _CACHE:
        rows = zip(table.bytes, table.length, strict=True)
        _CACHE[key] = {bytes(row[:n]): i for i, (row, n) in enumerate(rows) if n}
    return _CACHE[key]


PIECES = ["<answer>", "</answer>", "<AnsWer>", "**Answer:**", "**Answer**:", "**Answer: ", "**"]
PIECES += ["\n- ", "\n\n", "\n• ", "-", "+", "•", "</think>", "<think>"]
PIECES += ["Answer:", "answer:", "Answer", "\n", " ", "*", "x", "é 王", "\u00a0", ":", "<", "\r"]

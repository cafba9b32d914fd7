"""Output of models: the device's readers against plain Python, edits of a bank, metrics."""

import dataclasses
import functools
import random
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from tiny_model import Tiny, bank_of, facts_of, make_tiny, texts_of

from memr1_jax.agents.manager import MemoryManager, apply_response, manager_prompt
from memr1_jax.bench.multiple_choice import score_multiple_choice
from memr1_jax.bench.scoring import score_by_question
from memr1_jax.data.types import Question
from memr1_jax.evals.metrics import bleu1, exact_match, f1_set_of_words, f1_squad, rouge_l
from memr1_jax.evals.report.replay import outcomes
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.text.answer_span import answer_span, extract_answer
from memr1_jax.text.events import Event
from memr1_jax.text.json_automaton import scanner_tables
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.text.json_scanner import scan_operations
from memr1_jax.text.normalize import normalize_text, unicode_tables, words_of_bytes, words_of_text

from .driver import ACCEPTED, Outcome, Target, Verdict, Wrong, equal, padded, single
from .responses import PIECES, document, random_split

BATCH = 100
_BYTES, _OPERATIONS, _WIDTH = 320, 4, 96
_WORDS = 24

_COUNTS = ("valid", "strict", "none", "skipped", "dropped", "salvaged")


@functools.cache
def wide() -> Tiny:
    """Makes the tiny model with room for long memories, and small banks that fill up."""
    tiny = make_tiny()
    sizes = dataclasses.replace(tiny.pair.encoder.sizes, memory_width=64, bank_capacity=4)
    encoder = dataclasses.replace(tiny.pair.encoder, sizes=sizes)
    return dataclasses.replace(tiny, pair=dataclasses.replace(tiny.pair, encoder=encoder))


# Responses of managers: both schemas, operation by operation.


def _response(rng: random.Random) -> tuple[bytes, list[int]]:
    data = document(rng, _BYTES)
    return data, random_split(data, make_tiny().pair.tools.byte_table, rng)


def _rows(cases: Sequence[tuple[bytes, list[int]]]) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.zeros((len(cases), _BYTES), np.int32)
    for row, (_, ids) in enumerate(cases):
        tokens[row, : len(ids)] = ids
    return tokens, np.array([len(ids) for _, ids in cases], np.int32)


@functools.partial(jax.jit, static_argnames="salvage")
def _scan(tables, table, tokens, length, salvage):
    scan = functools.partial(
        scan_operations,
        max_operations=_OPERATIONS,
        max_text=_WIDTH,
        capacity=_BYTES,
        salvage=salvage,
    )
    return jax.vmap(lambda t, n: scan(tables, table, t, n))(tokens, length)


def _judge_scans(cases: Sequence, salvage: bool) -> list[Verdict]:
    table = make_tiny().pair.tools.byte_table
    found = _scan(scanner_tables(), table, *_rows(cases), salvage=salvage)
    found = jax.tree.map(np.asarray, found)
    return [
        _compare_scans(data, jax.tree.map(lambda x, i=i: x[i], found), table, salvage)
        for i, (data, _) in enumerate(cases)
    ]


def _compare_scans(data, found, table, salvage) -> Verdict:
    wanted = scan_operations_reference(data, _OPERATIONS, salvage)
    operations = []
    for event, number, row, size in zip(
        found.event, found.id, found.tokens, found.length, strict=True
    ):
        text = b"".join(bytes(table.bytes[t, : table.length[t]]) for t in row[:size])
        operations.append((Event(event), int(number), text.decode("utf-8", "replace")))
    if any(len(text.splitlines()) > 1 for _, _, text in operations):
        return Outcome.FORGED, f"{data!r} writes {operations!r}"
    kept = operations[: found.count]
    wanted_ones = wanted.operations
    if found.cut:  # longer than a memory: its beginning stays
        cut = zip(kept, wanted_ones, strict=False)
        wanted_ones = [(e, n, t[: len(own[2])]) for own, (e, n, t) in cut]
    counts = {name: int(getattr(found, name)) for name in _COUNTS}
    return equal(
        (kept, counts),
        (wanted_ones, {name: int(getattr(wanted, name)) for name in _COUNTS}),
        data,
    )


# The bank after a response.

_BEFORE = ("Ana has a dog.", "Ben sings.", "Ana lives in Lyon.")


@functools.cache
def _edited() -> tuple[MemoryManager, MemoryBank, tuple[int, ...]]:
    """Returns the manager, a bank of three memories and the slots that its prompt shows, by id."""
    tiny = wide()
    manager = dataclasses.replace(
        tiny.pair.manager, prompt_length=900, operations=_OPERATIONS, neighbours=2, shown=2
    )
    bank = bank_of(tiny, list(_BEFORE))
    prompt = jax.jit(manager_prompt, static_argnums=0)(
        manager, tiny.pair.tools, bank, facts_of(tiny, ["Ana has a cat."])
    )
    return manager, bank, tuple(np.asarray(prompt.slots[: prompt.shown]).tolist())


@functools.partial(jax.jit, static_argnums=0)
def _apply(manager, tools, bank, facts, tokens, length):
    prompt = manager_prompt(manager, tools, bank, facts)
    edit = functools.partial(apply_response, manager, tools, bank, prompt, facts)
    return jax.vmap(edit)(tokens, length)


def _judge_edits(cases: Sequence) -> list[Verdict]:
    tiny, (manager, bank, slots) = wide(), _edited()
    facts = facts_of(tiny, ["Ana has a cat."])
    after, report = _apply(manager, tiny.pair.tools, bank, facts, *_rows(cases))
    after, report = (jax.tree.map(np.asarray, tree) for tree in (after, report))
    before = texts_of(tiny, bank)
    verdicts = []
    for row, (data, _) in enumerate(cases):
        scan = scan_operations_reference(data, _OPERATIONS, manager.salvage)
        wanted = dict(before)
        told = outcomes(scan.operations, slots, set(before), len(bank.alive))
        for one in told:
            if one.outcome != "applied":
                continue
            if one.event == Event.DELETE.name:
                del wanted[one.slot]
            else:
                wanted[one.slot] = one.text
        found = texts_of(tiny, jax.tree.map(lambda x, row=row: x[row], after))
        if any(len(text.splitlines()) > 1 for text in found.values()):
            verdicts.append((Outcome.FORGED, f"{data!r} leaves {found!r}"))
            continue
        if report.cut[row]:
            wanted = {slot: text[: len(found.get(slot, ""))] for slot, text in wanted.items()}
        counts = [float(getattr(report, name)[row]) for name in ("unknown", "gone", "refused")]
        kinds = [one.outcome for one in told]
        verdicts.append(
            equal(
                (_stripped(found), counts),
                (_stripped(wanted), [kinds.count(k) for k in ("unknown", "gone", "refused")]),
                data,
            )
        )
    return verdicts


def _stripped(memories: dict[int, str]) -> dict[int, str]:
    return {slot: text.strip() for slot, text in memories.items()}


# Answers: where they stand, and the words that count.

_UNICODE = [
    *("a", "an", "the", " the ", ".", ",", "'", "’", "–", "“", "É", "e\u0301", "İ", "ß", "Σ", "ς"),
    *(
        "王",
        "東京",
        "が",
        "か\u3099",
        "ｶﾞ",
        "Ｆ",
        "ไท",
        "한",
        "\u1100\u1161",
        "🎈",
        "\u200b",
        "\x1c",
    ),
    *("\x85", "\u2028", "\u00a0", "\u3000", "\t", "\n", "\x00", "\ud83d", "0", "²", "٣", "_", "-"),
    *(
        "\u200b",
        "\u0300",
        "\u0344",
        "\u202e",
        "\ufeff",
        "\ufffd",
        "𝒳",
        "and",
        "No information available",
    ),
    *("not mentioned", ";", "(a)", "(b)", "A", "<final_answer>", "x"),
]


def text_of(rng: random.Random) -> str:
    """Makes a short text of everyday and rare characters."""
    pieces = [rng.choice(_UNICODE) for _ in range(rng.randrange(10))]
    if rng.random() < 0.3:
        pieces.append(chr(rng.randrange(0x110000)))
    return rng.choice(["", " "]).join(pieces)


def _answer(rng: random.Random) -> bytes:
    words = (rng.choice([*PIECES, text_of(rng)]) for _ in range(rng.randrange(12)))
    return "".join(words).encode("utf-8", "replace")[:_BYTES]


def _padded_bytes(items: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.full((len(items), _BYTES), ord("*"), np.uint8)  # what follows must not count
    for row, item in enumerate(items):
        rows[row, : len(item)] = np.frombuffer(item, np.uint8)
    return rows, np.array([len(item) for item in items], np.int32)


_spans = jax.jit(jax.vmap(answer_span))


def _judge_answers(cases: Sequence[bytes]) -> list[Verdict]:
    cases = [case.decode("utf-8", "ignore").encode() for case in cases]
    spans = zip(cases, *map(np.asarray, _spans(*_padded_bytes(cases))), strict=True)
    return [
        equal(
            (item[s:e].decode("utf-8", "replace"), int(rule)), extract_answer(item.decode()), item
        )
        for item, s, e, rule in spans
    ]


@jax.jit
def _device_words(tables, text, length):
    return jax.vmap(lambda t, n: words_of_bytes(tables, t, jnp.int32(0), n, _WORDS))(text, length)


def _judge_words(cases: Sequence[str]) -> list[Verdict]:
    items = [case.encode("utf-8", "replace")[:_BYTES] for case in cases]
    found = jax.tree.map(np.asarray, _device_words(unicode_tables(), *_padded_bytes(items)))
    verdicts = []
    for row, item in enumerate(items):
        text = item.decode("utf-8", "replace")
        device = (found.hash[row].tolist(), int(found.count[row]), bool(found.overflow[row]))
        verdict = ACCEPTED
        for host in (text, normalize_text(text, plain_marks=True)):
            words = words_of_text(host, _WORDS)
            wanted = (words.hash.tolist(), int(words.count), bool(words.overflow))
            verdict = verdict if verdict != ACCEPTED else equal(device, wanted, item)
        verdicts.append(verdict)
    return verdicts


# Metrics.

_SYMMETRIC = (exact_match, f1_set_of_words, f1_squad)


def _pair(rng: random.Random) -> tuple[str, str]:
    first = text_of(rng)
    return (first, first) if rng.random() < 0.2 else (first, text_of(rng))


def _judge_metrics(case: tuple[str, str]) -> None:
    first, second = case
    scores = {"bleu1": bleu1(first, second)}
    scores |= dict(zip(("rouge_l_recall", "rouge_l_f1"), rouge_l(first, second), strict=True))
    for category in range(6):
        question = Question("q", second, category, (), 0)
        scores |= score_by_question(first, question, plain_marks=category % 2 == 0)
    scores |= score_multiple_choice(first, "(b)")
    if wrong := {name: x for name, x in scores.items() if not 0 <= x <= 1}:
        raise Wrong(f"{wrong} is no score")
    for metric in _SYMMETRIC:
        if metric(first, second) != metric(second, first):
            raise Wrong(f"{metric.__name__} is not symmetric")
    if normalize_text(first) and exact_match(first, first) != 1:
        raise Wrong("a text does not match itself")
    if exact_match(first, second) > f1_squad(first, second):
        raise Wrong("an exact match has no full F1")


def text_targets() -> list[Target]:
    """Lists the targets of this module."""
    scans = [
        Target(
            f"scanner{'_salvage' * salvage}",
            _response,
            padded(functools.partial(_judge_scans, salvage=salvage), BATCH),
            BATCH,
        )
        for salvage in (False, True)
    ]
    return [
        *scans,
        Target("edits", _response, padded(_judge_edits, BATCH), BATCH),
        Target("answers", _answer, padded(_judge_answers, BATCH), BATCH),
        Target("words", text_of, padded(_judge_words, BATCH), BATCH),
        Target("metrics", _pair, single(_judge_metrics)),
    ]

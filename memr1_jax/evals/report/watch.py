"""Watches the manager on whole dialogues, and turns what its arrays held into text.

`watch` stands between `agents.ingest.ingest` and the compiled turn; `replay` joins what it kept
with the final answers.

Axis letters: N watched streams, M slots of a bank, W tokens of a memory, R response length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from memr1_jax.agents.ingest import Turn
from memr1_jax.agents.manager import MemoryManager, bytes_read
from memr1_jax.agents.tools import Tools
from memr1_jax.data.encode import Encoder, fact_streams
from memr1_jax.data.types import Conversation, Question
from memr1_jax.evals.answering import Prediction
from memr1_jax.evals.report.replay import (
    DialogueRecord,
    Memories,
    Memory,
    QuestionRecord,
    TurnRecord,
    differences,
    outcomes,
)
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.parallel.distributed import fetch
from memr1_jax.text.json_reference import scan_operations_reference


class Contents(NamedTuple):
    """The texts of banks: `tokens` `[N, M, W]`, `length` and `alive` `[N, M]`, NumPy."""

    tokens: np.ndarray
    length: np.ndarray
    alive: np.ndarray


class Response(NamedTuple):
    """Holds what a manager was shown and wrote: `slots`, `shown`, and `tokens` `[N, R]`, NumPy."""

    slots: np.ndarray
    shown: np.ndarray
    tokens: np.ndarray
    length: np.ndarray
    stopped: np.ndarray


class Seen(NamedTuple):
    """One turn of all watched streams; `response` is None where no manager was asked."""

    before: Contents
    after: Contents
    response: Response | None


def watch(ingest_turn: Callable, dialogues: int, seen: list[Seen]) -> Callable:
    """Wraps `ingest_turn` to append to `seen` what happened in the first `dialogues` dialogues.

    Args:
      ingest_turn: what `ingest` takes; it may donate the banks.
      dialogues: how many are kept; with 0 nothing is kept or slowed down.
      seen: an empty list for each call of `ingest`.
    """
    if dialogues <= 0:
        return ingest_turn
    streams = slice(0, 2 * dialogues)

    def keep(arrays):
        return jax.tree.map(lambda x: x[streams].copy(), fetch(arrays))

    def watched(params, tools, banks, facts, active):
        before = seen[-1].after if seen else keep(_contents(banks))
        banks, turn = ingest_turn(params, tools, banks, facts, active)
        response = None if turn is None else keep(_response(turn))
        seen.append(Seen(before, keep(_contents(banks)), response))
        return banks, turn

    return watched


def replay(
    seen: Sequence[Seen],
    conversations: Sequence[Conversation],
    predictions: Sequence[Prediction],
    manager: MemoryManager,
    tools: Tools,
    encoder: Encoder,
    tokenizer: Any,
) -> list[DialogueRecord]:
    """Turns the watched dialogues into text.

    Args:
      seen: from `watch`, all turns.
      conversations: those that were ingested, in the same order.
      predictions: answers from the finished banks.
      manager: the one that acted, for the number of operations that it may make.
      tools: see `Tools`.
      encoder: the one used for ingestion.
      tokenizer: turns tokens into text.
    """
    if not seen:
        return []
    table = fetch((tools.byte_table.bytes, tools.byte_table.length))
    answers = {(p.conversation, p.index): p for p in predictions}
    count, capacity = seen[0].before.alive.shape
    decode = functools.cache(lambda tokens: tokenizer.decode(list(tokens)).strip())

    def spell(response: Response) -> bytes:
        return _spelling(table, response, bytes_read(tools, len(response.tokens)))

    def record(conversation, speaker, row, index, item) -> TurnRecord:
        position, _, facts = item
        moment, turn = seen[index], conversation.turns[position]
        before, after = (_memories(decode, x, row) for x in (moment.before, moment.after))
        fields = {}
        if moment.response is not None:
            response = Response(*(array[row] for array in moment.response))
            fields = _written(manager, tokenizer, spell, response, before, capacity)
        return TurnRecord(
            speaker=conversation.speakers[speaker],
            turn=turn.dia_id,
            said_by=turn.speaker,
            time=conversation.dates[conversation.date_of_turn[position]],
            text=turn.content,
            facts=tuple(fact.text for fact in facts),
            changes=differences(before, after, fields.get("operations", ())),
            size=len(after),
            **fields,
        )

    dialogues = []
    for place, conversation in enumerate(conversations[: count // 2]):
        streams = fact_streams(conversation, encoder.sizes.facts)
        order = sorted(
            (item[0], speaker, index)
            for speaker, stream in enumerate(streams)
            for index, item in enumerate(stream)
        )
        turns = [
            record(conversation, speaker, 2 * place + speaker, index, streams[speaker][index])
            for _, speaker, index in order
        ]
        dialogues.append(
            DialogueRecord(
                id=conversation.id,
                speakers=conversation.speakers,
                capacity=capacity,
                turns=_with_questions(turns, conversation.questions),
                questions=tuple(
                    _question(question, answers.get((conversation.id, question.index)))
                    for question in conversation.questions
                ),
            )
        )
    return dialogues


def _memories(decode: Callable, contents: Contents, row: int) -> Memories:
    """Returns the texts of one bank by slot."""
    tokens, length = contents.tokens[row], contents.length[row]
    return {
        int(slot): decode(tuple(tokens[slot, : length[slot]].tolist()))
        for slot in np.flatnonzero(contents.alive[row])
    }


def _written(
    manager: MemoryManager,
    tokenizer: Any,
    spell: Callable[[Response], bytes],
    response: Response,
    before: Memories,
    capacity: int,
) -> dict:
    """Returns what a `TurnRecord` says of a response to a bank that held `before`."""
    slots = [int(slot) for slot in response.slots[: response.shown]]
    scan = scan_operations_reference(spell(response), manager.operations, manager.salvage)
    return {
        "operations": outcomes(scan.operations, slots, set(before), capacity),
        "shown": tuple(Memory(i, slot, before[slot]) for i, slot in enumerate(slots)),
        "output": _raw_text(tokenizer, manager, response),
        "stopped": bool(response.stopped),
        "valid": scan.valid,
        "salvaged": scan.salvaged,
        "none": scan.none,
        "skipped": scan.skipped,
        "dropped": scan.dropped,
    }


def _contents(banks: MemoryBank) -> Contents:
    return Contents(banks.tokens, banks.length, banks.alive)


def _response(turn: Turn) -> Response:
    prompt, samples = turn.prompt, turn.samples
    return Response(prompt.slots, prompt.shown, samples.tokens, samples.length, samples.stopped)


def _spelling(table, response: Response, most: int) -> bytes:
    """Returns the bytes of a response that are read; special tokens spell nothing."""
    spelled, length = table
    tokens = response.tokens[: response.length]
    return b"".join(spelled[token, : length[token]].tobytes() for token in tokens)[:most]


def _raw_text(tokenizer, manager: MemoryManager, response: Response) -> str:
    """Decodes the response with special tokens, but without the one that ends it."""
    tokens = response.tokens[: response.length].tolist()
    if tokens and tokens[-1] in manager.stop_tokens:
        tokens = tokens[:-1]
    return tokenizer.decode(tokens)


def _with_questions(
    turns: list[TurnRecord], questions: Sequence[Question]
) -> tuple[TurnRecord, ...]:
    """Adds to each turn the questions whose last evidence it is.

    If a turn has several records, the last one of the speaker's own bank gets them.
    """
    place: dict[str, int] = {}
    for index, record in enumerate(turns):
        best = place.get(record.turn)
        if (
            best is None
            or record.speaker == record.said_by
            or turns[best].speaker != record.said_by
        ):
            place[record.turn] = index
    decided: dict[int, list[int]] = {}
    for question in questions:
        if question.evidence and question.evidence[-1] in place:
            decided.setdefault(place[question.evidence[-1]], []).append(question.index)
    return tuple(
        dataclasses.replace(record, questions=tuple(decided.get(index, ())))
        for index, record in enumerate(turns)
    )


def _question(question: Question, prediction: Prediction | None) -> QuestionRecord:
    right = None
    if prediction is not None:
        scores = prediction.scores  # adversarial questions have no gold answer to match
        right = scores.get("exact_match", scores["f1_locomo_official"]) == 1
    return QuestionRecord(
        index=question.index,
        question=question.question,
        gold=question.answer,
        category=question.category,
        evidence=question.evidence,
        answer=None if prediction is None else prediction.answer,
        response=None if prediction is None else prediction.response,
        right=right,
    )

"""A conversation's banks, one a speaker: all they hold, and an answer from them."""

import time
from collections.abc import Mapping

from memr1_jax.bench.systems.answer_stage import AnswerStage, ask_for_answer
from memr1_jax.bench.systems.neighbours import nearest
from memr1_jax.bench.systems.protocol import Answer, Memory, Steps
from memr1_jax.bench.systems.text_bank import Bank, Embed
from memr1_jax.data.types import Question

SpeakerBanks = Mapping[str, Bank]


def all_memories(banks: SpeakerBanks) -> list[Memory]:
    """Returns the memories of all banks."""
    return [memory for bank in banks.values() for memory in bank.memories]


def answer_from_banks(
    stage: AnswerStage,
    speakers: tuple[str, str],
    question: Question,
    banks: SpeakerBanks,
    k: int,
    embed: Embed,
) -> Steps[Answer]:
    """Answers from the `k` memories of every bank that are nearest to the question, best first."""
    begin = time.perf_counter()
    found = [
        (score, bank.items[identity])
        for bank in banks.values()
        for identity, score in nearest(bank, question.question, k, embed)
    ]
    shown = [memory for _, memory in sorted(found, key=lambda pair: -pair[0])]
    seconds = time.perf_counter() - begin
    return (yield from ask_for_answer(stage, speakers, question, shown, search_seconds=seconds))

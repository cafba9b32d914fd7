"""The answer prompt of all rows, as text: the prompt files of the Answer Agent, filled by hand.

Systems whose memories belong to one of the two speakers show two lists, as the Answer Agent sees
them. Others show one list for both: the same file with the second list taken out.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

from memr1_jax.agents.prompt_files import PromptText, fill_line, fill_text, read_prompt
from memr1_jax.bench.systems.protocol import Answer, Call, Memory, Steps
from memr1_jax.data.types import Question
from memr1_jax.text.answer_span import extract_answer
from memr1_jax.text.plain import one_line

_LISTS = ("memories_1", "memories_2")
_BEST_FIRST, _OLDEST_FIRST = "best match first", "oldest first"

Count = Callable[[str], int]

_STEPS = 64  # steps in which a longer question takes the room of memories


@dataclasses.dataclass(frozen=True)
class AnswerStage:
    """Describes how all rows ask for an answer.

    `count` tells the tokens of a text, `room` the tokens that the question and the lists of
    memories may take, and `model` the weights that answer. `rerank(question, memories)` orders and
    thins the memories that were found.
    """

    prompt: PromptText
    count: Count
    room: int
    max_tokens: int = 2048
    model: str = "answer"
    rerank: Callable[[str, Sequence[Memory]], list[Memory]] | None = None


def answer_stage(
    name: str, count: Count, prompt_length: int, max_tokens: int, model: str = "answer"
) -> AnswerStage:
    """Builds the stage of the answer prompt `name` (see `read_prompt`).

    The prompt has at most `prompt_length` tokens; its frame and 32 tokens for names are taken off.
    """
    prompt = read_prompt(name, "answer")
    frame = sum(count(text) + 8 for _, text in prompt.messages) + 32
    return AnswerStage(prompt, count, max(prompt_length - frame, 0), max_tokens, model)


def answer_messages(
    prompt: PromptText,
    speakers: tuple[str, str],
    question: str,
    memories: Sequence[Memory],
    *,
    chronological: bool = False,
) -> tuple[tuple[str, str], ...]:
    """Returns the messages `(role, text)` of a question, with memories in the given order.

    There are two lists where every memory is owned by one of the speakers, otherwise one.
    """
    *fixed, (role, text) = prompt.messages
    if chronological:
        text = text.replace(_BEST_FIRST, _OLDEST_FIRST)
    first, second = map(one_line, speakers)
    slots = {"question": f" {question}"}
    if all(memory.owner in speakers for memory in memories):
        shown = [[m for m in memories if m.owner == speaker] for speaker in speakers]
        slots |= {"speaker_1": f" {first}", "speaker_2": f" {second}"}
    else:
        shown = [memories]
        slots["speaker_1"] = f" {first} and {second}"
        one, two = (f"{{{name}}}" for name in _LISTS)
        before, _, rest = text.partition(one)
        text = before + one + rest.partition(two)[2]
    for name, part in zip(_LISTS, shown, strict=False):
        lines = [memory_line(prompt, memory, name) for memory in part]
        slots[name] = "".join(lines) or prompt.empty[name]
    return (*fixed, (role, fill_text(text, slots)))


def memory_line(prompt: PromptText, memory: Memory, slot: str = _LISTS[0]) -> str:
    """Formats one memory as in the prompt, with its line end; without a time, no place for it."""
    line = prompt.entries[slot] if memory.time else prompt.entries[slot].replace("{time}:", "")
    return fill_line(line, {"time": f" {memory.time}", "text": f" {memory.text}"})


def question_text(question: Question) -> str:
    """Formats the question as it is asked: with its own date, and the options of a choice."""
    text = one_line(question.question)
    if question.time:
        text += f" (asked on {one_line(question.time)})"
    if question.options:
        text += "\nOptions:\n" + "\n".join(map(one_line, question.options))
        text += "\nThe answer is the letter of one option in brackets, as in (a)."
    return text


def fitting(
    stage: AnswerStage, question: str, memories: Sequence[Memory], *, chronological: bool = False
) -> list[Memory]:
    """Keeps as many memories as the prompt has room for next to the question, in their order.

    In order of relevance the last ones are dropped, in order of time the oldest. In order of time,
    questions of about one length are shown the same memories, so that the shared part of a long
    prompt is read once.
    """
    step = max(stage.room // _STEPS, 1) if chronological else 1
    room = stage.room - math.ceil(stage.count(question) / step) * step
    kept: list[Memory] = []
    for memory in reversed(memories) if chronological else memories:
        room -= stage.count(memory_line(stage.prompt, memory))
        if room < 0:
            break
        kept.append(memory)
    return kept[::-1] if chronological else kept


def ask_for_answer(
    stage: AnswerStage,
    speakers: tuple[str, str],
    question: Question,
    memories: Sequence[Memory],
    *,
    chronological: bool = False,
    search_seconds: float = 0.0,
) -> Steps[Answer]:
    """Asks a question with the memories that fit, and reads the answer from the response."""
    if stage.rerank is not None:
        begin = time.perf_counter()
        memories = stage.rerank(question.question, memories)
        search_seconds += time.perf_counter() - begin
    asked = question_text(question)
    shown = fitting(stage, asked, memories, chronological=chronological)
    messages = answer_messages(stage.prompt, speakers, asked, shown, chronological=chronological)
    (reply,) = yield [Call("answer", messages, stage.max_tokens, stage.model)]
    answer, rule = extract_answer(reply.text)
    return Answer(
        response=reply.text,
        answer=answer,
        rule=rule.name.lower(),
        memories=tuple(shown),
        search_seconds=search_seconds,
        without_room=len(memories) - len(shown),
    )

"""The answer prompt as text, against the one that the Answer Agent is given on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import bank_of, make_tiny

from memr1_jax.agents.answer import answer_prompt, retrieve_memories
from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.agents.templates import render_chat
from memr1_jax.bench.systems.answer_stage import (
    AnswerStage,
    answer_messages,
    ask_for_answer,
    fitting,
    memory_line,
    question_text,
)
from memr1_jax.bench.systems.protocol import Memory, Reply
from memr1_jax.data.encode import encode_queries, encode_scenes
from memr1_jax.data.types import Question

SPEAKERS = ("Ann", "Ben")


def memory(text, owner="Ann"):
    return Memory(text, "noon on 1 May, 2023", owner)


def words(text):
    return len(text.split())


def test_tokens_are_those_of_the_device_prompt():
    tiny = make_tiny()
    agent, encoder = tiny.pair.answerer, tiny.pair.encoder
    conversation = tiny.conversations[0]
    question = Question("Who has a dog?", "", 1, (), 0)
    texts = ["Ann has a dog named Rex.", "Ann plays chess."], ["Ben has two cats."]
    banks = [bank_of(tiny, part) for part in texts]
    scene = jax.tree.map(lambda x: jnp.asarray(x[0]), encode_scenes(encoder, [conversation]))
    query = jax.tree.map(lambda x: jnp.asarray(x[0]), encode_queries(encoder, [question]))
    found = tuple(retrieve_memories(agent, tiny.pair.tools, bank, query) for bank in banks)
    packed = answer_prompt(agent, scene, found, query)
    device = [*agent.template.instruction, *np.asarray(packed.tokens)[: int(packed.length)]]

    order = [[part[int(i)] for i in np.argsort(-np.asarray(f.score)[: len(part)], kind="stable")]
             for part, f in zip(texts, found, strict=True)]  # fmt: skip
    memories = [
        Memory(text, conversation.sessions[0].time, speaker)
        for speaker, part in zip(conversation.speakers, order, strict=True)
        for text in part
    ]
    prompt = read_prompt(f"answer_{tiny.options.answer_prompt}")
    messages = answer_messages(prompt, conversation.speakers, question.question, memories)
    assert tiny.encode(render_chat(prompt.name, messages, tiny.model.tokenizer)) == device


@pytest.mark.parametrize("name", ["answer_compact", "answer_full", "answer_compact_base"])
def test_one_list_where_memories_belong_to_nobody(name):
    prompt = read_prompt(name)
    memories = [memory("Ann said hello."), memory("Both like tea.", owner="")]
    messages = answer_messages(prompt, SPEAKERS, "Who?", memories, chronological=True)
    assert messages[:-1] == prompt.messages[:-1]
    text = messages[-1][1]
    assert "Memories of Ann and Ben" in text
    assert text.count("Memories of") == 1
    assert "best match" not in text
    lines = "- noon on 1 May, 2023: Ann said hello.\n- noon on 1 May, 2023: Both like tea.\n"
    assert lines in text
    assert "Question: Who?" in text[text.index(lines) :]
    assert "{" not in text


def test_two_lists_and_an_empty_one():
    text = answer_messages(read_prompt("answer_compact"), SPEAKERS, "Who?", [memory("It rains.")])
    assert text[-1][1] == (
        "Memories of Ann:\n- noon on 1 May, 2023: It rains.\nMemories of Ben:\n(empty)\n"
        "Question: Who?"
    )


def test_what_has_no_room_is_the_least_relevant_or_the_oldest():
    prompt = read_prompt("answer_compact")
    memories = [memory(f"Number {n} came.") for n in range(5)]
    line = words(memory_line(prompt, memories[0]))
    stage = AnswerStage(prompt, words, room=2 * line + words("Who came?"))
    assert fitting(stage, "Who came?", memories) == memories[:2]
    assert fitting(stage, "Who came?", memories, chronological=True) == memories[3:]
    assert fitting(stage, "Who came yesterday?", memories) == memories[:1]

    steps = ask_for_answer(stage, SPEAKERS, Question("Who came?", "", 1, (), 0), memories)
    next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send([Reply("Number 1", 9, 5, True, 0.1)])
    assert (len(end.value.value.memories), end.value.value.without_room) == (2, 3)


def test_questions_of_about_one_length_see_the_same_dialogue():
    prompt = read_prompt("answer_compact")
    memories = [memory(f"Number {n} came.") for n in range(200)]
    line = words(memory_line(prompt, memories[0]))
    stage = AnswerStage(prompt, words, room=64 * line)  # so that a step is one line
    seen = [
        len(fitting(stage, "word " * count, memories, chronological=True))
        for count in (1, line, line + 1, 2 * line)
    ]
    assert seen == [63, 63, 62, 62]


def test_the_answer_is_read_from_the_response():
    stage = AnswerStage(read_prompt("answer_compact"), words, room=100, max_tokens=7)
    question = Question("Who?", "Ann", 1, (), 0)
    steps = ask_for_answer(stage, SPEAKERS, question, [memory("It rains.")], search_seconds=0.5)
    (call,) = next(steps)
    assert (call.stage, call.max_tokens, call.model) == ("answer", 7, "answer")
    with pytest.raises(StopIteration) as end:
        steps.send([Reply("It rains. **Answer:** Ann", 9, 5, True, 0.1)])
    answer = end.value.value
    assert (answer.answer, answer.rule, answer.search_seconds) == ("Ann", "bold_label", 0.5)
    assert answer.memories == (memory("It rains."),)


def test_a_question_brings_its_date_and_its_options():
    question = Question(
        "Which tea?",
        "(b)",
        0,
        (),
        0,
        time="3 May",
        options=("(a) mint", "(b) green"),
    )
    assert question_text(question) == (
        "Which tea? (asked on 3 May)\nOptions:\n(a) mint\n(b) green\n"
        "The answer is the letter of one option in brackets, as in (a)."
    )
    assert question_text(Question("Which tea?", "mint", 1, (), 0)) == "Which tea?"


def test_a_memory_without_a_time_has_no_place_for_it():
    assert memory_line(read_prompt("answer_compact"), Memory("It rains.", "")) == "- It rains.\n"

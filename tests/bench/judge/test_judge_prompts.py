"""Prompts of the judge: forms, slots, digests, and the one for each type of question."""

import hashlib
import importlib.resources
import re

import pytest

from memr1_jax.bench.judge.judge_prompts import judge_prompt, longmemeval_prompt, parse_prompt

FOLDER = importlib.resources.files("memr1_jax.bench.judge") / "prompts"
NAMES = sorted(file.name[:-4] for file in FOLDER.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_every_prompt_has_its_slots_words_and_digest(name):
    prompt = judge_prompt(name)
    text = (FOLDER / f"{name}.txt").read_bytes()
    assert prompt.digest == hashlib.sha256(text).hexdigest()
    ((role, content),) = prompt.messages
    assert role == "user"
    assert sorted(re.findall(r"\{(\w+)\}", content)) == ["answer", "gold", "question"]
    for word in (prompt.right, prompt.wrong):
        assert word in content and word in prompt.reminder
    assert ("JSON" in content) == prompt.json


def test_texts_go_into_their_slots_as_they_are():
    prompt = parse_prompt(
        "p", "[verdict word yes no]\n[system]\nBe fair.\n[user]\n{question}|{gold}|{answer}\n"
        "[reminder]\nyes or no?\n"
    )  # fmt: skip
    messages = prompt.fill("Who {gold}?", "a {answer}", "  ")
    assert messages == (("system", "Be fair."), ("user", "Who {gold}?|a {answer}|(nothing)"))
    again = prompt.remind(messages, "hm")
    assert again[2:] == (("assistant", "hm"), ("user", "yes or no?"))
    assert prompt.remind(messages, "")[2] == ("assistant", "(nothing)")


@pytest.mark.parametrize(
    "text",
    [
        "[user]\nx\n[reminder]\ny\n",
        "[verdict word yes no]\n[user]\nx\n",
        "[verdict word yes no]\n[reminder]\ny\n",
        "hello\n[verdict word yes no]\n[user]\nx\n[reminder]\ny\n",
    ],
)
def test_incomplete_prompts_are_refused(text):
    with pytest.raises(ValueError, match="The prompt p lacks"):
        parse_prompt("p", text)


def test_types_of_longmemeval_have_five_prompts():
    types = ["single-session-user", "single-session-assistant", "multi-session"]
    types += ["temporal-reasoning", "knowledge-update", "single-session-preference"]
    names = [longmemeval_prompt(kind).name.removeprefix("longmemeval_") for kind in types]
    assert names == ["default"] * 3 + ["temporal", "update", "preference"]
    for kind in types:
        assert longmemeval_prompt(kind, abstention=True).name == "longmemeval_abstention"
    with pytest.raises(ValueError, match="no questions of the type 'other'"):
        longmemeval_prompt("other")
    assert len({judge_prompt(name).digest for name in NAMES}) == len(NAMES) == 8

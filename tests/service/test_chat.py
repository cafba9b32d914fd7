"""The conversation in the terminal."""

import pytest
from scripted_agents import ScriptedAgents

from memr1_jax.service.chat import Chat
from memr1_jax.service.memory import Memory


@pytest.fixture
def chat(tmp_path):
    with Memory(ScriptedAgents(), db=tmp_path / "m.db") as memory:
        yield Chat(memory, user_id="ana")


def test_it_shows_what_was_remembered_and_takes_it_back(chat):
    assert chat.reply("city is Oslo") == ["  add: city is Oslo"]
    assert chat.reply("city is Rome") == ["  update: city is Rome  (was: city is Oslo)"]
    assert chat.reply("the city?") == ["city is Rome", "  from: city is Rome"]
    assert chat.reply("/why") == ["prompt city is Rome\n-> output"]
    assert chat.reply("/undo") == ["  undone: city is Rome"]
    assert chat.reply("/list") == ["  city is Oslo"]
    assert chat.reply("/as-of 2000-01-01") == ["Looking at 2000-01-01."]
    assert chat.reply("/list") == ["(no memories)"]
    assert chat.reply("the city?") == ["unknown"]
    assert chat.reply("/as-of") == ["Looking at today."]
    assert chat.reply("/undo") == ["  undone: city is Oslo"]
    assert "Nothing" in chat.reply("/undo")[0] and "Nothing" in chat.reply("/why")[0]


def test_it_says_what_is_wrong(chat):
    assert "no time" in chat.reply("/as-of soon")[0]
    assert "/undo" in chat.reply("/what")[0] and "/why" in chat.reply("/help")[0]
    assert chat.reply("  ") == []

"""A tiny model behind `Memory`: the same banks and answers as evaluation builds."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_model import make_tiny

from memr1_jax.agents.ingest import ingest
from memr1_jax.data.types import Fact
from memr1_jax.inference.agents import Agents
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import Scope


def tokens(bank):
    return {
        int(slot): bank.tokens[slot, : bank.length[slot]].tolist()
        for slot in np.flatnonzero(bank.alive)
    }


def one_by_one(ingest_turn):
    """Ingests the streams of a batch by the program for one, which `Memory` uses too."""

    def ingest_all(params, tools, *batch):
        rows = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(len(batch[-1]))]
        turns = [ingest_turn(params, tools, *row) for row in rows]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *turns)

    return ingest_all


def test_added_dialogues_give_the_banks_of_an_evaluation(tmp_path):
    tiny = make_tiny(bank_capacity=64)
    whole = tiny.conversations[0]
    turns = whole.turns[6:12]  # those at which the tiny model does something
    facts = [
        Fact(turn.speaker, f"{turn.speaker}: {turn.text}", 0, (turn.dia_id,)) for turn in turns
    ]
    dialogue = dataclasses.replace(whole, facts=tuple(facts))
    agents = Agents(tiny.options, tiny.models, tiny.pair)
    turn, pair = one_by_one(agents._ingest_turn), tiny.pair
    found = ingest(turn, tiny.model.params, pair.tools, pair.encoder, [dialogue])
    expected = {
        name: tokens(jax.tree.map(lambda x: x[0], bank))
        for name, bank in zip(dialogue.speakers, found.banks, strict=True)
    }
    said = [{"role": "user", "name": turn.speaker, "content": turn.text} for turn in turns]
    with Memory(agents, db=tmp_path / "m.db") as memory:
        # In two calls, between which the banks go through the database.
        for part in (said[:3], said[3:]):
            memory.add(part, user_id="ana")
        held = memory.store.memories(Scope.of("ana"))
        assert held
        for name in dialogue.speakers:
            own = [state for state in held.values() if state["speaker"] == name]
            assert {state["slot"]: state["tokens"] for state in own} == expected[name]
        reply = memory.answer("Where?", user_id="ana", explain=True)
        query = agents.query("Where?")
        rows = agents.vectors([state["tokens"] for state in held.values()])
        scores = dict(zip(held, rows @ query, strict=True))  # several may be the same
        assert scores[reply["results"][0]["id"]] == pytest.approx(max(scores.values()))
        assert reply["results"][0]["memory"] in reply["explain"]["prompt"]

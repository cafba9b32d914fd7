"""Checks what two agents of one run do not share, and what they are not shown."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_model import make_tiny, options

from memr1_jax.data.tuples import linked_questions, manager_tuples
from memr1_jax.training.build import build_learner, trainable
from memr1_jax.training.loop import batch_rows
from memr1_jax.training.training_data import manager_data


def _same(first, second):
    return all(
        np.array_equal(*map(np.asarray, pair))
        for pair in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    )


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "sft", "best_of_n"])
def test_agents_of_one_seed_draw_from_streams_of_their_own(algorithm):
    tiny = make_tiny()
    chosen = options(algorithm=algorithm, kl_weight=0.0, lora_rank=2)

    def start(agent, seed=0):
        learner = build_learner(chosen, agent)
        params = trainable(dataclasses.replace(chosen, seed=seed), tiny.model, agent)
        state = learner.create_state(params, seed, tiny.model.config.model_width)
        drawn = {"adapters": params, "key": jax.random.key_data(state.key)}
        if algorithm == "ppo":
            drawn["head"] = state.critic["value_head"]["kernel"]
        return drawn | {"order": batch_rows(seed, 0, 50, 10, agent)}

    manager, answer, other_seed = start("manager"), start("answer"), start("manager", seed=1)
    for name, drawn in manager.items():
        assert _same(drawn, start("manager")[name])
        assert not _same(drawn, answer[name]) and not _same(drawn, other_seed[name])


def test_turns_without_a_noted_fact_are_counted_when_data_are_made(capsys):
    tiny = make_tiny()
    (dialogue,) = tiny.conversations
    dialogue = dataclasses.replace(dialogue, operations=())
    whole = manager_tuples(dialogue, tiny.options.window, tiny.options.link)
    silent = whole[-1]
    kept = tuple(fact for fact in dialogue.facts if fact.sources[-1] != silent.dia_id)
    dialogue = dataclasses.replace(dialogue, facts=kept)
    data = manager_data(tiny.options, tiny.pair, tiny.models, [dialogue])
    assert data.rows == len(whole) - 1
    questions = len(linked_questions(dialogue, tiny.options.link)[silent.turn])
    said = capsys.readouterr().out
    assert f"1 turns without a noted fact, {questions} questions that belong to these" in said

"""The manager under watch: what its arrays held, as text."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tiny_model import make_tiny, row_of, texts_of

from memr1_jax.agents.ingest import Turn, add_everything, ingest, make_ingest_turn
from memr1_jax.agents.manager import apply_response, manager_prompt
from memr1_jax.data.types import Conversation, Fact, Question, Session
from memr1_jax.data.types import Turn as Utterance
from memr1_jax.evals.answering import Prediction
from memr1_jax.evals.report.replay import Change, Operation
from memr1_jax.evals.report.watch import replay, watch
from memr1_jax.models.sampler import Samples

WRITTEN = [
    '{"op": "ADD", "text": "Ana has a dog."}',
    '{"op": "UPDATE", "id": 0, "text": "Ana has a cat."}',
    '{"op": "DELETE", "id": 0} {"op": "ADD", "text": "Ana is ill."}',
    '{"op": "DELETE", "id": 9} {"op": "EAT"} {"op": "NOOP"}',
    '{"op": "ADD", "text": "Ana swims."',
]


def _conversation():
    """Makes a dialogue: Ana says five things, one fact each; Ben listens."""
    turns = tuple(Utterance("Ana", f"Words {i}.", f"D1:{i}") for i in range(5))
    facts = tuple(Fact("Ana", f"Ana fact {i}.", 1, (f"D1:{i}",)) for i in range(5))
    questions = (
        Question("Which animal?", "cat", 4, ("D1:0", "D1:1"), 0),
        Question("How is Ana?", "ill", 4, ("D1:2",), 1),
        Question("Who is Ben?", "nobody", 1, (), 2),
    )
    return Conversation("c1", ("Ana", "Ben"), (Session(1, "1 May", turns),), questions, facts)


def _scripted(tiny, written):
    """Makes the compiled turn give set responses instead of samples; only stream 0 acts."""
    manager, calls = tiny.pair.manager, []

    def act(tools, bank, facts, tokens, length):
        prompt = manager_prompt(manager, tools, bank, facts)
        after, report = apply_response(manager, tools, bank, prompt, facts, tokens, length)
        return after, prompt, report

    act = jax.jit(jax.vmap(act, (None, 0, 0, 0, 0)), donate_argnums=1)

    def ingest_turn(params, tools, banks, facts, active):
        text = written[len(calls)]
        tokens, length = row_of(tiny, text, manager.response_length)
        calls.append(text)
        tokens = jnp.stack([jnp.asarray(tokens), jnp.zeros(len(tokens), jnp.int32)])
        length = jnp.array([length, 0])
        after, prompt, report = act(tools, banks, facts, tokens, length)
        stopped = jnp.array([True, True])
        samples = Samples(tokens, length, jnp.zeros(tokens.shape), stopped)
        return after, Turn(prompt, samples, report)

    return ingest_turn


def _watched(tiny, ingest_turn, conversations, predictions=(), dialogues=1, tools=None):
    seen, pair = [], tiny.pair
    tools = pair.tools if tools is None else tools
    ingestion = ingest(
        watch(ingest_turn, dialogues, seen),
        tiny.model.params,
        tools,
        pair.encoder,
        conversations,
    )
    arguments = pair.manager, tools, pair.encoder, tiny.model.tokenizer
    return replay(seen, conversations, predictions, *arguments), ingestion


def test_every_turn_of_a_dialogue(tiny):
    prediction = Prediction(
        *("c1", 0, "Which animal?", "cat", 4, "**Answer:** a cat", "a cat", "bold_label", 7, True),
        scores={"exact_match": 1.0, "f1_locomo_official": 1.0},
    )
    free = dataclasses.replace(tiny.pair.tools, grammar=None)
    (dialogue,), _ = _watched(
        tiny, _scripted(tiny, WRITTEN), [_conversation()], [prediction], tools=free
    )
    assert (dialogue.id, dialogue.speakers, dialogue.capacity) == ("c1", ("Ana", "Ben"), 16)
    turns = dialogue.turns
    assert [turn.turn for turn in turns] == [f"D1:{i}" for i in range(5)]
    assert {(turn.speaker, turn.said_by, turn.time) for turn in turns} == {("Ana", "Ana", "1 May")}
    assert [turn.text for turn in turns] == [f"Words {i}." for i in range(5)]
    assert [turn.facts for turn in turns] == [(f"Ana fact {i}.",) for i in range(5)]
    assert [turn.output for turn in turns] == WRITTEN
    assert [turn.size for turn in turns] == [1] * 5
    assert [turn.valid for turn in turns] == [True] * 4 + [False]
    assert [[memory.text for memory in turn.shown] for turn in turns] == [
        [],
        ["Ana has a dog."],
        ["Ana has a cat."],
        ["Ana is ill."],
        ["Ana is ill."],
    ]
    assert [turn.operations for turn in turns] == [
        (Operation("ADD", None, "Ana has a dog.", "applied", 0),),
        (Operation("UPDATE", 0, "Ana has a cat.", "applied", 0),),
        (
            Operation("DELETE", 0, "", "applied", 0),
            Operation("ADD", None, "Ana is ill.", "applied", 0),
        ),
        (Operation("DELETE", 9, "", "unknown", None),),
        (),
    ]
    assert [turn.changes for turn in turns] == [
        (Change("added", 0, None, "Ana has a dog."),),
        (Change("changed", 0, "Ana has a dog.", "Ana has a cat."),),
        (
            Change("removed", 0, "Ana has a cat.", None),
            Change("added", 0, None, "Ana is ill."),
        ),
        (),
        (),
    ]
    assert (turns[3].skipped, turns[3].none, turns[3].dropped) == (1, 1, 0)
    assert [turn.questions for turn in turns] == [(), (0,), (1,), (), ()]
    first, second, third = dialogue.questions
    assert (first.answer, first.gold, first.right) == ("a cat", "cat", True)
    assert (second.answer, second.right) == (None, None)
    assert third.evidence == ()


def test_what_the_model_samples_adds_up(tiny):
    made = make_tiny(synthetic_train=2)
    turn = make_ingest_turn(made.pair.manager, made.model.decoder)
    dialogues, ingestion = _watched(made, turn, made.conversations, dialogues=2)
    assert [d.id for d in dialogues] == [c.id for c in made.conversations]
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    counts = ingestion.counts
    assert len(turns) == counts["turns"] > 10
    operations = [operation for turn in turns for operation in turn.operations]
    for event in ("add", "update", "delete"):
        assert sum(o.event == event.upper() for o in operations) == counts[event], event
    for outcome in ("unknown", "gone", "refused"):
        assert sum(o.outcome == outcome for o in operations) == counts[outcome], outcome
    assert sum(turn.none for turn in turns) == counts["none"]
    assert sum(not turn.stopped for turn in turns) == counts["responses_cut"]
    # The differences, one after another, make the banks.
    for place, dialogue in enumerate(dialogues):
        for speaker, name in enumerate(dialogue.speakers):
            bank = {}
            for record in (turn for turn in dialogue.turns if turn.speaker == name):
                for change in record.changes:
                    assert bank.get(change.slot) == change.before
                    bank[change.slot] = change.after
                    if change.after is None:
                        del bank[change.slot]
                assert len(bank) == record.size
            held = jax.tree.map(lambda x, place=place: x[place], ingestion.banks[speaker])
            held = {slot: text.strip() for slot, text in texts_of(made, held).items()}
            assert bank == held
    asked = [index for dialogue in dialogues for turn in dialogue.turns for index in turn.questions]
    assert len(asked) == len([q for d in dialogues for q in d.questions if q.evidence])


def test_without_a_manager_facts_are_added(tiny):
    (dialogue,), _ = _watched(tiny, add_everything, [_conversation()])
    assert [turn.size for turn in dialogue.turns] == [1, 2, 3, 4, 5]
    last = dialogue.turns[-1]
    assert last.changes == (Change("added", 4, None, "Ana fact 4."),)
    assert (last.output, last.shown, last.operations) == (None, (), ())


@pytest.mark.parametrize("dialogues, kept", [(0, 0), (1, 2), (5, 4)])
def test_only_the_first_dialogues_are_kept(tiny, dialogues, kept):
    other = dataclasses.replace(_conversation(), id="c2")
    seen = []
    turn = watch(add_everything, dialogues, seen)
    ingest(turn, None, tiny.pair.tools, tiny.pair.encoder, [_conversation(), other])
    assert (turn is add_everything) == (not dialogues)
    assert {len(moment.after.alive) for moment in seen} == ({kept} if kept else set())


def test_a_turn_of_both_speakers_belongs_to_the_one_who_spoke(tiny):
    made = _conversation()
    facts = (*made.facts[:1], Fact("Ben", "Ben was told.", 1, ("D1:0",)), *made.facts[1:])
    made = dataclasses.replace(made, facts=facts)
    (dialogue,), _ = _watched(tiny, add_everything, [made])
    assert [(t.turn, t.speaker) for t in dialogue.turns[:2]] == [("D1:0", "Ana"), ("D1:0", "Ben")]
    question = Question("?", "!", 4, ("D1:0",), 7)
    (dialogue,), _ = _watched(
        tiny, add_everything, [dataclasses.replace(made, questions=(question,))]
    )
    assert [turn.questions for turn in dialogue.turns[:2]] == [(7,), ()]

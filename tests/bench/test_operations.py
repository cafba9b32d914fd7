"""Changes of a system's memories, compared with gold operations."""

import collections
import json

import numpy as np
import pytest

from memr1_jax.bench.harness import run_row
from memr1_jax.bench.operations import (
    Change,
    OperationScorer,
    changes,
    of_answers,
    operation_scores,
    question_counts,
)
from memr1_jax.bench.scoring import summarise
from memr1_jax.bench.systems.answer_stage import answer_stage
from memr1_jax.bench.systems.crud import CrudSystem
from memr1_jax.bench.systems.extraction import noted_facts
from memr1_jax.bench.systems.managers import add_only, newest_wins
from memr1_jax.bench.systems.protocol import Memory, Reply
from memr1_jax.bench.systems.text_bank import Bank
from memr1_jax.bench.tables.rows import row_of
from memr1_jax.bench.tables.table_files import TableRow, markdown
from memr1_jax.data import synthetic
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.synthetic import generate_conversations, write_synthetic
from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.text.events import Event

SAID = (  # session, what is noted, operation, the fact whose entry goes
    (1, "Ana lives in Oslo.", Event.ADD, None),
    (1, "Ana has a cat.", Event.ADD, None),
    (2, "Ana lives in Bergen.", Event.UPDATE, 0),
    (2, "Ana has a cat, as she said.", Event.NONE, None),
    (3, "Ana gave the cat away.", Event.DELETE, 1),
)


def dialogue(said=SAID):
    numbers = sorted({number for number, *_ in said})
    ids = [f"D{number}:{place + 1}" for place, (number, *_) in enumerate(said)]
    sessions = tuple(
        Session(
            number,
            f"day {number}",
            tuple(Turn("Ana", note, ids[i]) for i, (n, note, *_) in enumerate(said) if n == number),
        )
        for number in numbers
    )
    facts = tuple(Fact("Ana", note, number, (ids[i],)) for i, (number, note, *_) in enumerate(said))
    operations = tuple(
        GoldOperation(event, i, note if event.writes else "", old)
        for i, (_, note, event, old) in enumerate(said)
    )
    return Conversation("c", ("Ana", "Bo"), sessions, (), facts, operations)


def memory(text, *sources):
    return Memory(text, "day", "Ana", sources)


OSLO, CAT = memory("Ana lives in Oslo.", "D1:1"), memory("Ana has a cat.", "D1:2")
BERGEN = memory("Ana lives in Bergen.", "D1:1", "D2:3")
CAT_AGAIN = memory("Ana has a cat.", "D1:2", "D2:4")


def scored(*looks):
    talk = dialogue()
    scorer = OperationScorer(talk)
    for session, held in zip(talk.sessions, looks, strict=True):
        scorer.look(session, held)
    return scorer.finish()


def test_changes_are_found_by_the_turns_that_memories_come_from():
    found = changes([OSLO, CAT], [BERGEN, memory("Bo sings.", "D2:5")])
    assert found == [
        Change(Event.UPDATE, OSLO, BERGEN),
        Change(Event.ADD, None, memory("Bo sings.", "D2:5")),
        Change(Event.DELETE, CAT, None),
    ]
    assert changes([CAT], [CAT_AGAIN]) == []  # it has only gained a turn
    twice = [memory("Tea.", "D1:1")] * 2
    assert changes(twice[:1], twice) == [Change(Event.ADD, None, twice[0])]


def test_the_gold_operations_themselves_score_full_marks():
    scores = operation_scores(scored([OSLO, CAT], [BERGEN, CAT_AGAIN], [BERGEN]))
    assert all(scores[f"{e}_{w}"] == 1 for e in ("add", "update", "delete")
               for w in ("precision", "recall"))  # fmt: skip
    assert scores["stale"] == scores["duplicates"] == scores["missing"] == 0
    assert scores["wrong_deletes"] == 0 and scores["cascade"] is None


def test_a_store_of_everything_has_stale_facts_and_duplicates():
    facts = dialogue().facts
    held = [memory(fact.text, *fact.sources) for fact in facts]
    found = scored(held[:2], held[:4], held)
    assert (found["add_made"], found["add_gold"], found["add_right"]) == (5, 2, 2)
    assert found["update_gold"] == found["delete_gold"] == 1
    assert found["update_right"] == found["delete_right"] == found["wrong_deletes"] == 0
    # Oslo and the cat hold no longer, the repetition says nothing new, and the last note is true.
    assert (found["held"], found["stale"], found["duplicates"]) == (5, 2, 1)
    assert operation_scores(found)["add_precision"] == 2 / 5


def test_facts_that_hold_and_are_lost_are_counted():
    overwritten = memory("Ana lives in Bergen.", "D1:2", "D2:3")  # the cat's memory instead
    found = scored([OSLO, CAT], [OSLO, overwritten], [overwritten])
    assert found["update_made"] == 1 and found["update_right"] == 0
    assert found["wrong_deletes"] == 1  # the cat; that Oslo went at last is late, but not wrong
    assert found["delete_made"] == 1 and found["delete_right"] == 0
    assert scored([OSLO, CAT], [BERGEN], [])["wrong_deletes"] == 2
    assert scored([OSLO], [BERGEN], [BERGEN])["missing"] == 0
    assert scored([OSLO], [OSLO], [])["missing"] == 1  # Bergen


def test_words_decide_between_facts_of_the_same_turns():
    told = (("Ana lives in Oslo.", 1), ("Ana has a cat.", 1), ("Ana lives in Bergen.", 2))
    sources = {1: ("D1:1", "D1:2"), 2: ("D2:1",)}
    sessions = tuple(
        Session(n, "", tuple(Turn("Ana", "...", turn) for turn in sources[n])) for n in sources
    )
    facts = tuple(Fact("Ana", text, n, sources[n]) for text, n in told)
    events = (Event.ADD, Event.ADD, Event.UPDATE)
    operations = tuple(
        GoldOperation(event, i, facts[i].text, 0 if event == Event.UPDATE else None)
        for i, event in enumerate(events)
    )
    talk = Conversation("c", ("Ana", "Bo"), sessions, (), facts, operations)
    oslo, cat, bergen = (memory(fact.text, *fact.sources) for fact in facts)
    moved = memory(bergen.text, *sources[1], *sources[2])
    for kept, right in ((cat, 1), (oslo, 0)):  # the other one is rewritten
        scorer = OperationScorer(talk)
        scorer.look(sessions[0], [oslo, cat])
        scorer.look(sessions[1], [moved, kept])
        found = scorer.finish()
        assert (found["add_right"], found["update_right"]) == (2, right)
        assert (found["stale"], found["wrong_deletes"]) == (1 - right, 1 - right)


def test_a_repetition_may_reword_a_memory():
    reworded = memory("Ana has a cat, as she said.", "D1:2", "D2:4")
    assert scored([OSLO, CAT], [BERGEN, reworded], [BERGEN])["wrong_deletes"] == 0


@pytest.mark.parametrize(
    ("fields", "answer", "expected"),
    [
        ({"outdated": ("Oslo",)}, "In Oslo!", {"changed_asked": 1, "changed_stale": 1}),
        ({"outdated": ("Oslo",)}, "Osloborg", {"changed_asked": 1}),
        ({"kind": "cascade"}, "the tea", {"cascade_asked": 1, "cascade_right": 1}),
        ({"category": 5}, "Not mentioned.", {"absence_asked": 1, "absence_right": 1}),
        ({"category": 5}, "tea", {"absence_asked": 1}),
        ({}, "tea", {}),
    ],
)
def test_answers_on_what_changed_depends_or_was_never_said(fields, answer, expected):
    question = Question("?", "tea", **{"category": 4, "evidence": (), "index": 0} | fields)
    assert +question_counts(question, answer) == expected


def ran(manager, conversations):
    """Runs a row with this manager on noted facts, without a language model."""

    def embed(texts):
        return np.ones((len(texts), 1))

    def run(calls):
        return [Reply("x", 1, 1, True, 0)] * len(calls)

    stage = answer_stage("compact", len, 9000, 4)
    system = CrudSystem("row", noted_facts(conversations), manager(embed), embed, stage, 3)
    return run_row(system, conversations, run, len)


def test_rows_of_generated_dialogues_are_scored():
    sizes = {"num_sessions": 6, "facts_per_session": 5, "changes": 0.3, "cascades": 0.15}
    talks = generate_conversations(2, 3, absences=2, **sizes)
    kept, newest = (ran(manager, talks) for manager in (add_only, newest_wins))
    gold = sum(o.event == Event.UPDATE for talk in talks for o in talk.operations)
    for run in (kept, newest):
        assert run.operations["update_gold"] == gold > 5
        assert run.operations["absence_asked"] == 6 and run.operations["cascade_asked"] > 0
    assert operation_scores(kept.operations)["update_recall"] == 0
    assert kept.operations["wrong_deletes"] == 0 and kept.operations["missing"] == 0
    assert newest.operations["update_right"] > 0
    assert newest.operations["stale"] < kept.operations["stale"]
    row = TableRow("newest_wins", row_of(newest), newest.answered, summarise(newest.answered))
    about = {"title": "t", "models": {}, "dtype": "", "embedder": "", "answer_prompt": ""}
    about |= {"facts": "noted", "paper": [], "irregular": {"facts without turns": 2}}
    text = markdown(about, [row])
    assert "Irregular in the data: facts without turns: 2." in text
    assert "| ADD P | ADD R | UPDATE P | UPDATE R |" in text.split("## Memory operations")[1]
    ordinary = generate_conversations(2, 1, num_sessions=2)
    without = ran(add_only, [plain(talk) for talk in ordinary]).operations
    assert {name.partition("_")[0] for name in without} <= {"changed"}
    silent = operation_scores(of_answers(kept.operations))
    assert silent["add_recall"] is silent["missing"] is None and silent["absence"] == 0


def plain(talk):
    return Conversation(talk.id, talk.speakers, talk.sessions, talk.questions, talk.facts)


def wins(texts):
    """Returns the memories after facts of one person, told one after another."""
    bank, counts = Bank(), collections.Counter()
    manage = newest_wins(lambda texts: np.ones((len(texts), 1)))
    for number, text in enumerate(texts):
        steps = manage(bank, [Fact("user", text, 1, (f"D1:{number}",))], f"{number}", counts)
        with pytest.raises(StopIteration) as end:
            next(steps)
        bank = end.value.value
    return [memory.text for memory in bank.memories], counts


def test_the_newest_fact_replaces_the_one_that_begins_alike():
    told = ["user: The head of Fenwick is Al Bird.", "user: The head of Marl is Cy Drew."]
    texts, counts = wins([*told, "user: The head of Fenwick is Eve Fox."])
    assert texts == ["user: The head of Fenwick is Eve Fox.", told[1]]
    assert counts == {"add": 2, "update": 1}
    assert wins(["Tea.", "Tea."])[1] == {"add": 1, "none": 1}


def test_generated_chains_are_asked_about(tmp_path):
    path = tmp_path / "d.json"
    sizes = {"num_sessions": 8, "facts_per_session": 5, "changes": 0.4, "cascades": 0.2}
    write_synthetic(path, 1, train=4, validation=0, test=0, absences=3, **sizes)
    talks = load_conversations(path, adversarial=True)
    asked = [(talk, q) for talk in talks for q in talk.questions]
    cascades = [(talk, q) for talk, q in asked if q.kind == "cascade"]
    assert any(q.outdated for _, q in cascades)
    for talk, question in cascades:
        notes = {fact.sources[-1]: fact.text for fact in talk.facts}
        told = [notes[turn] for turn in question.evidence]
        assert len(told) >= 2 and any("at home" in text for text in told)
        assert any(question.answer in text for text in told)
    for _, question in asked:
        assert question.answer not in question.outdated
    absences = [(talk, q) for talk, q in asked if q.kind == "absence"]
    assert len(absences) == 12
    assert {(q.category, q.answer, q.evidence) for _, q in absences} == {(5, "not mentioned", ())}
    assert all(q.distractor for _, q in absences)
    assert not any(q.kind == "absence" for talk in load_conversations(path) for q in talk.questions)
    for seed in range(20):  # without the settings there are none
        (record,) = synthetic.generate(seed, 1)
        assert not any("kind" in q or q["category"] == 5 for q in record["qa"])
        assert not any("at home, in" in str(told) for told in record["observation"].values())
    # A chain: some fact changed twice, and both earlier values are known.
    assert max(len(q.outdated) for _, q in asked) >= 2
    records = json.loads(path.read_text())
    assert all(
        "outdated" not in q or q["outdated"]
        for r in records
        for q in r["qa"]
        if q.get("kind") != "cascade"
    )

import collections

import pytest

from memr1_jax.data.audit import read_audit, with_audit
from memr1_jax.data.locomo import IDS, load_conversations
from memr1_jax.errors import UserError


def _entry(identity, question, error, answer):
    return {
        "question_id": identity,
        "question": question,
        "golden_answer": "?",
        "category": 4,
        "error_type": error,
        "cited_evidence": [],
        "correct_evidence": [],
        "reasoning": "",
        "correct_answer": answer,
    }


@pytest.fixture
def conversations(write, sample):
    sample["sample_id"] = "conv-30"  # the second of the published file
    return load_conversations(write([sample]))


def test_ids_follow_the_published_order_whatever_the_file_holds(conversations):
    assert IDS[1] == "conv-30"
    assert [q.id for q in conversations[0].questions][:2] == ["locomo_1_qa0", "locomo_1_qa1"]
    assert conversations[0].questions[-1].id == "locomo_1_qa8"  # the eighth is adversarial


def test_objections_stand_beside_the_published_answers(write, conversations):
    entries = [
        _entry("locomo_1_qa0", "How many boats has Lou?", "HALLUCINATION", "4"),
        _entry("locomo_1_qa2", "What does Kim grow?", "WRONG_CITATION", "beans (see D2:1)"),
        _entry("locomo_7_qa2", "What does Ann grow?", "AMBIGUOUS", "figs"),
    ]
    checked = with_audit(conversations, read_audit(write(entries, "errors.json")))
    told = [(q.answer, q.corrected, q.doubt) for q in checked[0].questions][:3]
    assert told == [
        ("3", "4", "HALLUCINATION"),
        ("boats", None, ""),
        ("beans", None, "WRONG_CITATION"),  # the answer is right, its evidence is not
    ]
    assert [c.sessions for c in checked] == [c.sessions for c in conversations]


def test_an_audit_of_other_data_is_refused(write, conversations):
    path = write([_entry("locomo_1_qa0", "How old is Lou?", "AMBIGUOUS", "4")], "errors.json")
    with pytest.raises(UserError, match="errors.json, 0: locomo_1_qa0 asks 'How old is Lou"):
        with_audit(conversations, read_audit(path))


def test_broken_audits_are_refused(write):
    entry = _entry("locomo_1_qa0", "q", "AMBIGUOUS", "4")
    with pytest.raises(UserError, match="1: the question locomo_1_qa0 stands there twice"):
        read_audit(write([entry, entry], "errors.json"))
    with pytest.raises(UserError, match="0, correct_answer: this is missing"):
        read_audit(write([{k: entry[k] for k in entry if k != "correct_answer"}], "errors.json"))


def test_the_public_audit(real_data):
    data = load_conversations(real_data("locomo", "locomo10.json"))
    checked = with_audit(data, read_audit(real_data("locomo_audit", "errors.json")))
    questions = [question for c in checked for question in c.questions]
    assert len(questions) == 1540 and sum(q.corrected is not None for q in questions) == 99
    assert collections.Counter(q.doubt for q in questions if q.doubt) == {
        "WRONG_CITATION": 57,
        "HALLUCINATION": 33,
        "TEMPORAL_ERROR": 26,
        "ATTRIBUTION_ERROR": 24,
        "AMBIGUOUS": 13,
        "INCOMPLETE": 3,
    }

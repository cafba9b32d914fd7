import collections
import copy
import re
import warnings

import pytest

from memr1_jax.data.locomo import LOCOMO, load_conversations, split
from memr1_jax.data.published import identify
from memr1_jax.data.types import Conversation, Fact
from memr1_jax.errors import UserError


def test_sessions_are_those_with_turns_in_numeric_order(write, sample):
    (conversation,) = load_conversations(write([sample]))
    assert [session.number for session in conversation.sessions] == [1, 2, 10, 11]
    assert [turn.dia_id for turn in conversation.turns][3:] == [
        *("D2:1", "D2:2"),
        *("D10:1", "D10:2", "D11:1"),
    ]
    assert conversation.times[10] == "9:05 am on 10 June, 2023"
    assert conversation.positions["D10:2"] == 6


def test_answers_are_strings_and_evidence_is_repaired_or_dropped(write, sample):
    (conversation,) = load_conversations(write([sample]))
    found = {q.question: (q.answer, q.evidence) for q in conversation.questions}
    assert found == {
        "How many boats has Lou?": ("3", ("D1:2",)),
        "What do Kim and Lou own?": ("boats", ("D1:2", "D1:3")),
        "What does Kim grow?": ("beans", ("D2:1",)),
        "When did Kim paint?": ("June 2023", ("D10:2",)),
        "Is Kim rich?": ("No", ()),
        "What does Lou collect?": ("maps", ()),
        "What sank?": ("nothing", ()),
        "What is dry?": ("a boat", ("D1:2", "D2:2", "D10:1")),
    }
    assert [note.quoted for note in conversation.notes] == [
        *("D1:3; D1:2", "D:2:1", "D10:02", "D", "D4:36", "D1:2 D2:2"),
        *("D2:2, D2:1", "D7:1"),
    ]


def test_adversarial_questions_come_only_on_request_and_without_an_answer(write, sample):
    path = write([sample])
    kept = load_conversations(path, adversarial=True)[0].questions
    dropped = load_conversations(path)[0].questions
    assert [q.index for q in kept] == list(range(9))
    assert [q.index for q in dropped] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert kept[7].category == 5 and kept[7].answer == ""
    assert kept[7].abstain and kept[7].distractor == "beans"
    assert not any(question.abstain or question.distractor for question in dropped)


def test_facts_stand_in_dialogue_order_with_every_key_variant(write, sample):
    (conversation,) = load_conversations(write([sample]))
    assert conversation.facts == (
        Fact("Lou", "Lou has three boats.", 1, ("D1:2",)),
        Fact("Kim", "Kim and Lou both have boats.", 1, ("D1:2", "D1:3")),
        Fact("Kim", "Kim grows beans.", 2, ("D2:1",)),
        Fact("Kim", "Lou likes maps.", 2, ("D2:1", "D2:2")),
        Fact("Lou", "Lou's boat is dry.", 10, ("D10:1",)),
        Fact("Kim", "Kim repainted a boat.", 10, ("D10:2",)),
    )
    renamed = copy.deepcopy(sample)
    renamed["observation"]["session_1_observation"] = renamed["observation"].pop("observation")
    assert load_conversations(write([renamed], "b.json")) == [conversation]


def test_captions_are_a_choice(write, sample):
    path = write([sample])
    without, with_captions = (
        load_conversations(path, captions=captions)[0].turns[6] for captions in (False, True)
    )
    assert without.caption is None and without.content == "I repainted mine."
    assert with_captions.caption == "a red boat"
    assert with_captions.content == "I repainted mine. [shared: a red boat]"


def _drop(*path):
    def change(sample):
        *inner, last = path
        for key in inner:
            sample = sample[key]
        del sample[last]

    return change


def _set(value, *path):
    def change(sample):
        *inner, last = path
        for key in inner:
            sample = sample[key]
        sample[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "place", "complaint"),
    [
        (_drop("qa"), "qa", "missing"),
        (_set({"speaker_a": "Kim", "speaker_b": "Lou"}, "conversation"), "conversation", "no turn"),
        (_set(" ", "qa", 0, "question"), "qa, 0, question", "empty"),
        (_set("", "qa", 0, "answer"), "qa, 0, answer", "empty"),
        (_drop("qa", 0, "answer"), "qa, 0, answer", "missing"),
        (_set(True, "qa", 0, "answer"), "qa, 0, answer", "found bool"),
        (_set(" ", "qa", 0, "answer"), "qa, 0, answer", "this is empty"),
        (_set(2.5, "qa", 0, "answer"), "qa, 0, answer", "expected str or int but found float"),
        (_set(6, "qa", 2, "category"), "qa, 2", "category is 6"),
        (_set("D1:1", "qa", 1, "evidence"), "qa, 1, evidence", "expected list"),
        (_drop("conversation", "session_2_date_time"), "session_2_date_time", "missing"),
        (_drop("conversation", "session_2", 1, "text"), "session_2, 1, text", "missing"),
        (_set("Max", "conversation", "session_2", 1, "speaker"), "session_2, 1", "'Max'"),
        (_set("D1:1", "conversation", "session_2", 1, "dia_id"), "train-fixture", "D1:1"),
        (_set("one", "conversation", "session_2", 1, "dia_id"), "session_2, 1", "'one'"),
        (_set([], "observation", "observation"), "observation, observation", "expected dict"),
        (_set([["x"]], "observation", "observation", "Kim"), "Kim, 0, 1", "missing"),
        (_set([{"event": "MOVE"}], "gold_operations"), "gold_operations, 0", "'MOVE'"),
        (
            _set([{"event": "ADD", "fact": 9, "text": "", "replaces": None}], "gold_operations"),
            "gold_operations, 0",
            "no fact number 9",
        ),
    ],
)
def test_schema_errors_name_file_and_place(write, sample, change, place, complaint):
    change(sample)
    path = write([sample])
    with pytest.raises(UserError) as error:
        load_conversations(path)
    message = str(error.value)
    assert message.startswith(str(path)) and place in message and complaint in message


@pytest.mark.parametrize("text", ["", "{", "[1", '{"a": 1}', "[3]"])
def test_broken_files_are_refused_by_name(write, text):
    path = write(text)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_conversations(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="nowhere.json cannot be read"):
        load_conversations(tmp_path / "nowhere.json")


def _turns(*ids):
    return [{"speaker": "KL"[i % 2], "dia_id": x, "text": f"t{i}"} for i, x in enumerate(ids)]


@pytest.fixture
def counting_on():
    """Makes a record whose ids keep counting across sessions, or name sessions that it lacks."""
    sessions = {1: ["D1:1", "D1:2"], 2: ["D1:3", "D1:4"], 3: ["D7:1", "D7:2"]}
    conversation = {"speaker_a": "K", "speaker_b": "L"}
    for number, ids in sessions.items():
        conversation[f"session_{number}"] = _turns(*ids)
        conversation[f"session_{number}_date_time"] = f"day {number}"
    noted = [["a", "D1:2"], ["b", "D1:3"], ["c", ["D1:4", "D7:2"]]]
    observation = {"session_1_observation": {"K": noted}}
    return {"sample_id": "x", "conversation": conversation, "qa": [], "observation": observation}


def test_a_fact_belongs_to_the_session_that_its_turn_stands_in(write, counting_on):
    (conversation,) = load_conversations(write([counting_on]))
    assert [(fact.text, fact.session) for fact in conversation.facts] == [
        *(("a", 1), ("b", 2), ("c", 3)),
    ]
    assert all(fact.session in conversation.times for fact in conversation.facts)


@pytest.mark.parametrize(
    ("evidence", "found", "lost"),
    [
        (["D1:1", "D1:3"], ["D1:1", "D1:3"], None),
        (["D1:1-D1:3"], ["D1:1", "D1:2", "D1:3"], None),
        (["D1:1 – 2"], ["D1:1", "D1:2"], None),
        (["D1:4 to D7:1", "D1:1"], ["D1:1", "D1:4", "D7:1"], None),
        (["D7:2-D7:1"], ["D7:1", "D7:2"], None),
        (["D1:3-D1:9"], ["D1:3", "D1:4"], "some"),
        (["D3:1-D3:9"], [], "all"),
        (["D1:01; D:7:2"], ["D1:1", "D7:2"], None),
        (["D1:1, D9:9"], ["D1:1"], "some"),
        (["D9:9", "D1:2"], ["D1:2"], "some"),
        (["see above"], [], "all"),
        (["D" + "9" * 5000 + ":1"], [], "all"),
        ([], [], None),
    ],
)
def test_ranges_are_read_and_lost_evidence_is_told(write, counting_on, evidence, found, lost):
    question = {"question": "Why?", "answer": "x", "category": 4, "evidence": evidence}
    path = write([counting_on | {"qa": [question] * 2}])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (conversation,) = load_conversations(path)
    assert list(conversation.questions[0].evidence) == found
    told = [str(warning.message) for warning in caught]
    if lost is None:
        assert not any("lose" in message for message in told)
    else:
        (message,) = told
        start = (
            f"questions that lose {lost} of their evidence (no such turn): 2 (the first: 0 (x), "
        )
        assert message.startswith(str(path)) and start in message


def test_ids_with_zeros_name_themselves(write, counting_on):
    counting_on["conversation"]["session_1"] = _turns("D1:01", "D1:02")
    counting_on["observation"] = {"o": {"K": [["a", "D1:01"], ["b", "D1:2"]]}}
    (conversation,) = load_conversations(write([counting_on]))
    assert [fact.sources for fact in conversation.facts] == [("D1:01",), ("D1:02",)]


def _named(identity):
    return Conversation(identity, ("a", "b"), (), (), ())


def test_split_follows_the_paper_and_else_the_prefix():
    names = ["conv-26", "conv-30", "conv-41", "conv-50", "train-3-0", "test-3-0", "validation-3"]
    conversations = [_named(name) for name in names]
    chosen = {
        name: [c.id for c in split(conversations, name)] for name in ("train", "validation", "test")
    }
    assert chosen == {
        "train": ["conv-26", "train-3-0"],
        "validation": ["conv-30", "validation-3"],
        "test": ["conv-41", "conv-50", "test-3-0"],
    }


def test_split_refuses_other_names_and_empty_splits():
    with pytest.raises(UserError, match="no split 'dev'"):
        split([_named("conv-26")], "dev")
    with pytest.raises(UserError, match="only: conv-26, other"):
        split([_named("conv-26"), _named("other")], "test")


def test_the_published_file_is_official(locomo_path):
    assert identify(LOCOMO, locomo_path).edition == "official"


def test_the_published_counts(locomo):
    turns = {c.id: (len(c.sessions), len(c.turns), len(c.questions)) for c in locomo}
    assert turns == {
        "conv-26": (19, 419, 152),
        "conv-30": (19, 369, 81),
        "conv-41": (32, 663, 152),
        "conv-42": (29, 629, 199),
        "conv-43": (29, 680, 178),
        "conv-44": (28, 675, 123),
        "conv-47": (31, 689, 150),
        "conv-48": (30, 681, 191),
        "conv-49": (25, 509, 156),
        "conv-50": (30, 568, 158),
    }
    facts = [len(c.facts) for c in locomo]
    assert facts == [184, 169, 324, 266, 267, 277, 268, 291, 240, 255]
    assert sum(len(turn.text.split()) for c in locomo for turn in c.turns) == 133772
    evidence = [n for c in locomo for n in c.notes if not re.search(r"\d, D", n.quoted)]
    assert len(evidence) == 9


def test_the_published_splits(locomo):
    counted = {}
    for name in ("train", "validation", "test"):
        questions = [q for c in split(locomo, name) for q in c.questions]
        categories = collections.Counter(q.category for q in questions)
        counted[name] = (len(questions), *(categories[number] for number in (1, 2, 3, 4)))
    assert counted == {
        "train": (152, 32, 37, 13, 70),
        "validation": (81, 11, 26, 0, 44),
        "test": (1307, 239, 258, 83, 727),
    }


def test_the_published_captions_and_adversarial_questions(locomo_path):
    conversations = load_conversations(locomo_path, captions=True, adversarial=True)
    assert sum(t.caption is not None for c in conversations for t in c.turns) == 1226
    adversarial = [q for c in conversations for q in c.questions if q.category == 5]
    assert len(adversarial) == 446 and not any(q.answer for q in adversarial)

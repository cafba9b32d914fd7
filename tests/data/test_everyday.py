"""Generates dialogues of everyday facts; checks how they are said, noted and asked."""

import random
import re

import pytest

from memr1_jax.data.dialogues import DataConfig, load_dialogues
from memr1_jax.data.everyday import asked_of, everyday_kinds, loosened
from memr1_jax.data.synthetic import generate, generate_conversations
from memr1_jax.data.wordings import WordingOptions
from memr1_jax.options import with_options

SIZES = {"num_sessions": 3, "facts_per_session": 5, "changes": 0.4, "everyday": True}


def kinds(name):
    """Returns the kinds of facts of that name about a speaker, from several dialogues."""
    drawn = [kind for seed in range(30) for kind in everyday_kinds(random.Random(seed))]
    return [kind for kind in drawn if kind.name == name]


def told(seed, count=20):
    """Yields `(speaker, what was said, note)` of generated dialogues."""
    for record in generate(seed, count, **SIZES):
        sessions = (value for value in record["conversation"].values() if isinstance(value, list))
        said = {turn["dia_id"]: turn for session in sessions for turn in session}
        for session in record["observation"].values():
            for notes in session.values():
                for note, where in notes:
                    yield said[where]["speaker"], said[where]["text"], note


def test_the_same_seed_tells_the_same():
    assert list(told(1)) == list(told(1)) != list(told(2))


def test_speakers_say_i_and_are_noted_by_name():
    (home, *_) = kinds("home of ")
    assert home.notes == ("{name} lives in {value}.",)
    assert home.changed_notes == ("{name} now lives in {value}.",)
    said = {text for kind in kinds("home of ") for text in (*kind.says, *kind.changed)}
    assert {"I live in {value}.", "I moved to {value}.", "we live in {value}."} <= said
    allergies = {text for kind in kinds("allergy of ") for text in kind.says}
    assert {"I'm allergic to {value}.", "I am allergic to {value}."} <= allergies


def test_a_relative_is_mine_when_said_and_the_speakers_when_noted():
    drawn = [kind for seed in range(30) for kind in everyday_kinds(random.Random(seed))]
    jobs = [kind for kind in drawn if re.match(r"job of \{name\}'s \w+ \w+", kind.name)]
    assert jobs
    for job in jobs:
        whom = job.name.removeprefix("job of {name}'s ")
        assert all(text.startswith(f"my {whom}") for text in job.says)
        assert job.notes == (f"{{name}}'s {whom} works as a {{value}}.",)
        assert f"What does {whom.split()[-1]} do?" in job.asks


def test_what_is_noted_has_the_words_that_matter():
    for speaker, said, note in told(3):
        assert "{" not in said + note and "I " not in note.split(". ")[0]
        assert note == note.strip() and note.endswith(".")
        values = set(re.findall(r"\w{5,}", note)) - {"longer", "works", "speaker", "their", "years"}
        assert values & set(re.findall(r"\w{5,}", said)) or speaker in note or values == set()


def test_some_changes_do_not_say_so_and_some_first_tellings_do():
    changed, novel = [], []
    for record in generate(4, 60, **SIZES):
        notes = [
            note
            for session in record["observation"].values()
            for listed in session.values()
            for note, _ in listed
        ]
        texts = {operation["text"]: operation["event"] for operation in record["gold_operations"]}
        changed += [note for note in notes if texts.get(note) == "UPDATE"]
        novel += [note for note in notes if texts.get(note) == "ADD"]
    assert {" now " in note for note in changed} == {" now " in note for note in novel}
    assert {" now " in note for note in novel} == {True, False}


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("Where does Ana live?", {"Where does she live?", "Where do I live?"}),
        ("Where is Ana going?", {"Where is she going?", "Where am I going?"}),
        ("What is Ana's dog called?", {"What is her dog called?", "What is my dog called?"}),
        ("What does Ana's sister do?", {"What does her sister do?", "What does my sister do?"}),
        ("Where does Lena live?", {"Where does Lena live?"}),
    ],
)
def test_questions_are_asked_without_the_name(question, asked):
    assert asked <= {asked_of(random.Random(seed), question, "Ana") for seed in range(20)}


def test_loose_talk_keeps_the_statement():
    for seed in range(60):
        assert "y sister lives in Oslo" in loosened(random.Random(seed), "My sister lives in Oslo.")


def test_a_run_can_learn_from_everyday_dialogues(tmp_path):
    wording = WordingOptions(everyday=True, rephrased=0.7)
    options = DataConfig(data="synthetic", synthetic_changes=0.4, wording=wording)
    options = with_options(options, synthetic_sessions=3, synthetic_facts=5, synthetic_train=2)
    train, _ = load_dialogues(options, 3, tmp_path)
    rates = {"repeats": 0.08, "relative_dates": 0.5, "rephrased": 0.7}
    told = generate_conversations(3, 2, **SIZES | rates)
    assert [dialogue.turns for dialogue in train] == [dialogue.turns for dialogue in told]

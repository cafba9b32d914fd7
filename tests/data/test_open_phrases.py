"""Wider words of generated dialogues: nothing else changes, and facts say what turns say."""

import random

from memr1_jax.data import open_phrases, phrases
from memr1_jax.data.synthetic import generate, generate_conversations


def test_dialogues_of_closed_words_stay_as_they_were():
    assert generate(3, 2) == generate(3, 2, open_words=0.0)
    record = generate(3, 1)[0]["conversation"]
    assert {record["speaker_a"], record["speaker_b"]} <= set(phrases.NAMES)


def test_open_words_lie_outside_the_closed_lists():
    names = {name for s in range(40) for name in open_phrases.two_names(random.Random(s), 1.0)}
    assert len(names) > 60 and not names & set(phrases.NAMES)
    rng = random.Random(0)
    (home,) = (kind for kind in open_phrases.widened(1.0) if kind.name == "home")
    towns = [home.draw(rng) for _ in range(200)]
    assert len(set(towns)) > 80 and all(town[0].isupper() for town in towns)
    assert {"Oslo", "Bergen"} & {home.draw(rng) for _ in range(2000)}


def test_every_fact_holds_its_speaker_and_every_answer_is_told():
    checked = 0
    for conversation in generate_conversations(5, 10, open_words=0.7):
        told = " ".join(turn.text for turn in conversation.turns).lower()
        assert all(fact.speaker in fact.text for fact in conversation.facts)
        assert not any("{" in turn.text for turn in conversation.turns)
        for question in conversation.questions:
            if question.category == 4:
                assert question.answer.lower() in told
                checked += 1
    assert checked > 40


def test_nothing_is_dated_and_a_change_shares_the_words_of_the_fact():
    for kind in open_phrases.widened(0.5):
        assert not kind.whens and not any("{when}" in text for text in kind.says + kind.notes)
        for changed in kind.changed_notes:
            assert changed.replace(" now", "").replace("is now", "is") in kind.notes[0]

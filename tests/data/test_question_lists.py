"""Lists of questions, and the one that comes with the project."""

import json
from collections import Counter
from pathlib import Path

import pytest

from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.question_lists import listed, read_question_list
from memr1_jax.data.synthetic import generate
from memr1_jax.errors import UserError

LOCOMO = Path(__file__).parents[2] / "experiments" / "questions" / "locomo_test_320.json"


def test_questions_are_chosen_by_their_place_in_the_file(write):
    talks = load_conversations(write(generate(3, 2, 2, 5)))
    first, second = (talk.questions for talk in talks)
    wanted = {talks[1].id: [second[2].index, second[0].index]}
    chosen = listed(talks, read_question_list(write(wanted)))
    assert [c.id for c in chosen] == [talks[1].id]
    assert chosen[0].questions == (second[0], second[2])
    with pytest.raises(UserError, match="conversation nowhere, which is not among"):
        listed(talks, {"nowhere": [0]})
    with pytest.raises(UserError, match=f"number 999 of {talks[0].id}"):
        listed(talks, {talks[0].id: [first[0].index, 999]})


@pytest.mark.parametrize("content", [[1], {"a": [0, 0]}, {"a": ["0"]}, {"a": 3}, {"a": [True]}])
def test_another_file_is_refused(write, content):
    with pytest.raises(UserError, match="should read"):
        read_question_list(write(content))


def test_a_broken_or_missing_file_is_refused(write, tmp_path):
    for path in (write('{"a": [1'), tmp_path / "none.json"):
        with pytest.raises(UserError, match="data.json: .*not valid JSON|none.json cannot be read"):
            read_question_list(path)


def test_the_list_is_spread_evenly_over_locomos_test_conversations(locomo_path):
    found = read_question_list(LOCOMO)
    test = split(load_conversations(locomo_path), "test")
    assert [len(found[c.id]) for c in test] == [40] * 8 and len(found) == 8
    chosen = listed(test, found)
    for whole, part in zip(test, chosen, strict=True):
        gaps = [whole.questions.index(question) for question in part.questions]
        step = (len(whole.questions) - 1) / 39  # both ends are asked
        assert {b - a for a, b in zip(gaps, gaps[1:], strict=False)} <= {int(step), int(step) + 1}
    categories = Counter(q.category for c in chosen for q in c.questions)
    assert categories == {4: 177, 2: 67, 1: 60, 3: 16}
    assert json.loads(LOCOMO.read_text()) == found

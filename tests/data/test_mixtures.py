"""Mixtures: data sets named by `--data`, and the rows that batches draw from them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memr1_jax.data.dialogues import DataConfig, find_dialogues, load_dialogues
from memr1_jax.data.mixtures import (
    Part,
    mixed_rows,
    mixture_parts,
    parse_mixture,
    parse_paths,
)
from memr1_jax.data.synthetic import generate
from memr1_jax.errors import UserError


def test_weights_are_read():
    assert parse_mixture("locomo") == {"locomo": 1}
    assert parse_mixture("locomo:3, synthetic:0.5,own") == {"locomo": 3, "synthetic": 0.5, "own": 1}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names ''"),
        ("locomo:1,", "names ''"),
        ("lokomo", "names 'lokomo', which is none of locomo"),
        ("own:1,own:2", "names own twice"),
        ("own:-1", "the weight of own is '-1'"),
        ("own:nan", "the weight of own is 'nan'"),
        ("own:", "the weight of own is ''"),
        ("own:0,locomo:0", "every data set the weight 0"),
    ],
)
def test_what_is_no_mixture_is_told(text, complaint):
    with pytest.raises(UserError, match=complaint):
        parse_mixture(text)


def test_paths_belong_to_their_data_sets():
    assert parse_paths("a=b.json", ["locomo", "synthetic"]) == {"locomo": "a=b.json"}
    assert parse_paths("locomo=a,own=b", ["locomo", "own"]) == {"locomo": "a", "own": "b"}
    assert parse_paths("own=b", ["locomo", "own"]) == {"own": "b"}
    assert parse_paths("", ["locomo", "own"]) == {}
    for paths in ("a.json", "locomo=a,locomo=b", "msc=a"):
        with pytest.raises(UserError, match="as locomo=FILE,own=FILE"):
            parse_paths(paths, ["locomo", "own"])


def parts(*sizes: int, shares=None) -> list[Part]:
    shares = shares or [1 / len(sizes)] * len(sizes)
    ends = np.cumsum([0, *sizes])
    return [
        Part(f"part {index}", share, np.arange(ends[index], ends[index + 1], dtype=np.int32))
        for index, share in enumerate(shares)
    ]


@given(
    st.integers(0, 100),
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 7), st.floats(0.01, 1)), min_size=1, max_size=4),
)
def test_batches_hold_shares_and_epochs_hold_every_row_once(seed, batch, chosen):
    sizes, weights = zip(*chosen, strict=True)
    made = parts(*sizes, shares=[weight / sum(weights) for weight in weights])
    steps = [mixed_rows(seed, step, made, batch) for step in range(12)]
    for rows in steps:
        assert rows.shape == (batch,) and rows.dtype == np.int32
        for part in made:
            assert abs(np.isin(rows, part.rows).sum() - batch * part.share) < 1 + 1e-6
    for part in made:
        # Batches are in random order, so an epoch is seen by its counts.
        drawn = np.concatenate([rows[np.isin(rows, part.rows)] for rows in steps])
        counts = np.bincount(drawn, minlength=part.rows[-1] + 1)[part.rows]
        assert counts.max() - counts.min() <= 1


def test_a_batch_depends_on_seed_and_step_alone():
    made = parts(40, 10, shares=[0.75, 0.25])
    golden = [  # a run that an earlier version began resumes to the same data
        [8, 40, 42, 2, 14, 22, 7, 11],
        [33, 48, 2, 28, 49, 30, 17, 16],
    ]
    assert [mixed_rows(3, step, made, 8, "manager").tolist() for step in (0, 7)] == golden
    assert mixed_rows(4, 7, made, 8, "manager").tolist() != golden[1]
    assert mixed_rows(3, 7, made, 8, "answer").tolist() != golden[1]


def test_shares_hold_on_average():
    made = parts(50, 50, 50, shares=[0.6, 0.3, 0.1])
    rows = np.concatenate([mixed_rows(0, step, made, 4) for step in range(150)])
    np.testing.assert_allclose(np.bincount(rows // 50) / 600, [0.6, 0.3, 0.1], atol=0.02)


def test_a_part_without_rows_or_weight_has_no_share():
    made = mixture_parts({"a": 3, "b": 1, "c": 5, "d": 0}, ["b", "a", "a", "d"])
    assert [(part.name, part.share, part.rows.tolist()) for part in made] == [
        ("a", 0.75, [1, 2]),
        ("b", 0.25, [0]),
    ]
    with pytest.raises(UserError, match="anything for this agent to learn"):
        mixture_parts({"a": 1, "b": 0}, ["b"])


def _msc(number: int) -> dict:
    turns = [{"text": f"I mend {number} clocks."}, {"text": "I sing."}]
    opener = {"B": "What do you mend?", "A": "clocks"}
    dialogs = [{"dialog": turns, "time_back": "7 days ago"}]
    return {"previous_dialogs": dialogs, "dialog": [], "self_instruct": opener}


@pytest.fixture
def mixture(tmp_path):
    """Options of a mixture of files in LoCoMo's and MSC's formats with generated dialogues."""
    (tmp_path / "locomo.json").write_text(
        json.dumps([*generate(5, 2, 2, 2), *generate(5, 1, 2, 2, split="validation")])
    )
    lines = "\n".join(json.dumps(_msc(number)) for number in range(20))
    (tmp_path / "msc.jsonl").write_text(lines)
    return DataConfig(
        data="locomo:3,synthetic:1,msc:1",
        data_path=f"locomo={tmp_path / 'locomo.json'},msc={tmp_path / 'msc.jsonl'}",
        synthetic_train=3,
        synthetic_sessions=2,
        synthetic_facts=2,
    )


@pytest.mark.filterwarnings("ignore")
def test_a_mixture_loads_all_of_its_data_sets(mixture, tmp_path):
    train, evaluation = load_dialogues(mixture, 0, tmp_path)
    counts = {"locomo": 2, "synthetic": 3, "msc": 16}
    assert [c.source for c in train] == [name for name, n in counts.items() for _ in range(n)]
    assert [c.source for c in evaluation] == ["locomo", "synthetic", "msc", "msc"]
    assert all(len(c.facts) == len(c.turns) for c in train if c.source == "msc")
    assert not {c.id for c in train} & {c.id for c in evaluation}
    found = find_dialogues(mixture, 0, tmp_path)
    assert [path.name for path in found.values()] == ["locomo.json", "dialogues.json", "msc.jsonl"]


@pytest.mark.filterwarnings("ignore")
def test_two_conversations_of_one_id_are_refused(mixture, tmp_path):
    with pytest.raises(UserError, match="locomo and synthetic of --data both have .*train-5-0"):
        load_dialogues(mixture, 5, tmp_path)

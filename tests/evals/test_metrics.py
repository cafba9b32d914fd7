import collections
import io
import json
import os
import random

import pytest

from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.types import Question
from memr1_jax.evals.metrics import (
    METRICS,
    aggregate,
    bleu1,
    exact_match,
    f1_locomo_official,
    f1_set_of_words,
    f1_squad,
    results_markdown,
    results_table,
    rouge_l,
    score,
    score_msc,
)

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200

# prediction, gold, category, then in the order of METRICS: F1, BLEU-1, EM, SQuAD's F1, LoCoMo's F1
GOLDEN = [
    ("7 May 2023", "7 May 2023", 2, 1, 1, 1, 1, 1),
    ("May 7, 2023", "7 May 2023", 2, 1, 0.75, 0, 1, 1),
    ("She went on the 7th of May, 2023.", "7 May 2023", 2, 0.363636, 0.2, 0, 0.4, 0.4),
    ("2022", "2022", 2, 1, 1, 1, 1, 1),
    ("pottery, camping, painting", "pottery, camping, painting, swimming", 1)
    + (0.857143, 0.670320, 0, 0.857143, 0.75),
    ("She likes pottery and camping and painting", "pottery, camping, painting, swimming", 1)
    + (0.6, 0.428571, 0, 0.545455, 0.25),
    ("Painting", "paintings and drawings", 4, 0, 0, 0, 0, 0.666667),
    ("Running.", "run", 4, 0, 0, 0, 0, 1),
    (
        "Likely no",
        "Likely no; though she wants to be a counselor",
        3,
        0.181818,
        0.018316,
        0,
        0.4,
        1,
    ),
    ("the the", "the", 4, 1, 0.5, 0, 2 / 3, 0),
    ("a bird", "bird bird", 4, 0.666667, 0.5, 0, 0.666667, 0.666667),
    ("", "self-care", 4, 0, 0, 0, 0, 0),
]


def _question(answer, category):
    return Question("?", answer, category, (), 0)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"{golden[0]!r} for {golden[1]!r}")
def test_golden_scores(golden):
    prediction, gold, category, *expected = golden
    row = score(prediction, _question(gold, category))
    assert row.pop("category") == category
    assert row == pytest.approx(dict(zip(METRICS, expected, strict=True)), abs=1e-6)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Not mentioned in the conversation", 1),
        ("There is no information available.", 1),
        ("I don't know", 0),
    ],
)
def test_adversarial_questions_have_only_the_official_score(prediction, expected):
    row = score(prediction, _question("", 5))
    assert row == {"category": 5, "f1_locomo_official": expected}


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("The  Blue-Boat!", "blueboat", 1),
        ("blue boat", "blueboat", 0),
        ("and boat", "boat", 0),
        ("", "", 0),
        ("?!", "the", 0),
        ("An apple a day", "apple day", 1),
        ("A", "a.", 1),
        ("(a)", "A", 1),
        ("B", "A", 0),
        ("the the", "The The", 1),
        ("the", "The The", 0),
        ("...", "...", 1),
        ("?!", "...", 0),
        ("a ...", "...", 0),
    ],
)
def test_exact_match_normalises_and_guards_against_nothing(prediction, gold, expected):
    assert exact_match(prediction, gold) == expected


def test_typographic_marks_equal_plain_ones_on_request():
    pairs = [("Ana’s twenty‑one “maps”", "Ana's twenty-one maps"), ("9 – 5", "9 - 5")]
    for prediction, gold in pairs:
        row, plain = (score(prediction, _question(gold, 4), marks) for marks in (False, True))
        assert (row["exact_match"], plain["exact_match"]) == (0, 1)
        assert row["f1_squad"] < plain["f1_squad"] == 1
        published = ("f1_set_of_words", "bleu1_method1", "f1_locomo_official")
        assert all(row[name] == plain[name] for name in published)


def test_answers_in_any_script_are_compared_by_characters_and_forms():
    for prediction, gold in [
        ("CAFE\u0301", "café"),
        ("ＯＳＬＯ！", "Oslo"),
        ("东京。", "东京"),
        ("ｶﾞｽ", "ガス"),
    ]:
        assert exact_match(prediction, gold) == f1_squad(prediction, gold) == 1.0
    assert f1_squad("他住在东京", "东京") == pytest.approx(4 / 7)
    assert exact_match("他住在东京", "东京") == 0.0


def test_official_f1_drops_and_and_joins_at_hyphens():
    assert f1_locomo_official("salt and pepper", "pepper salt", 4) == 1
    assert f1_locomo_official("selfcare", "self-care", 4) == 1
    assert f1_locomo_official("1,000", "1000", 4) == 1
    # Only category 1 splits at commas, only category 3 cuts the gold at a semicolon.
    assert f1_locomo_official("red, sea", "sea; hill", 3) == pytest.approx(2 / 3)
    assert f1_locomo_official("red, sea", "sea, red", 1) == 1


def test_bleu_against_its_formula():
    """Counts brevity penalty times clipped precision by hand on words without punctuation."""
    import math

    rng = random.Random(0)
    for _ in range(CASES):
        first, second = (
            [rng.choice("red blue boat hill sea".split()) for _ in range(rng.randint(1, 7))]
            for _ in range(2)
        )
        clipped = (collections.Counter(first) & collections.Counter(second)).total()
        penalty = min(1, math.exp(1 - len(second) / len(first)))
        assert bleu1(" ".join(first), " ".join(second)) == pytest.approx(
            penalty * clipped / len(first)
        )


def test_scores_lie_between_0_and_1_and_are_1_on_the_gold():
    rng = random.Random(1)
    alphabet = "ab theAnd.,;!?-'é  "
    for _ in range(CASES):
        prediction, gold = (
            "".join(rng.choice(alphabet) for _ in range(rng.randint(0, 12))) for _ in range(2)
        )
        for category in (1, 2, 3, 4):
            row = score(prediction, _question(gold, category))
            assert all(0 <= row[metric] <= 1 for metric in METRICS)
        assert f1_set_of_words(prediction, gold) == f1_set_of_words(gold, prediction)
        filled = gold + " word"
        same = score(filled, _question(filled, 4))
        assert all(same[metric] == pytest.approx(1) for metric in METRICS)


def test_means_by_category_and_weighted_overall():
    rows = [{"category": 4, "em": 1.0}, {"category": 4, "em": 0.0}, {"category": 1, "em": 1.0}]
    rows += [{"category": 4, "em": 1.0}, {"category": 5, "other": 1.0}]
    assert aggregate(rows) == [
        {"category": 1, "name": "multi-hop", "paper_name": "Single Hop", "count": 1}
        | {"em": 1.0, "other": None},
        {"category": 4, "name": "single-hop", "paper_name": "Open Domain", "count": 3}
        | {"em": pytest.approx(2 / 3), "other": None},
        {"category": 5, "name": "adversarial", "paper_name": "dropped", "count": 1}
        | {"em": None, "other": 1.0},
        {"category": None, "name": "overall", "paper_name": "Overall", "count": 4}
        | {"em": 0.75, "other": None},
    ]


def test_adversarial_questions_enter_an_overall_on_request():
    rows = [score("No information available", _question("", 5)), score("sea", _question("hill", 4))]
    rows += [score("hill", _question("hill", 1))] * 2
    *_, everything, overall = aggregate(rows, adversarial=True)
    assert (everything["name"], everything["count"]) == ("overall with adversarial", 4)
    assert everything["f1_locomo_official"] == 0.75
    assert everything["f1_set_of_words"] is None
    assert overall == aggregate(rows)[-1]
    assert (overall["count"], overall["f1_locomo_official"]) == (3, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("prediction", "gold", "recall", "f1"),
    [
        ("the cat is under a mat", "the cat sat on the mat", 0.5, 0.5),  # the cat ... mat
        ("Anna, from Oslo!", "anna", 1, 0.5),
        ("green tea", "tea, green", 0.5, 0.5),  # order counts
        ("It's 7-8 pm", "7 8", 1, 4 / 7),  # it s 7 8 pm
        ("", "sea", 0, 0),
        ("sea", "?", 0, 0),
    ],
)
def test_rouge_l_by_hand(prediction, gold, recall, f1):
    assert rouge_l(prediction, gold) == pytest.approx((recall, f1))


def test_rouge_l_against_its_reference_package():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = random.Random(2)
    for _ in range(CASES):
        prediction, gold = (
            " ".join(rng.choice("Sea sea, hill-top été a 7th".split()) for _ in range(size))
            for size in (rng.randint(0, 12), rng.randint(0, 8))
        )
        expected = scorer.score(gold, prediction)["rougeL"]
        assert rouge_l(prediction, gold) == pytest.approx((expected.recall, expected.fmeasure))


def test_scores_of_msc_bear_their_variants():
    assert score_msc("She sails a boat", "a boat") == pytest.approx(
        {
            "f1_set_of_words": 2 / 3,
            "bleu1_method1": 0.5,
            "exact_match": 0,
            "f1_squad": 0.5,
            "rouge_l_recall": 1,
            "rouge_l_f1": 2 / 3,
        }
    )


def test_questions_without_a_category_count_too():
    rows = [{"category": 0, "em": 1.0}, {"category": 0, "em": 0.0}, {"category": 2, "em": 1.0}]
    assert [(e["name"], e["count"], e["em"]) for e in aggregate(rows)] == [
        ("temporal", 1, 1.0),
        ("without category", 2, 0.5),
        ("overall", 3, pytest.approx(2 / 3)),
    ]


def test_tables_name_category_and_variant():
    import rich.console

    rows = [score("2022", _question("2022", 2)), score("no", _question("yes it is", 3))]
    entries = aggregate(rows)
    assert results_markdown(entries).splitlines() == [
        "| category | name in Memory-R1 | questions "
        "| f1_set_of_words | bleu1_method1 | exact_match | f1_squad | f1_locomo_official |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| 3 open-domain | Multi-Hop | 1 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 |",
        "| 2 temporal | Temporal | 1 | 100.00 | 100.00 | 100.00 | 100.00 | 100.00 |",
        "| overall | Overall | 2 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 |",
    ]
    console = rich.console.Console(file=io.StringIO(), width=140)
    console.print(results_table(entries))
    shown = console.file.getvalue()
    assert all(part in shown for part in (*METRICS, "2 temporal", "Multi-Hop", "50.00"))
    assert results_markdown(aggregate([])).splitlines()[-1] == "| overall | Overall | 0 |"


@pytest.fixture(scope="module")
def whole_file():
    path = os.environ.get("MEMR1_LOCOMO")
    if not path:
        pytest.skip("MEMR1_LOCOMO does not name a LoCoMo file")
    with open(path, encoding="utf-8") as file:
        return list(zip(load_conversations(path), json.load(file), strict=True))


def _evidence_text(conversation, raw, question):
    """Counts only ids that are right as they stand, as the published figures do."""
    ids = [e for e in raw["qa"][question.index]["evidence"] if e in conversation.positions]
    return " ".join(conversation.turns[conversation.positions[e]].text for e in ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("predict", "official", "f1", "bleu"),
    [
        (lambda conversation, raw, question: question.answer, 0.9955, 1, 1),
        (_evidence_text, 0.1569, 0.1558, 0.0821),
        (lambda conversation, raw, question: "yes", 0.0143, 0.0124, 0.0115),
        (lambda conversation, raw, question: "not mentioned", 0.0018, 0.0017, 0.0005),
    ],
    ids=["gold", "evidence", "yes", "not mentioned"],
)
def test_scores_over_the_whole_file(whole_file, predict, official, f1, bleu):
    entries = aggregate(
        score(predict(conversation, raw, question), question)
        for conversation, raw in whole_file
        for question in conversation.questions
    )
    overall = entries[-1]
    assert overall["count"] == 1540
    assert round(overall["f1_locomo_official"], 4) == official
    assert round(overall["f1_set_of_words"], 4) == f1
    assert round(overall["bleu1_method1"], 4) == bleu
    if official == 0.9955:
        assert round(entries[1]["f1_locomo_official"], 4) == 0.9274
        assert overall["exact_match"] == 1  # no gold normalises to nothing

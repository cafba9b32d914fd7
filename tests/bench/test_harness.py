"""A row that reads and answers: what is asked when, what is counted, where evidence went."""

import collections
import dataclasses

import pytest

from memr1_jax.bench.harness import asking, run_row
from memr1_jax.bench.scoring import summarise
from memr1_jax.bench.systems.protocol import Answer, Call, Memory, Reply
from memr1_jax.bench.tables.rows import read_row, row_of, write_row
from memr1_jax.data.types import Conversation, Question, Session, Turn
from memr1_jax.errors import UserError

SPEAKERS = ("Ann", "Ben")


def session(number, *texts):
    turns = (Turn("Ann", text, f"D{number}:{n}") for n, text in enumerate(texts, 1))
    return Session(number, f"day {number}", tuple(turns))


def question(index, *evidence, answer="tea", **fields):
    fields = {"category": 4} | fields
    return Question(f"Question {index}?", answer, evidence=evidence, index=index, **fields)


TALK = Conversation(
    "talk",
    SPEAKERS,
    (session(1, "tea", "cake"), session(2, "rain")),
    (
        question(0, "D1:1", "D1:2", "D2:1"),
        question(1, category=2),
        question(2, "D1:1", after=1),
    ),
    (),
)
OTHER = Conversation("other", SPEAKERS, (session(1, "dog"),), (question(0, "D1:1"),), ())


@dataclasses.dataclass(frozen=True)
class Forgetful:
    """Keeps every other turn, one call for each, and shows the first memory."""

    name = "forgetful"
    log: list

    def start(self, speakers):
        return Store(self.log)


class Store:
    def __init__(self, log):
        self.counts, self.log = collections.Counter(), log
        self.kept, self.seen = [], 0

    def ingest(self, session):
        for turn in session.turns:
            self.seen += 1
            replies = yield [Call("keep", (("user", turn.text),), 5)]
            self.log.append(turn.text)
            if self.seen % 2:
                self.kept.append(Memory(replies[0].text, session.time, "Ann", (turn.dia_id,)))
                self.counts["add"] += 1
            else:
                self.counts["keep_failed"] += 1

    def answer(self, question):
        self.log.append(f"{question.index}")
        (reply,) = yield [Call("answer", (("user", question.question),), 9)]
        return Answer(reply.text, "tea", "bold_label", tuple(self.kept[:1]), 0.25)

    def memories(self):
        return self.kept


def run(calls):
    return [Reply(f"<{c.messages[0][1]}>", 10, 2, c.stage == "keep", 0.5, cut=3) for c in calls]


@pytest.fixture
def made():
    log, told = [], []
    result = run_row(
        Forgetful(log),
        [TALK, OTHER],
        run,
        lambda text: len(text),
        on_progress=lambda *at: told.append(at),
    )
    return result, log, told


def test_nothing_is_asked_before_what_precedes_it_was_read(made):
    _, log, _ = made
    # The turn before the early question, then that question, then the rest of the dialogue.
    assert [entry for entry in log if entry != "dog"] == ["tea", "2", "0", "cake", "rain", "0", "1"]


def test_evidence_is_split_into_found_stored_and_lost(made):
    answered = {(item.conversation, item.index): item for item in made[0].answered}
    whole = answered["talk", 0].evidence
    assert whole.shown == ("D1:1",)
    assert whole.not_retrieved == ("D2:1",)
    assert whole.never_stored == ("D1:2",)
    # What was read after a question is no matter of it.
    assert answered["talk", 2].evidence.recall == 1.0
    found = row_of(made[0]).figures["evidence"]
    assert (found["questions"], found["without_evidence"]) == (3, 1)
    assert found["recall"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert found["never_stored"] == found["not_retrieved"] == pytest.approx(1 / 3 / 3)


def test_figures_of_a_row(made):
    figures = row_of(made[0]).figures
    assert figures["questions"] == 4
    assert figures["conversations"] == 2
    assert figures["calls"]["keep"] == {
        "calls": 4,
        "prompt_tokens": 40,
        "tokens": 8,
        "cut_off": 0,
        "cut_prompts": 4,
        "cut_tokens": 12,
    }
    assert figures["calls"]["answer"]["cut_off"] == 4
    assert figures["calls"]["all"]["calls"] == 8
    assert figures["operations"] == {"add": 3, "update": 0, "delete": 0, "none": 0}
    assert figures["unreadable"] == 1
    assert figures["bank"] == {"items": 3, "tokens": len("<tea>") + len("<rain>") + len("<dog>")}
    timing = row_of(made[0]).timing
    assert timing["search"] == {"calls": 4, "p50": 0.25, "p95": 0.25}
    assert timing["keep"]["p95"] == 0.5


def test_progress_counts_sessions_and_questions(made):
    told = made[2]
    assert [at for at in told if at[0] == "questions answered"][-1] == ("questions answered", 4, 4)
    assert ("sessions read", 4, 4) in told  # one of them in two parts


def test_a_row_is_read_as_it_was_written(made, tmp_path):
    row = row_of(made[0])
    assert read_row(tmp_path, "row") is None
    write_row(tmp_path, "row", row)
    assert read_row(tmp_path, "row") == row
    odd = [dataclasses.replace(x, response="a\u2028b\x85c\x1cd\ne") for x in row.answered]
    write_row(tmp_path, "row", dataclasses.replace(row, answered=odd))
    assert read_row(tmp_path, "row").answered == odd
    for name in ("row.predictions.jsonl", "row.json", "row.timing.json"):
        for damaged in ("{", "[" * 100_000, '{"a": 1}\n' if "pred" in name else "\xff"):
            write_row(tmp_path, "row", row)
            (tmp_path / name).write_text(damaged, encoding="latin-1")
            with pytest.raises(UserError, match=r"Remove row\.json"):
                read_row(tmp_path, "row")


def test_waves_change_nothing():
    results = [
        run_row(Forgetful([]), [TALK, OTHER], run, len, together_at_most=n).answered for n in (1, 2)
    ]
    assert results[0] == results[1]


def test_summaries_by_category_and_overall(made):
    entries = {entry["name"]: entry for entry in summarise(made[0].answered)}
    assert list(entries) == ["single-hop", "temporal", "overall"]
    assert entries["single-hop"]["paper_name"] == "Open Domain"
    assert entries["single-hop"]["count"] == 3
    overall = entries["overall"]["metrics"]["f1_set_of_words"]
    assert overall["mean"] == 1.0
    assert overall["by_question"] == [1.0, 1.0]
    assert overall["conversations"] == 2


def test_metrics_follow_the_question():
    conversation = dataclasses.replace(
        OTHER,
        questions=(
            question(0, category=0, kind="choice", answer="(b)", options=("(a) x", "(b) y")),
            question(1, category=0, kind="fact"),
            question(2, category=1, corrected="tea", answer="coffee"),
        ),
    )
    answered = run_row(Forgetful([]), [conversation], run, len).answered
    assert answered[0].scores == {"accuracy_personamem_official": 0, "accuracy_marked_option": 0}
    assert answered[1].scores["rouge_l_recall"] == 1
    assert answered[2].gold == "tea"
    assert answered[2].scores["exact_match"] == 1
    assert [entry["name"] for entry in summarise(answered)] == [
        "multi-hop",
        "choice",
        "fact",
        "overall",
    ]


def test_a_part_of_the_questions_is_spread_evenly():
    assert asking([TALK, OTHER], 0) == [TALK, OTHER]
    few = asking([TALK, OTHER], 2)
    assert [(c.id, [q.index for q in c.questions]) for c in few] == [("talk", [0]), ("other", [0])]
    assert [c.id for c in asking([TALK, OTHER], 1)] == ["talk"]

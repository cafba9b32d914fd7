import collections
import dataclasses
import datetime
import hashlib
import json
import os
import random
import re

import pytest

from memr1_jax.data import phrases, synthetic
from memr1_jax.data.dialogues import DataConfig, check_shares, load_dialogues
from memr1_jax.data.locomo import load_conversations, split
from memr1_jax.data.story import past_date
from memr1_jax.data.synthetic import generate, generate_conversations, write_synthetic
from memr1_jax.data.times import session_time
from memr1_jax.data.tuples import facts_before, manager_tuples
from memr1_jax.data.variety import distinct_ngrams, fact_texts, turn_texts
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event

CASES = 2000 if os.environ.get("MEMR1_SLOW") else 200


def _word_in(value, text):
    return re.search(rf"\b{re.escape(value)}\b", text, re.IGNORECASE) is not None


def test_a_disk_without_room_leaves_no_half_of_a_file(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
        with pytest.raises(UserError, match="dialogues.json could not be written .*Make room"):
            write_synthetic(tmp_path / "dialogues.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "synthetic.json"
    write_synthetic(path, seed=3, train=12, validation=2, test=6)
    return path


@pytest.fixture(scope="module")
def conversations(path):
    return load_conversations(path)


def test_the_same_seed_gives_the_same_records_and_another_does_not():
    assert generate(5, 2) == generate(5, 2)
    assert generate(5, 1) == generate(5, 2)[:1]
    assert generate(5, 1)[0]["conversation"] != generate(6, 1)[0]["conversation"]
    train, test = generate(5, 1), generate(5, 1, split="test")
    assert train[0]["conversation"] != test[0]["conversation"]


def test_files_round_trip_with_three_splits(path, conversations):
    assert not any(c.notes for c in conversations)
    sizes = {name: len(split(conversations, name)) for name in ("train", "validation", "test")}
    assert sizes == {"train": 12, "validation": 2, "test": 6}
    for record, conversation in zip(json.loads(path.read_text()), conversations, strict=True):
        assert len(record["qa"]) == len(conversation.questions)
        assert [o["fact"] for o in record["gold_operations"]] == list(
            range(len(conversation.facts))
        )
        for operation in conversation.operations:
            told = conversation.facts[operation.fact].text
            writes = operation.event in (Event.ADD, Event.UPDATE)
            assert operation.text == (told if writes else "")


@pytest.mark.parametrize(("sessions", "facts"), [(1, 1), (3, 0), (2, 40), (60, 20)])
def test_any_size_can_be_told(tmp_path, sessions, facts):
    path = tmp_path / "sized.json"
    path.write_text(json.dumps(generate(0, 2, sessions, facts)))
    for conversation in load_conversations(path):
        assert len(conversation.sessions) == sessions
        assert len(conversation.facts) <= sessions * facts
        assert len(conversation.facts) == sessions * facts or facts == 20


def test_every_operation_and_category_occurs_and_shares_are_honoured(conversations):
    events = collections.Counter(o.event for c in conversations for o in c.operations)
    assert set(events) == set(Event)
    assert 0.08 < events[Event.UPDATE] / events.total() < 0.25
    assert 0.05 < events[Event.DELETE] / events.total() < 0.17
    categories = collections.Counter(q.category for c in conversations for q in c.questions)
    assert set(categories) == {1, 2, 3, 4}
    yes = collections.Counter(
        q.answer for c in conversations for q in c.questions if q.category == 3
    )
    assert set(yes) == {"Yes", "No"}
    only_new = generate(0, 1, changes=0, endings=0, repeats=0)[0]["gold_operations"]
    assert {operation["event"] for operation in only_new} == {"ADD"}


def test_dates_advance_in_locomos_form_and_speakers_alternate(conversations):
    form = re.compile(r"([1-9]|1[0-2]):\d\d (am|pm) on [1-9]\d? [A-Z][a-z]+, 20\d\d")
    for conversation in conversations:
        assert all(form.fullmatch(session.time) for session in conversation.sessions)
        for session in conversation.sessions:
            pairs = zip(session.turns, session.turns[1:], strict=False)
            assert all(first.speaker != second.speaker for first, second in pairs)


def test_past_dates_are_computed_from_the_session():
    time = datetime.datetime(2024, 3, 1, 9, 5)
    rng = random.Random(0)
    assert session_time(time) == "9:05 am on 1 March, 2024"
    assert session_time(time.replace(hour=0)) == "12:05 am on 1 March, 2024"
    assert session_time(time.replace(hour=12)) == "12:05 pm on 1 March, 2024"
    assert {past_date(rng, time) for _ in range(200)} == {
        ("today", "on 1 March 2024", "1 March 2024"),
        ("yesterday", "on 29 February 2024", "29 February 2024"),
        ("two days ago", "on 28 February 2024", "28 February 2024"),
        ("three days ago", "on 27 February 2024", "27 February 2024"),
        ("a week ago", "on 23 February 2024", "23 February 2024"),
        ("last month", "in February 2024", "February 2024"),
        ("last year", "in 2023", "2023"),
    }


def test_answers_are_short_and_evidence_is_a_fact_turn(conversations):
    for conversation in conversations:
        told = {source for fact in conversation.facts for source in fact.sources}
        texts = [question.question for question in conversation.questions]
        assert len(texts) == len(set(texts))
        for question in conversation.questions:
            assert 1 <= len(question.answer.split()) <= 4
            assert question.evidence and set(question.evidence) <= told
            assert "{" not in question.question
            if question.category == 1:
                assert len(question.evidence) >= 2


def test_answers_stand_in_the_final_facts_and_in_the_evidence(conversations):
    for conversation in conversations:
        final = facts_before(conversation, len(conversation.turns))
        turns = {turn.dia_id: turn.text for turn in conversation.turns}
        for question in conversation.questions:
            if question.category not in (1, 4) or question.answer.isdigit():
                continue
            for value in question.answer.split(", "):
                assert any(_word_in(value, fact.text) for fact in final)
                assert any(_word_in(value, turns[e]) for e in question.evidence)


def test_counts_are_those_of_the_final_facts(conversations):
    patterns = {
        "pets": r"adopted an? \w+ called|got an? \w+, ",
        "hobbies": r"enjoys|'s hobby",
        "trips": r"plans to go|booked a stay|'s new plan",
    }
    checked = 0
    for conversation in conversations:
        final = facts_before(conversation, len(conversation.turns))
        for question in conversation.questions:
            if found := re.match(r"How many (\w+) does (\w+)", question.question):
                thing, name = found.groups()
                facts = [f for f in final if f.speaker == name]
                count = sum(re.search(patterns[thing], fact.text) is not None for fact in facts)
                assert str(count) == question.answer
                checked += 1
    assert checked > 10


def test_gold_operations_leave_exactly_what_is_true_at_the_end(monkeypatch, tmp_path):
    truths = []

    def spy(rng, story):
        truths.append([(entry, entry.fact) for entry in story.live])
        return []

    monkeypatch.setattr(synthetic, "questions", spy)
    path = tmp_path / "spied.json"
    path.write_text(json.dumps(generate(9, 10, 20, 8)))
    for conversation, truth in zip(load_conversations(path), truths, strict=True):
        left = facts_before(conversation, len(conversation.turns))
        assert sorted(f.text for f in left) == sorted(
            conversation.facts[fact].text for _, fact in truth
        )
        # Each says what is true, and nobody has two facts of one kind and topic.
        for entry, fact in truth:
            told = conversation.facts[fact]
            assert told.speaker == entry.speaker and _word_in(entry.value, told.text)
        keys = [(entry.speaker, entry.kind.name, entry.topic) for entry, _ in truth]
        assert len(keys) == len(set(keys))


def test_no_gold_answer_is_stale(monkeypatch):
    """Checks that a replaced or ended value no longer answers a question that it once answered."""
    gone = []
    apply = synthetic.apply_telling

    def spy(story, telling, dia_id):
        apply(story, telling, dia_id)
        if telling.old is not None:
            gone.append(telling.old)

    monkeypatch.setattr(synthetic, "apply_telling", spy)
    checked = 0
    for seed in range(CASES // 10):
        gone.clear()
        (record,) = generate(seed, 1, 10, 6)
        golds = collections.defaultdict(set)
        for question in record["qa"]:
            golds[question["question"]].update(question["answer"].split(", "))
        for entry in gone:
            for template in entry.kind.asks + entry.kind.lists:
                text = template.format(name=entry.speaker, topic=entry.topic)
                assert entry.value not in golds.get(text, ())
                checked += text in golds
            for template in entry.kind.whens + phrases.LIKELY:
                words = {"name": entry.speaker, "topic": entry.topic, "value": entry.value}
                assert template.format(**words) not in golds
    assert checked > CASES // 10


def test_replaced_facts_are_asked_for_their_latest_value():
    records = generate(0, 20, 12, 6, changes=0.5)
    checked = 0
    for record in records:
        moves = {}
        for session in range(1, 13):
            for turn in record["conversation"][f"session_{session}"]:
                pattern = r"(?:live in|flat is in|for me is|moved to|everything,) (\w+)"
                if found := re.search(pattern, turn["text"]):
                    moves[turn["speaker"]] = found[1]
        for question in record["qa"]:
            pattern = r"(?:Where does|Which town is) (\w+?)(?: live now|'s home now)\?"
            if found := re.fullmatch(pattern, question["question"]):
                assert question["answer"] == moves[found[1]]
                checked += 1
    assert checked > 10


def test_held_out_seeds_rarely_share_answers():
    train, test = (
        [q for record in generate(0, 20, split=name) for q in record["qa"] if q["category"] == 4]
        for name in ("train", "test")
    )
    known = {question["answer"] for question in train}
    assert sum(question["answer"] in known for question in test) / len(test) < 0.15


def test_wordings_vary_and_are_complete():
    assert len(set(phrases.NAMES)) >= 40
    for kind in phrases.KINDS:
        assert len(kind.says) >= 2 and len(kind.notes) >= 2
        assert bool(kind.changed) == bool(kind.changed_notes)
        assert bool(kind.ended) == bool(kind.ended_notes)
        assert all("{value}" in text for text in kind.says + kind.notes)
        assert all("{value}" in text for text in kind.changed + kind.changed_notes)
        # A fact that ends must be found again by its value, one that is asked for by its topic.
        assert all("{value}" in text for text in kind.ended + kind.ended_notes)
        assert kind.topics == ("",) or all("{topic}" in t for t in kind.says + kind.asks)
        assert all(("{when}" in t) == bool(kind.whens) for t in kind.says + kind.notes)


def test_manager_tuples_meet_every_operation(conversations):
    met = collections.Counter()
    for conversation in conversations:
        events = {
            f.sources[-1]: o.event
            for f, o in zip(conversation.facts, conversation.operations, strict=True)
        }
        met.update(events[item.dia_id] for item in manager_tuples(conversation, window=None))
    assert all(met[event] >= 10 for event in Event)


def test_training_learns_what_was_never_said(tmp_path):
    options = DataConfig(data="synthetic", synthetic_absences=2, synthetic_cascades=0.2)
    train, evaluation = load_dialogues(options, 0, tmp_path)
    for talk in (*train, *evaluation):
        absent = [question for question in talk.questions if question.abstain]
        assert [q.answer for q in absent] == ["not mentioned"] * 2
    told = dataclasses.replace(options, synthetic_changes=0.9)
    with pytest.raises(UserError, match="--synthetic_cascades=0.2 are shares of the same facts"):
        check_shares(told)


def test_dialogues_of_the_default_options_stay_as_they_were():
    records = generate(5, 2)
    for question in (question for record in records for question in record["qa"]):
        question.pop("outdated", None)
    text = json.dumps(records)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("67f8dae776656f3c")


def test_varied_wordings_tell_the_same_facts():
    told, checked = generate_conversations(5, 12, wordings=0.7), 0
    for conversation in told:
        said = " ".join(turn.text for turn in conversation.turns).lower()
        assert not re.search(r"[\[\]{}]", said)
        assert all(_word_in(fact.speaker, fact.text) for fact in conversation.facts)
        for question in conversation.questions:
            if question.category == 4:
                assert question.answer.lower() in said
                checked += 1
    assert checked > 100
    plain = generate_conversations(5, 12)
    few, many = (distinct_ngrams(fact_texts(made), 2000) for made in (plain, told))
    assert many[2] > few[2] and many[3] > few[3]
    few, many = (distinct_ngrams(turn_texts(made), 2000) for made in (plain, told))
    assert many[2] > 1.4 * few[2]


def test_passing_remarks_are_noted_and_not_worth_keeping():
    (record,) = generate(3, 1, 12, 6, trivia=0.4)
    notes = {
        note: turn
        for session in record["observation"].values()
        for listed in session.values()
        for note, turn in listed
    }
    plain = [note for note in notes if any(word in note for word in ("burnt", "bit", "dozed"))]
    assert plain
    evidence = {turn for question in record["qa"] for turn in question["evidence"]}
    assert not evidence & {notes[note] for note in plain}
    events = collections.Counter(operation["event"] for operation in record["gold_operations"])
    assert 0.3 < events["NONE"] / events.total() < 0.65
    conversation = generate_conversations(3, 1, num_sessions=12, trivia=0.4)[0]
    left = [fact.text for fact in facts_before(conversation, len(conversation.turns))]
    assert not set(plain) & set(left)


def test_a_rephrased_repeat_does_not_say_that_it_repeats():
    def repeats(**options):
        found = []
        for conversation in generate_conversations(2, 8, repeats=0.4, wordings=0.01, **options):
            texts = {turn.dia_id: turn.text for turn in conversation.turns}
            facts = [fact.text for fact in conversation.facts]
            for operation in conversation.operations:
                if operation.event == Event.NONE:
                    fact = conversation.facts[operation.fact]
                    announced = re.match(
                        "As I told|Like I said|You may rem", texts[fact.sources[-1]]
                    )
                    found.append((announced is None, fact.text in facts[: operation.fact]))
        return found

    announced, before = zip(*repeats(), strict=True)
    quiet, same = zip(*repeats(rephrased=1.0), strict=True)
    assert all(quiet) and not all(announced)
    # A later repeat may say what an earlier one said.
    assert sum(same) / len(same) < 0.6 * sum(before) / len(before)

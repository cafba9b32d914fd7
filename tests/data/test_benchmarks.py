import csv
import dataclasses
import json
import re

import pytest

from memr1_jax.data import readers
from memr1_jax.data.benchmarks import load_benchmark
from memr1_jax.data.locomo import LOCOMO, load_conversations
from memr1_jax.data.longmemeval import FILES
from memr1_jax.data.msc import CLEANED_QUESTIONS, MSC
from memr1_jax.data.personamem import CONTEXTS, QUESTIONS
from memr1_jax.data.published import Edition
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.run import download
from memr1_jax.run.checksums import file_digest

UNKNOWN = pytest.mark.filterwarnings("ignore:.*not a known edition")


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """Leaves an empty cache, and no way to any address."""

    def refuse(*arguments, **options):
        raise OSError("no network")

    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setattr(download.urllib.request, "urlopen", refuse)
    return tmp_path / "cache"


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("locomo", LOCOMO),
        *((f"longmemeval_{edition}", file) for edition, file in FILES.items()),
        ("msc", MSC),
        *((f"personamem_{length}", file) for length, file in QUESTIONS.items()),
    ],
)
def test_absent_and_offline_a_sentence_says_what_to_get(no_network, name, file):
    with pytest.raises(UserError) as error:
        load_benchmark(name)
    wanted = (file.name, file.sha256, file.licence, file.url, "--data_path", str(no_network))
    for part in wanted:
        assert part in str(error.value)
    assert re.fullmatch("[0-9a-f]{64}", file.sha256) and file.licence
    assert not list(no_network.glob("*.json*"))


def test_every_second_file_has_a_flag_of_its_own(no_network, write):
    dialogues = write('{"previous_dialogs": []}', MSC.name)
    for name, option in (("msc", "cleaned_path"), ("personamem_32k", "contexts_path")):
        path = dialogues if name == "msc" else write("question_id\n", QUESTIONS["32k"].name)
        with pytest.warns(UserWarning), pytest.raises(UserError, match=f"--{option} points"):
            load_benchmark(name, path, **{option: "nowhere.json"})
    assert CLEANED_QUESTIONS.flag == "--cleaned_path"


def test_names_options_and_splits_are_checked():
    with pytest.raises(UserError, match="no data set 'lokomo'; choose one of locomo, longmem"):
        load_benchmark("lokomo")
    with pytest.raises(UserError, match="no option 'caption'. Its options: captions, advers"):
        load_benchmark("locomo", caption=True)
    with pytest.raises(UserError, match="personamem_1M has no option 'length'"):
        load_benchmark("personamem_1M", length="32k")
    with pytest.raises(UserError, match="msc is for testing alone; it has no split 'train'"):
        load_benchmark("msc", split="train")
    with pytest.raises(UserError, match="own dialogues need --data_path"):
        load_benchmark("own")


def test_unknown_files_are_named_so_and_strict_refuses_them(write, sample):
    path = write([sample], "mine.json")
    benchmark = load_benchmark("locomo", path)
    assert benchmark.name == "mine.json (in LoCoMo's format)" and benchmark.variant == "unknown"
    assert list(benchmark.sha256) == ["mine.json"]
    assert benchmark.counts == {"conversations": 1, "sessions": 4, "turns": 8, "questions": 8}
    assert benchmark.kinds == {"multi-hop": 2, "open-domain": 1, "single-hop": 4, "temporal": 1}
    with pytest.raises(UserError, match="not a known edition of LoCoMo"):
        load_benchmark("locomo", path, strict=True)


@UNKNOWN
def test_a_part_is_never_called_the_whole(write, sample):
    parts = [sample | {"sample_id": name} for name in ("conv-26", "conv-41")]
    path = write(parts)
    benchmark = load_benchmark("locomo", path, split="train")
    name = f"LoCoMo, 2 of 10 conversations, unknown edition {file_digest(path)[:12]}"
    assert benchmark.name == name and benchmark.split == "train"
    assert benchmark.description == (
        f"{name}, train split: 1 conversation, 4 sessions, 8 turns, "
        "8 questions; edition of the files: unknown"
    )
    ids = ("26", "30", "41", "42", "43", "44", "47", "48", "49", "50")
    whole = [sample | {"sample_id": f"conv-{number}"} for number in ids]
    benchmark = load_benchmark("locomo", write(whole))
    assert benchmark.name.startswith("LoCoMo, 40 of 272 sessions, unknown edition ")


@UNKNOWN
def test_an_edited_file_of_the_same_size_goes_by_its_digest(write, sample, monkeypatch):
    published = [sample | {"sample_id": "conv-26"}]
    path = write(published)
    counts = {"conversations": 1, "sessions": 4, "turns": 8, "questions": 9}
    editions = {file_digest(path): Edition("official", counts)}
    monkeypatch.setattr(readers.locomo, "LOCOMO", dataclasses.replace(LOCOMO, editions=editions))
    assert load_benchmark("locomo", path).name == "LoCoMo"
    published[0]["qa"][0]["answer"] = "four"
    edited = write(published, "edited.json")
    assert load_benchmark("locomo", edited).name == (
        f"LoCoMo, unknown edition {file_digest(edited)[:12]}"
    )


def test_a_folder_that_lacks_the_file_says_what_it_holds(tmp_path):
    (tmp_path / "locomo_mine.json").write_text("[]")
    with pytest.raises(UserError, match=r"holds no locomo10\.json, only locomo_mine\.json\. Name"):
        load_benchmark("locomo", tmp_path)
    with pytest.raises(
        UserError, match="There is no file at .*typo.json, where --data_path points"
    ):
        load_benchmark("locomo", tmp_path / "typo.json")
    for name in ("locomo", "own"):
        with pytest.raises(UserError, match="begins with the home of an unknown user"):
            load_benchmark(name, "~nobody-of-this-name/locomo10.json")


@UNKNOWN
def test_options_reach_the_loader(write, sample):
    path = write([sample])
    benchmark = load_benchmark("locomo", path, adversarial=True, captions=True)
    assert benchmark.conversations == tuple(load_conversations(path, True, True))
    assert benchmark.counts["questions"] == 9


@UNKNOWN
def test_two_conversations_of_one_name_are_refused(write, sample):
    with pytest.raises(UserError, match="more than one conversation 'train-fixture'"):
        load_benchmark("locomo", write([sample, sample]))


def test_a_known_file_must_hold_what_it_is_known_to_hold(write, sample, monkeypatch):
    path = write([sample])
    digest = file_digest(path)
    counts = {"conversations": 1, "questions": 9}
    monkeypatch.setitem(LOCOMO.editions, digest, Edition("tiny", counts))
    assert load_benchmark("locomo", path, strict=True).variant == "tiny"
    monkeypatch.setitem(LOCOMO.editions, digest, Edition("tiny", counts | {"turns": 7}))
    with pytest.raises(UserError, match="known .* to hold 7 turns, but 8 were read"):
        load_benchmark("locomo", path)


@UNKNOWN
def test_cleaned_questions_are_named(write):
    record = {
        "previous_dialogs": [{"dialog": [{"text": "Hi."}], "time_back": "1 day ago"}],
        "dialog": [{"text": "Me again."}],
        "self_instruct": {"B": "Remember?", "A": "Yes"},
    }
    path = write(json.dumps(record), MSC.name)
    cleaned = write([{"index": 0, "question": "Does A remember", "answer": "yes"}], "clean.json")
    raw = load_benchmark("msc", path.parent, last_session=True)
    assert raw.name.startswith("MSC-Self-Instruct, 1 of 500 conversations, unknown edition ")
    assert raw.counts["sessions"] == 2
    clean = load_benchmark("msc", path, cleaned_path=cleaned)
    assert clean.name.startswith("MSC-Self-Instruct with cleaned questions, 1 of 500 conversations")
    assert clean.variant == "unknown" and set(clean.sha256) == {MSC.name, "clean.json"}


@pytest.fixture
def persona(tmp_path):
    """Returns a folder with two questions on two contexts; `_write` writes some of them."""

    def _write(name, *contexts):
        lines = [json.dumps({c: [{"role": "user", "content": "User: Hi"}]}) for c in contexts]
        (tmp_path / name).write_text("\n".join(lines))
        return tmp_path

    for length in QUESTIONS:
        with open(tmp_path / f"questions_{length}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            columns = "question_id question_type user_question_or_message correct_answer "
            columns += "all_options shared_context_id end_index_in_shared_context"
            writer.writerow(columns.split())
            for context in ("one", "two"):
                writer.writerow([context, "k", "q?", "(a)", "['(a) x', '(b) y']", context, 1])
    return _write


@UNKNOWN
def test_contexts_are_found_beside_the_questions(persona, no_network):
    folder = persona("shared_contexts_32k.part.jsonl", "two")
    benchmark = load_benchmark("personamem_32k", folder)
    assert benchmark.name.startswith("PersonaMem 32k, 1 context, unknown edition ")
    assert benchmark.counts["questions"] == 1
    assert set(benchmark.sha256) == {"questions_32k.csv", "shared_contexts_32k.part.jsonl"}
    persona("shared_contexts_32k.other.jsonl", "one")
    with pytest.raises(UserError, match="other.jsonl, .*part.jsonl. Name one with --contexts_path"):
        load_benchmark("personamem_32k", folder)
    named = folder / "shared_contexts_32k.other.jsonl"
    benchmark = load_benchmark("personamem_32k", folder, contexts_path=named)
    assert [c.id for c in benchmark.conversations] == ["one"]
    persona("shared_contexts_32k.jsonl", "one", "two")
    whole = load_benchmark("personamem_32k", folder / "questions_32k.csv")
    assert whole.name.startswith("PersonaMem 32k, 2 of 37 conversations, unknown edition ")
    with pytest.raises(UserError, match=CONTEXTS["128k"].sha256):
        load_benchmark("personamem_128k", folder)
    persona("shared_contexts_1M.jsonl", "one", "two")
    benchmark = load_benchmark("personamem_1M", folder)
    assert benchmark.name.startswith("PersonaMem 1M, 2 questions, unknown edition ")


def test_what_a_memory_reads_holds_no_question(write, sample):
    """Checks that questions, answers, evidence, summaries and events stay outside the sessions."""
    secret = "known to the annotators alone"
    for question in sample["qa"]:
        question["question"] = secret
    sample["event_summary"] = {"events_session_1": {"Kim": [secret], "date": secret}}
    sample["session_summary"] = {"session_1_summary": secret}
    with pytest.warns(UserWarning):
        (conversation,) = load_benchmark("locomo", write([sample]), adversarial=True).conversations
    assert isinstance(conversation, Conversation)
    assert secret not in str([stage.sessions for stage in conversation.stages])
    assert secret not in str(conversation.facts)


def test_the_published_files(real_data):
    told = {
        name: load_benchmark(name, real_data(*path), strict=True, **options)
        for name, path, options in [
            ("locomo", ["locomo"], {"audit_path": real_data("locomo_audit")}),
            ("longmemeval_evidence_turns", ["longmemeval"], {}),
            ("personamem_32k", ["personamem"], {}),
        ]
    }
    assert {name: benchmark.name for name, benchmark in told.items()} == {
        "locomo": "LoCoMo",
        "longmemeval_evidence_turns": "LongMemEval evidence-turns",
        "personamem_32k": "PersonaMem 32k, 2 contexts",
    }
    assert told["locomo"].kinds == {
        "multi-hop": 282,
        "open-domain": 96,
        "single-hop": 841,
        "temporal": 321,
    }
    assert told["locomo"].variant == "official + audit"
    assert told["locomo"].counts["turns"] == 5882
    assert told["personamem_32k"].counts["questions"] == 17
    assert told["personamem_32k"].variant == "official + two contexts"


def test_the_samples_are_not_called_by_the_name_of_the_whole(real_data):
    oracle = real_data("longmemeval", "longmemeval_oracle_sample2.json")
    single = real_data("longmemeval", "longmemeval_s_single_e47becba.json")
    assert load_benchmark("longmemeval_oracle", oracle, strict=True).name == (
        "LongMemEval oracle, 2 of 500 questions"
    )
    assert load_benchmark("longmemeval_s", single).name == "LongMemEval S, 1 of 500 questions"
    turns = real_data("longmemeval", "longmemeval_oracle_evidence_turns.json")
    with pytest.warns(UserWarning), pytest.raises(UserError, match="evidence turns alone"):
        load_benchmark("longmemeval_oracle", turns)


def test_the_test_split_of_locomo(locomo_path):
    benchmark = load_benchmark("locomo", locomo_path, split="test", adversarial=True)
    assert benchmark.counts["conversations"] == 8 and benchmark.counts["questions"] == 1682
    assert benchmark.kinds["adversarial"] == 446 - 47 - 24

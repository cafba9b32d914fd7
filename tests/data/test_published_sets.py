"""BEAM, fact consolidation, HaluMem, PersonaMem v2 and REALTALK, on files made in their forms."""

import csv
import json

import huggingface_hub
import pytest

from memr1_jax.data.benchmarks import load_benchmark
from memr1_jax.data.locomo import LOST_ALL
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def lines(path, *records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def one(name, path):
    found = load_benchmark(name, path)
    return found, found.conversations[0]


# BEAM

CHAT = [
    {
        "batch_number": 1,
        "turns": [
            [
                {
                    "role": "user",
                    "id": 0,
                    "time_anchor": "March-15-2024",
                    "content": "Tea. ->-> 1,1",
                },
                {"role": "assistant", "id": 1, "content": "Noted."},
            ],
            [{"role": "user", "id": 2, "content": "I moved to Bergen. ->-> 1,2"}],
        ],
    },
    {"batch_number": 2, "turns": [[{"role": "user", "id": 3, "content": "x ->-> y, I said."}]]},
]
PROBES = {
    "knowledge_update": [
        {
            "question": "Where do I live?",
            "answer": "Bergen",
            "source_chat_ids": {"original_info": [0], "updated_info": [2]},
            "rubric": ["LLM response should state: Bergen"],
        }
    ],
    "abstention": [
        {
            "question": "Who is Bo?",
            "ideal_response": "Nothing is said.",
            "rubric": ["no information"],
        }
    ],
    "event_ordering": [
        {
            "question": "In which order?",
            "answer": "1, 2",
            "source_chat_ids": [2, 9],
            "rubric": ["a", "b"],
        }
    ],
}


@pytest.mark.filterwarnings("ignore:.*source_chat_ids that name no message")
def test_beam_from_the_repositorys_folder(tmp_path):
    for number in ("1", "2"):
        write(tmp_path / number / "chat.json", CHAT)
        write(tmp_path / number / "probing_questions" / "probing_questions.json", PROBES)
    cut = [{"batch_number": 1, "turns": [[{"role": "user", "id": 2, "content": "Cut."}]]}]
    write(tmp_path / "2" / "chat_trunecated.json", cut)
    found, talk = one("beam_100K", tmp_path)
    assert found.name.startswith("BEAM 100K, 2 of 20 conversations, files ")
    assert [t.text for t in talk.turns] == [
        "Tea.",
        "Noted.",
        "I moved to Bergen.",
        "x ->-> y, I said.",
    ]
    assert talk.one_bank and talk.times == {1: "March 15 2024", 2: "March 15 2024"}
    update, abstention, order = talk.questions
    assert (update.kind, update.answer, update.evidence) == (
        "knowledge_update",
        "Bergen",
        ("D1:1", "D1:3"),
    )
    assert update.rubric == ("LLM response should state: Bergen",) and not update.abstain
    assert abstention.abstain and abstention.answer == "Nothing is said."
    assert order.evidence == ("D1:3",) and len(talk.notes) == 1
    assert [turn.text for turn in found.conversations[1].turns] == ["Cut."]


def test_beam_from_the_rows_of_the_hub(tmp_path):
    row = {"conversation_id": "7", "chat": [CHAT[0]["turns"][0]], "probing_questions": str(PROBES)}
    row["probing_questions"] = repr({"abstention": PROBES["abstention"]})
    found, talk = one("beam_1M", lines(tmp_path / "1M.jsonl", row))
    assert talk.id == "7" and [q.kind for q in talk.questions] == ["abstention"]
    assert len(talk.turns) == 2 and not talk.notes
    row["probing_questions"] = "{'summarization': [{'question': 'What?', 'ideal_summary': 'x'}]}"
    with pytest.warns(UserWarning, match="questions without a rubric, .*: 1 "):
        (asked,) = one("beam_1M", lines(tmp_path / "1M.jsonl", row))[1].questions
    assert (asked.answer, asked.rubric) == ("x", ())
    row["probing_questions"] = "__import__('os')"
    with pytest.raises(UserError, match="no Python literal"):
        load_benchmark("beam_1M", lines(tmp_path / "1M.jsonl", row))


# MemoryAgentBench

FACTS = """Here is a list of facts:
0. The head of Fen is Al B. 2. Street.
1. Goalball came from Wye.
2. The head of Fen is Eve."""
CONFLICT = {
    "context": FACTS,
    "questions": ["Who is the head of Fen?"],
    "answers": [["Eve", "Eve Fox"]],
    "metadata": {"source": "factconsolidation_sh_6k", "qa_pair_ids": ["q0"]},
}


def test_fact_consolidation_is_one_turn_for_each_fact(tmp_path):
    other = CONFLICT | {"metadata": {"source": "eventqa_full"}}
    found, talk = one("fact_consolidation", lines(tmp_path / "rows.jsonl", CONFLICT, other))
    assert "1 of 8 conversations" in found.name
    assert [turn.text for turn in talk.turns] == [
        "The head of Fen is Al B. 2. Street.",
        "Goalball came from Wye.",
        "The head of Fen is Eve.",
    ]
    assert talk.dates == ("fact 0", "fact 1", "fact 2")
    assert [fact.text for fact in talk.facts] == [turn.text for turn in talk.turns]
    (question,) = talk.questions
    assert (question.answer, question.accepted) == ("Eve", ("Eve Fox",))
    assert question.kind == "factconsolidation_sh_6k"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": "No number."}, "no numbered fact"),
        ({"answers": []}, "1 questions with 0 answers"),
        ({"answers": [[" "]]}, "at least one answer"),
    ],
)
def test_a_broken_row_of_fact_consolidation_is_named(tmp_path, change, message):
    path = lines(tmp_path / "rows.jsonl", CONFLICT | change)
    with pytest.raises(UserError, match=f"line 1 .factconsolidation_sh_6k.*{message}"):
        load_benchmark("fact_consolidation", path)


# HaluMem


def point(text, source="primary", original=None):
    update = {"is_update": "True", "original_memories": [original]} if original else {}
    return {"memory_content": text, "memory_source": source, "is_update": "False"} | update


USER = {
    "uuid": "u1",
    "persona_info": "secret",
    "sessions": [
        {
            "start_time": "Dec 15, 2025, 06:11:23",
            "dialogue": [
                {
                    "role": "user",
                    "content": "I live in Oslo.",
                    "timestamp": "Dec 15, 2025, 06:11:23",
                },
                {"role": "assistant", "content": "With your cat?"},
            ],
            "memory_points": [point("U lives in Oslo."), point("U has a cat.", "interference")],
            "questions": [],
        },
        {
            "start_time": "Dec 20, 2025, 07:00:00",
            "dialogue": [{"role": "user", "content": "I moved to Bergen."}],
            "memory_points": [
                point("U lives in Bergen.", original="U lives in Oslo."),
                point("U likes tea.", original="U likes milk."),
            ],
            "questions": [
                {
                    "question": "Where?",
                    "answer": "Bergen",
                    "evidence": [{"memory_content": "U lives in Bergen."}],
                    "question_type": "Dynamic Update",
                },
                {
                    "question": "Cat?",
                    "answer": "?",
                    "question_type": "Memory Boundary",
                    "evidence": [],
                },
            ],
        },
    ],
}


@pytest.mark.filterwarnings("ignore:.*updates whose original memory")
def test_halumems_memory_points_are_gold_operations(tmp_path):
    later = USER["sessions"][1] | {"questions": []}
    user = USER | {"sessions": [*USER["sessions"], later]}
    found, talk = one("halumem_medium", lines(tmp_path / "HaluMem-Medium.jsonl", user))
    assert "HaluMem-Medium, 1 of 20 conversations" in found.name
    operations = [(o.event, talk.facts[o.fact].text, o.replaces) for o in talk.operations[:3]]
    assert operations == [
        (Event.ADD, "U lives in Oslo.", None),
        (Event.UPDATE, "U lives in Bergen.", 0),
        (Event.ADD, "U likes tea.", None),
    ]
    assert talk.facts[0].sources == ("D1:1", "D1:2") and talk.notes
    where, cat = talk.questions
    assert where.evidence == ("D2:1",) and where.after == 3 and not where.abstain
    assert cat.abstain and len(talk.stages) == 1 and len(talk.stages[0].sessions) == 2


# PersonaMem v2


def persona(folder, *links, **changes):
    path = folder / "benchmark" / "text" / "benchmark.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "chat_history_32k_link": link,
            "user_query": "{'role': 'user', 'content': 'What shall I eat?'}",
            "correct_answer": "Soup.",
            "incorrect_answers": "['Fish.', 'Cake.', 'Rice.']",
            "pref_type": "ask_to_forget",
        }
        | changes
        for link in links
    ]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    history = [{"role": "system", "content": "Ana hates fish."}, {"role": "user", "content": "Hi."}]
    history.append({"role": "assistant", "content": [{"type": "text", "text": "Hello."}]})
    write(folder / "data" / "h" / "a.json", {"metadata": {}, "chat_history": history})
    write(folder / "data" / "h" / "b.json", history)
    return path


@pytest.mark.filterwarnings("ignore:.*history is not there")
def test_personamem_v2_links_its_histories(tmp_path):
    links = ("data/h/a.json", "data/h/b.json", "data/h/none.json", "data/h/a.json")
    path = persona(tmp_path, *links)
    for named in (path, tmp_path):
        found, talk = one("personamem_v2_32k", named)
        assert "PersonaMem v2 32k, 3 of 5,000 questions" in found.name
        assert [turn.text for turn in talk.turns] == ["Hi.", "Hello."]
        assert [len(c.questions) for c in found.conversations] == [2, 1]
        assert [note.quoted for note in talk.notes] == ["data/h/none.json"]
    for conversation in found.conversations:
        for question in conversation.questions:
            (right,) = (o for o in question.options if o.startswith(question.answer))
            assert right.endswith("Soup.") and question.kind == "ask_to_forget"
            assert question.question == "What shall I eat?"
            assert sorted(o[4:] for o in question.options) == ["Cake.", "Fish.", "Rice.", "Soup."]
    with pytest.raises(UserError, match="lacks the columns chat_history_128k_link"):
        load_benchmark("personamem_v2_128k", path)


@pytest.mark.parametrize(
    ("link", "changes", "message"),
    [
        ("../secret.json", {}, "outside the data set"),
        ("data/h/none.json", {}, "None of the 1 histories"),
        ("data/h/a.json", {"incorrect_answers": "[1]"}, "line 2, incorrect_answers"),
        ("data/h/a.json", {"incorrect_answers": "open('x')"}, "line 2, incorrect_answers"),
        ("data/h/a.json", {"correct_answer": " "}, "line 2: correct_answer is empty"),
    ],
)
def test_broken_rows_of_personamem_v2_are_named(tmp_path, link, changes, message):
    with pytest.raises(UserError, match=message):
        load_benchmark("personamem_v2_32k", persona(tmp_path, link, **changes))


# REALTALK

TALK = {
    "name": {"speaker_1": "Emi", "speaker_2": "Bo"},
    "session_1": [
        {
            "speaker": "Emi",
            "clean_text": "I moved to Bergen.",
            "dia_id": "D1:1",
            "date_time": "29.12.2023, 20:01:05",
        },
        {
            "speaker": "Bo",
            "clean_text": "",
            "dia_id": "D1:2",
            "date_time": "29.12.2023, 20:02:00",
            "blip_caption": "a cat",
        },
    ],
    "session_1_date_time": "29.12.2023, 20:01:05",
    "events_session_1": [],
    "qa": [
        {"question": "Where?", "answer": "Bergen", "category": 1, "evidence": ["D1:1"]},
        {"question": "Why?", "answer": "Work", "category": 3, "evidence": ["D9:9"]},
    ],
}


def test_realtalk_is_read_like_locomo_and_says_what_evidence_is_lost(tmp_path):
    write(tmp_path / "Chat_1_Emi_Bo.json", TALK)
    write(tmp_path / "Chat_2_Bo_Emi.json", TALK)
    with pytest.warns(UserWarning, match="lose all of their evidence .*: 2 "):
        found, talk = one("realtalk", tmp_path)
    assert "REALTALK, 2 of 10 conversations" in found.name
    assert talk.id == "Chat_1_Emi_Bo" and talk.speakers == ("Emi", "Bo")
    assert [turn.text for turn in talk.turns] == ["I moved to Bergen.", "(a picture)"]
    assert talk.turns[0].time == "29.12.2023, 20:01:05"
    assert [(q.category, q.kind) for q in talk.questions] == [(1, "multi-hop"), (3, "commonsense")]
    assert [note.what for note in talk.notes] == [LOST_ALL]
    write(tmp_path / "Chat_3.json", TALK | {"session_1": TALK["session_1"][:1]})
    with pytest.raises(UserError, match="two speakers but found Emi"):
        load_benchmark("realtalk", tmp_path / "Chat_3.json")


# All of them


def damaged(value):
    """Yields copies of a JSON value, each with one part of it replaced."""
    for other in (7, "x", [], {}, None):
        if not isinstance(other, type(value)) or other != value:
            yield other
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            for part in damaged(value[key]):
                copy = value.copy()
                copy[key] = part
                yield copy


def beam_chat(path, chat):
    write(path / "1" / "probing_questions" / "probing_questions.json", PROBES)
    return write(path / "1" / "chat.json", chat).parent.parent


def beam_probes(path, probes):
    write(path / "1" / "chat.json", CHAT)
    write(path / "1" / "probing_questions" / "probing_questions.json", probes)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "record", "put"),
    [
        ("beam_100K", CHAT, beam_chat),
        ("beam_100K", PROBES, beam_probes),
        ("fact_consolidation", CONFLICT, lambda path, value: lines(path / "f.jsonl", value)),
        ("halumem_long", USER, lambda path, value: lines(path / "h.jsonl", value)),
        ("realtalk", TALK, lambda path, value: write(path / "Chat_1.json", value)),
    ],
)
def test_a_damaged_file_is_read_or_refused_with_a_sentence(tmp_path, name, record, put):
    refused = 0
    for broken in damaged(record):
        try:
            load_benchmark(name, put(tmp_path, broken))
        except UserError:
            refused += 1
    assert refused > 20


NAMES = ("beam_100K", "fact_consolidation", "halumem_long", "personamem_v2_32k", "realtalk")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_file_a_sentence_says_what_to_get(tmp_path, name):
    for path in (None, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="Get .* from .* name it with --data_path"):
            load_benchmark(name, path)
    with pytest.raises(UserError, match="holds no|cannot be read"):
        load_benchmark(name, tmp_path)
    with pytest.raises(UserError, match="for testing alone"):
        load_benchmark(name, tmp_path, split="train")


def test_one_split_of_the_hubs_tables_is_named(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(tmp_path))
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache"))
    tables = {"Conflict_Resolution": [CONFLICT], "Other": [{"metadata": None}]}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: tables)
    found, talk = one("fact_consolidation", "hf:ai-hyz/MemoryAgentBench/Conflict_Resolution")
    assert len(found.conversations) == 1 and len(talk.turns) == 3
    with pytest.raises(UserError, match="tables cannot be read"):
        load_benchmark("fact_consolidation", "hf:ai-hyz/MemoryAgentBench/Missing")

"""Files of data: a small valid one for each reader, every word of it ours."""

import csv
import io
import json
import random
from pathlib import Path

from memr1_jax.data.audit import read_audit
from memr1_jax.data.benchmarks import load_benchmark
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.locomo_summaries import read_summaries
from memr1_jax.data.longmemeval import load_longmemeval
from memr1_jax.data.msc import load_msc, read_cleaned
from memr1_jax.data.own_dialogues import load_own_dialogues, turns_as_facts
from memr1_jax.data.personamem import load_personamem
from memr1_jax.data.question_lists import listed, read_question_list
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError

LOCOMO = {
    "sample_id": "one",
    "conversation": {
        "speaker_a": "Kim",
        "speaker_b": "Lou",
        "session_1_date_time": "9:05 am on 3 June, 2023",
        "session_1": [
            {"speaker": "Kim", "dia_id": "D1:1", "text": "Hello."},
            {"speaker": "Lou", "dia_id": "D1:2", "text": "I have three boats."},
        ],
        "session_2_date_time": "9:05 am on 4 June, 2023",
        "session_2": [
            {"speaker": "Kim", "dia_id": "D2:1", "text": "A", "blip_caption": "a red boat"},
        ],
    },
    "qa": [
        {"question": "Boats?", "category": 1, "evidence": ["D1:2; D2:1"], "answer": 3},
        {"question": "Cars?", "category": 5, "evidence": ["D1:2"], "adversarial_answer": "x"},
    ],
    "observation": {
        "session_1_observation": {"Lou": [["Lou has boats.", "D1:2"]]},
        "session_2_observation": {"Kim": [["Kim paints.", ["D1:1", "D2:1"]]]},
    },
    "event_summary": {},
    "session_summary": {"session_1_summary": "They met."},
    "gold_operations": [{"event": "ADD", "fact": 0, "text": "x", "replaces": None}],
}
LONGMEMEVAL = {
    "question_id": "q1",
    "question_type": "multi-session",
    "question": "Where?",
    "answer": "Oslo",
    "question_date": "2023/06/01 (Thu) 00:58",
    "haystack_dates": ["2023/05/01 (Mon) 00:58"],
    "haystack_session_ids": ["s1"],
    "haystack_sessions": [[{"role": "user", "content": "I am in Oslo.", "has_answer": True}]],
    "answer_session_ids": ["s1"],
}
MSC = {
    "previous_dialogs": [{"dialog": [{"text": "Hi.", "id": "Speaker 1"}], "time_back": "1 day"}],
    "dialog": [{"text": "Me again."}],
    "self_instruct": {"B": "Remember?", "A": "Yes"},
}
OWN_TURNS = {
    "id": "c",
    "split": "train",
    "turns": [
        {"role": "system", "content": "Be kind."},
        {"role": "human", "content": "I sail.", "time": "2024-02-01 10:00"},
        {"role": "gpt", "content": "Nice.", "time": 1706781600, "caption": "a boat"},
    ],
    "questions": [{"question": "Hobby?", "answer": "sailing", "evidence": ["D1:2"], "after": 3}],
    "facts": [{"speaker": "human", "text": "sails", "sources": ["D1:2"]}],
}
OWN_SESSIONS = {
    "speakers": ["Ana", "Ben"],
    "sessions": [
        {"time": "1 May 2023", "turns": [{"speaker": "Ana", "text": "I moved.", "id": "a"}]},
        {"turns": [{"speaker": "Ben", "text": "Oh."}]},
    ],
    "questions": [
        {"question": "Who moved?", "answer": "Ana", "evidence": ["a"], "category": 4},
        {"question": "Which?", "answer": "(a)", "options": ["(a) x", "(b) y"]},
        {"question": "Why?", "abstain": True},
    ],
    "one_bank": True,
}
AUDIT = {"question_id": "a", "question": "b", "error_type": "c", "correct_answer": "d"}
_NODE = {"message": None, "parent": None}
_ASKED = {"author": {"role": "user"}, "content": {"content_type": "text", "parts": ["Hi"]}}
_TALK = {"id": 1, "type": "message", "from": "Kim", "text": ["I ", {"text": "sail."}]}
CHATS = {  # of other programs
    "messages": [{"messages": [{"role": "user", "content": [{"text": "Hi"}], "time": 1683554160}]}],
    "sharegpt": [{"id": "a", "conversations": [{"from": "human", "value": "Hi"}]}],
    "chatgpt": [
        {
            "id": "c",
            "mapping": {"a": _NODE, "b": {"message": _ASKED | {"create_time": 1.5}, "parent": "a"}},
            "current_node": "b",
        }
    ],
    "telegram": [
        {"id": 7, "name": "Lou", "type": "x", "messages": [_TALK | {"date": "2023-05-08"}]},
    ],
    "memorybank": [{"Kim": {"history": {"2023-05-08": [{"query": "Hi", "response": "Hi!"}]}}}],
}
CONTEXTS = {"one": [{"role": "user", "content": "User: Hi"}]}


def _use(conversations: list[Conversation]) -> None:
    """Asks of conversations what training and tables ask of them."""
    for conversation in conversations:
        assert all(fact.session in conversation.times for fact in conversation.facts)
        assert conversation.stages is not None
        manager_tuples(turns_as_facts(conversation))
        for text in (*(t.content for t in conversation.turns), conversation.id):
            text.encode()  # a text that cannot be written is none


def _own(path: Path) -> None:
    _use(load_own_dialogues(path))
    _use(list(load_benchmark("own", path, split="train").conversations))


def _chats(path: Path) -> None:
    _use(load_own_dialogues(path))


def _locomo(path: Path) -> None:
    _use(load_conversations(path, captions=True, adversarial=True))


def _question_list(path: Path) -> None:
    asked = load_conversations(_beside(path, "asked.json", json.dumps([LOCOMO])))
    listed(asked, read_question_list(path))


def _questions(path: Path) -> None:
    contexts = _beside(path, "contexts.jsonl", json.dumps(CONTEXTS))
    _use(load_personamem(path, contexts)[0])


def _contexts(path: Path) -> None:
    questions = _beside(path, "questions.csv", persona_questions())
    _use(load_personamem(questions, path, system_messages=True)[0])


def _beside(path: Path, name: str, text: str) -> Path:
    other = path.with_name(name)
    if not other.exists():
        other.write_text(text)
    return other


def persona_questions(end: str = "1", options: str = "['(a) x', '(b) y']") -> str:
    """Writes a table of one question."""
    columns = "question_id question_type user_question_or_message correct_answer all_options"
    columns += " shared_context_id end_index_in_shared_context"
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(columns.split())
    rows.writerow(["q", "k", "q?", "(a)", options, "one", end])
    return text.getvalue()


def odd_questions(rng: random.Random) -> str:
    """Writes a table of one question with an odd place or odd options."""
    end = rng.choice(["0", "1", "1", "2", "-1", "9" * 5000, "²", "", "1.5", "1e3", "None"])
    options = ["['(a) x', '(b) y']", "[[]]", "{[]: 1}", r"['(a) \ud83d']", "(" * 5000]
    options += ["['(a) x', 3]", "", "[]", "['x', 'y']", "__import__('os')", "['a'] * 9**9"]
    return persona_questions(end, rng.choice(options))


# A reader, and what it reads: a value of JSON, or the text of a table.
DATA = {
    "locomo": (_locomo, [LOCOMO]),
    "summaries": (read_summaries, [LOCOMO]),
    "longmemeval": (lambda path: _use(load_longmemeval(path)), [LONGMEMEVAL]),
    "msc": (lambda path: _use(load_msc(path)), [MSC]),
    "cleaned": (read_cleaned, [{"index": 0, "question": "x", "answer": "y"}]),
    "audit": (read_audit, [AUDIT]),
    "own": (_own, [OWN_TURNS, OWN_SESSIONS]),
    **{name: (_chats, records) for name, records in CHATS.items()},
    "contexts": (_contexts, CONTEXTS),
    "question_list": (_question_list, {"one": [0]}),
    "persona_questions": (_questions, persona_questions()),
}


def check(name: str, path: Path) -> None:
    """Reads a file; a refusal names the file, or one of the two that belong together."""
    try:
        DATA[name][0](path)
    except UserError as error:
        names = (str(path), "questions.csv", "The list of questions", "The data hold no conv")
        if not any(part in str(error) for part in names):
            raise AssertionError(f"a refusal that names no file: {error}") from error
        raise

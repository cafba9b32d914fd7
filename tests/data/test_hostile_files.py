"""Every reader, on files that were changed at random: it reads or refuses them in a sentence."""

import copy
import csv
import io
import json
import random
import warnings

import pytest

from memr1_jax.data.audit import read_audit
from memr1_jax.data.locomo import load_conversations
from memr1_jax.data.locomo_summaries import read_summaries
from memr1_jax.data.longmemeval import load_longmemeval
from memr1_jax.data.msc import load_msc, read_cleaned
from memr1_jax.data.own_dialogues import load_own_dialogues, turns_as_facts
from memr1_jax.data.personamem import load_personamem
from memr1_jax.data.question_lists import read_question_list
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.errors import UserError

ROUNDS = 150
ODD = [
    *(None, True, False, 0, -1, 10**20, 1.5, "", " ", "x", "D1:1", "D1:1-D9:9", "user", "system"),
    *(
        [],
        {},
        [[]],
        [None],
        ["x"],
        {"x": 1},
        "\ud83d",
        "a\u2028b\x85c\x1cd",
        "D" + "9" * 5000 + ":1",
    ),
]
DEEP = "[" * 100_000

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
OWN = {
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
AUDIT = {"question_id": "a", "question": "b", "error_type": "c", "correct_answer": "d"}


def _own(path):
    for conversation in load_own_dialogues(path):
        assert conversation.stages is not None
        manager_tuples(turns_as_facts(conversation))


def _locomo(path):
    for conversation in load_conversations(path, captions=True, adversarial=True):
        assert all(fact.session in conversation.times for fact in conversation.facts)
        manager_tuples(conversation)


def _persona_questions(path):
    contexts = path.with_name("contexts.jsonl")
    contexts.write_text('{"one": [{"role": "user", "content": "User: Hi"}]}')
    load_personamem(path, contexts)


def _persona_contexts(path):
    questions = path.with_name("questions.csv")
    questions.write_text(_persona_csv("1"))
    load_personamem(questions, path, system_messages=True)


def _persona_csv(end):
    columns = "question_id question_type user_question_or_message correct_answer all_options"
    columns += " shared_context_id end_index_in_shared_context"
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(columns.split())
    rows.writerow(["q", "k", "q?", "(a)", "['(a) x', '(b) y']", "one", end])
    return text.getvalue()


def readers(sample):
    """A reader, and a value that it reads; the text of that value is what is changed."""
    sample["session_summary"] = {"session_1_summary": "They met."}
    sample["gold_operations"] = [{"event": "ADD", "fact": 0, "text": "x", "replaces": None}]
    return {
        "locomo": (_locomo, [sample]),
        "summaries": (read_summaries, [sample]),
        "longmemeval": (load_longmemeval, [LONGMEMEVAL]),
        "msc": (load_msc, [MSC]),
        "cleaned": (read_cleaned, [{"index": 0, "question": "x", "answer": "y"}]),
        "audit": (read_audit, [AUDIT]),
        "own": (_own, [OWN]),
        "contexts": (_persona_contexts, {"one": [{"role": "user", "content": "User: Hi"}]}),
        "question list": (read_question_list, {"conv-26": [0, 3]}),
    }


NAMES = (
    *("locomo", "summaries", "longmemeval", "msc", "cleaned", "audit", "own", "contexts"),
    "question list",
)


def _places(value, path=()):
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _places_of(value):
    return [path for path in _places(value) if path]


def _changed(value, rng):
    """The value with an odd one somewhere, or with an element less, renamed or twice."""
    value = copy.deepcopy(value)
    *inner, last = rng.choice(_places_of(value))
    holder = value
    for key in inner:
        holder = holder[key]
    kind = rng.randrange(5)
    if kind == 0:
        del holder[last]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(["x", "turns", "session_99", "id", "\ud83d"])] = holder.pop(last)
    elif kind == 2 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    else:
        holder[last] = copy.deepcopy(rng.choice(ODD))
    return value


def _damaged(text, rng):
    """The text cut, with a piece twice or exchanged, or nested too deeply."""
    place = rng.randrange(len(text))
    piece = rng.choice([DEEP, "NaN", "9" * 5000, "\u2028", "\0", "\\ud83d", '"', "]", "1e999", ","])
    kind = rng.randrange(3)
    if kind == 0:
        return text[:place]
    return text[:place] + piece + text[place + (kind == 1) :]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_a_changed_file_is_read_or_refused_with_its_name(tmp_path, sample, name):
    read, value = readers(sample)[name]
    path = tmp_path / "data.json"
    path.write_text(json.dumps(value))
    read(path)
    rng = random.Random(name)
    for index in range(ROUNDS):
        changed = value
        for _ in range(rng.randint(1, 3)):
            if _places_of(changed):
                changed = _changed(changed, rng)
        text = json.dumps(changed)
        _read_or_refuse(read, path, _damaged(text, rng) if index % 3 == 0 else text)


@pytest.mark.filterwarnings("ignore")
def test_a_changed_table_of_questions_is_read_or_refused(tmp_path):
    rng = random.Random(0)
    for index in range(ROUNDS):
        text = _persona_csv(rng.choice(["1", "-1", "9" * 5000, "²", "", "1.5"]))
        choices = ["[[]]", "{[]: 1}", r"['(a) \ud83d']", "(" * 5000, "['(a) x', 3]"]
        text = text.replace("['(a) x', '(b) y']", rng.choice(choices)) if index % 2 else text
        _read_or_refuse(_persona_questions, tmp_path / "data.json", _damaged(text, rng))


def _read_or_refuse(read, path, text):
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read(path)
    except UserError as error:
        assert str(path) in str(error) or path.with_name("questions.csv").name in str(error)
        assert len(str(error)) < 20_000
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {text[:2000]!r}") from error


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_nested_too_deeply_is_refused_in_a_sentence(tmp_path, sample, name):
    read, _ = readers(sample)[name]
    path = tmp_path / "data.json"
    for text in (DEEP, '{"a":' * 100_000, "[" + DEEP, '{"a": ' + DEEP):
        path.write_text(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(UserError, match="data.json.*(nested too deeply|expected list)"):
                read(path)

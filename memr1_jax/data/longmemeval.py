"""LongMemEval (arXiv 2410.10813): a user's chats with an assistant, one question about each.

An item is a conversation of its own. The files differ in what surrounds the evidence: `oracle` has
only the sessions with evidence, `s` about 50 sessions and `m` about 500. Whole copies of the
`oracle` and `s` files carry different dates, so one cannot be made from the other.

A fourth set, evidence-turns, is not part of the publication: it is the part of the oracle file that
public logs hold, only the turns that are evidence. It is easier than `oracle`.
"""

import itertools
import os
import re
from collections.abc import Iterator, Sequence

from memr1_jax.data.nodes import Node, read_array
from memr1_jax.data.published import Edition, PublishedFile
from memr1_jax.data.types import Conversation, Question, Session, Turn

KINDS = (
    "single-session-user",
    "single-session-assistant",
    "single-session-preference",
    "multi-session",
    "knowledge-update",
    "temporal-reasoning",
)
SPEAKERS = ("user", "assistant")
EVIDENCE_TURNS = "evidence_turns"

_URL = (
    "https://huggingface.co/datasets/xiaowu0162/longmemeval-cleaned/resolve/"
    "98d7416c24c778c2fee6e6f3006e7a073259d48f/"
)
_WHOLE = {"questions": 500, "conversations": 500}
_DATE = re.compile(r"(\d{4})/(\d\d)/(\d\d) \(\w+\) (\d\d):(\d\d)")


def _published(title: str, name: str, editions: dict[str, Edition]) -> PublishedFile:
    return PublishedFile(
        title=title,
        name=name,
        editions=editions,
        home="published by xiaowu0162/longmemeval-cleaned on Hugging Face",
        licence="the MIT licence",
        url=_URL + name,
    )


# The digests of whole files are those that the hub states for that revision.
FILES = {
    "oracle": _published(
        "LongMemEval oracle",
        "longmemeval_oracle.json",
        {
            "821a2034d219ab45846873dd14c14f12cfe7776e73527a483f9dac095d38620c": Edition(
                "cleaned", _WHOLE
            ),
            "8a977cc188314da6e74a49c76b4539006296ea7f28da95005e9d294624e8316b": Edition(
                "two instances", {"questions": 2, "sessions": 4, "turns": 48}
            ),
        },
    ),
    "s": _published(
        "LongMemEval S",
        "longmemeval_s_cleaned.json",
        {
            "d6f21ea9d60a0d56f34a05b609c79c88a451d2ae03597821ea3d5a9678c3a442": Edition(
                "cleaned", _WHOLE
            ),
            "9c5d1cd86db0d66671786bae984d94337cde306f1235a14bb12bd6a958b27d81": Edition(
                "one instance", {"questions": 1, "sessions": 53, "turns": 550}
            ),
        },
    ),
    "m": _published(
        "LongMemEval M",
        "longmemeval_m_cleaned.json",
        {
            "9d79e5524794a2e6900a3aa9cb7d9152c5a3e8319c9a87c25494ba1eacee495f": Edition(
                "cleaned", _WHOLE
            )
        },
    ),
    EVIDENCE_TURNS: PublishedFile(
        title="LongMemEval evidence-turns",
        name="longmemeval_oracle_evidence_turns.json",
        editions={
            "81d2b4b00c02d4e4525a86fe80dd7a2080620b154c9abf6263c61131279079ab": Edition(
                "from public logs", {"questions": 500, "conversations": 500, "turns": 896}
            )
        },
        home="drawn from the logs in Hunk0724/LongMemEval on GitHub, which are published",
        licence="the MIT licence",
    ),
}


def load_longmemeval(
    path: str | os.PathLike, edition: str = "oracle", limit: int = 0
) -> list[Conversation]:
    """Reads a file in LongMemEval's format.

    Sessions come in the order of their dates, which the oracle file does not keep. Some are dated
    after the question; they are kept, as in the official evaluation. Abstention questions keep the
    explanation that the file gives as their answer. Marks of evidence on turns and session ids are
    noted only with the question.

    Args:
      path: the JSON file.
      edition: a key of `FILES`.
      limit: read this many items at most; 0 for all. The `m` file is 2.7 GB.

    Raises:
      UserError: the file is not of the schema; the message names the place. Or it holds whole
        sessions where evidence turns are expected, or the other way round.
    """
    texts: dict[str, str] = {}  # equal turns of different items are held once
    conversations = []
    for index, item in enumerate(itertools.islice(read_array(path), limit or None)):
        conversations.append(_conversation(item, index, edition == EVIDENCE_TURNS, texts))
    return conversations


def _conversation(
    item: Node, index: int, evidence_only: bool, texts: dict[str, str]
) -> Conversation:
    identity = item.text("question_id")
    item = item.called(identity)
    if ("haystack_session_ids" in item) == evidence_only:
        found, name = ("whole sessions", "") if evidence_only else ("evidence turns alone", " not")
        raise item.error(
            f"these seem to be {found}, as session ids are{name} given. Load evidence turns as "
            "longmemeval_evidence_turns, whole sessions as longmemeval_oracle, _s or _m."
        )
    dates, sessions = item["haystack_dates"].items(), item["haystack_sessions"].items()
    ids = [None] * len(sessions) if evidence_only else item["haystack_session_ids"].items()
    if not len(dates) == len(sessions) == len(ids):
        raise item.error(
            f"there are {len(sessions)} sessions with {len(dates)} dates and {len(ids)} ids."
        )
    marked = (
        set() if evidence_only else {n.of(str).value for n in item["answer_session_ids"].items()}
    )
    moments = [_moment(date) for date in dates]
    order = sorted(range(len(sessions)), key=moments.__getitem__)  # equal dates keep their order
    read, evidence, evidence_sessions = [], [], []
    for number, place in enumerate(order, start=1):
        turns = tuple(_turns(sessions[place], number, texts))
        found = [
            turn.dia_id
            for turn, node in zip(turns, sessions[place].items(), strict=True)
            if node.value.get("has_answer") is True
        ]
        evidence += found
        if found if evidence_only else ids[place].of(str).value in marked:
            evidence_sessions.append(number)
        read.append(Session(number, dates[place].value, turns))
    question = _question(item, index, evidence, evidence_sessions)
    return Conversation(identity, SPEAKERS, tuple(read), (question,), (), one_bank=True)


def _question(
    item: Node, index: int, evidence: Sequence[str], evidence_sessions: Sequence[int]
) -> Question:
    kind = item.text("question_type")
    if kind not in KINDS:
        raise item["question_type"].error(f"{kind!r} is none of {', '.join(KINDS)}.")
    identity = item.text("question_id")
    return Question(
        question=item.filled("question"),
        answer=item.filled("answer", str, int, float),
        category=0,
        evidence=tuple(evidence),
        index=index,
        id=identity,
        kind=kind,
        time=item["question_date"].of(str, type(None)).value or "",
        abstain=identity.endswith("_abs"),
        evidence_sessions=tuple(evidence_sessions),
    )


def _turns(session: Node, number: int, texts: dict[str, str]) -> Iterator[Turn]:
    for place, node in enumerate(session.items(), start=1):
        role, text = node.text("role"), node.text("content")
        if role not in SPEAKERS:
            raise node["role"].error(f"{role!r} is none of {', '.join(SPEAKERS)}.")
        yield Turn(role, texts.setdefault(text, text), f"D{number}:{place}")


def _moment(date: Node) -> tuple[int, ...]:
    found = _DATE.fullmatch(date.of(str).value)
    if not found:
        raise date.error(f"{date.value!r} does not read like 2023/06/01 (Thu) 00:58.")
    return tuple(map(int, found.groups()))

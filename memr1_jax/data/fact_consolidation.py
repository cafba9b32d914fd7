r"""Fact consolidation of MemoryAgentBench (arXiv 2507.05257): of two facts, the newer one holds.

The split Conflict_Resolution of ai-hyz/MemoryAgentBench on the hub (MIT) has eight contexts, four
lengths of single-hop and of multi-hop questions. Fields and form were taken from the data set's
card and from public readers of it, and not tried on the real tables:

    {"context": "Here is a list of facts:\n0. <fact>\n1. <fact>\n...",
     "questions": [str], "answers": [[str, ...]],
     "metadata": {"source": "factconsolidation_sh_6k", "qa_pair_ids": [str]}}

A larger number means a newer fact. Every fact is a turn of its own, and its number is its time.
"""

import re
from pathlib import Path

from memr1_jax.data.nodes import Node, read_records
from memr1_jax.data.published_sets import PublishedSet
from memr1_jax.data.types import Conversation, Fact, Question, Session, Turn

SPEAKERS = ("user", "assistant")
FACTS_TOLD_TOGETHER = 50  # a session; the data have none
_SOURCE = "factconsolidation"
_NUMBERED = re.compile(r"(?:^|(?<=\s))(\d+)\.\s+")

FACT_CONSOLIDATION = PublishedSet(
    title="MemoryAgentBench fact consolidation",
    name="the rows of the split Conflict_Resolution as JSON",
    home="ai-hyz/MemoryAgentBench, or as hf:ai-hyz/MemoryAgentBench/Conflict_Resolution",
    licence="the MIT licence",
    counts={"conversations": 8, "questions": 800},
)


def load_fact_consolidation(path: Path) -> tuple[list[Conversation], list[Path]]:
    """Reads the contexts of fact consolidation; other tasks in the same file are passed over."""
    rows = [row for row in read_records(path) if _source(row).startswith(_SOURCE)]
    return list(map(_conversation, rows)), [path]


def _source(row: Node) -> str:
    return row["metadata"].text("source")


def _conversation(row: Node) -> Conversation:
    identity = _source(row)
    row = row.called(identity)
    told = _facts(row["context"])
    sessions, facts = [], []
    for start in range(0, len(told), FACTS_TOLD_TOGETHER):
        number, turns = len(sessions) + 1, []
        for serial, text in told[start : start + FACTS_TOLD_TOGETHER]:
            turn = Turn("user", text, f"D{number}:{len(turns) + 1}", time=f"fact {serial}")
            turns.append(turn)
            facts.append(Fact("user", text, number, (turn.dia_id,)))
        sessions.append(Session(number, turns[0].time, tuple(turns)))
    asked, answers = row["questions"].items(), row["answers"].items()
    if len(asked) != len(answers):
        raise row.error(f"there are {len(asked)} questions with {len(answers)} answers.")
    pairs = enumerate(zip(asked, answers, strict=True))
    questions = tuple(_question(identity, index, *pair) for index, pair in pairs)
    return Conversation(identity, SPEAKERS, tuple(sessions), questions, tuple(facts), one_bank=True)


def _question(identity: str, index: int, asked: Node, answers: Node) -> Question:
    right = [answer.of(str).value for answer in answers.items()]
    if not right or not all(text.strip() for text in right):
        raise answers.error("expected at least one answer, none of them empty.")
    return Question(
        question=asked.of(str).value,
        answer=right[0],
        category=0,
        evidence=(),
        index=index,
        id=f"{identity}_no{index}",
        kind=identity,
        accepted=tuple(right[1:]),
    )


def _facts(context: Node) -> list[tuple[int, str]]:
    """Returns the facts with their numbers; a number counts where it is the next one."""
    text, found = context.of(str).value, []
    for match in _NUMBERED.finditer(text):
        number = int(match[1])
        if (not found and number <= 1) or (found and number == found[-1][0] + 1):
            found.append((number, match.start(), match.end()))
    if not found:
        raise context.error('there is no numbered fact: expected lines such as "0. <fact>".')
    ends = [start for _, start, _ in found[1:]] + [len(text)]
    return [
        (number, " ".join(text[begin:end].split()))
        for (number, _, begin), end in zip(found, ends, strict=True)
    ]

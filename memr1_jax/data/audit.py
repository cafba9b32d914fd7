"""The public audit of LoCoMo's answer key: what it objects to in the published answers.

It is the opinion of third parties. A score that follows it is shown next to the score on the
published answers, never in its place. Its corrections are sentences for a reader, with reasons in
brackets: a judge can use them, but word overlap can hardly. The questions that it doubts (those
whose `corrected` is not None: 99 of 1,540) can also be left out.
"""

import dataclasses
import os
from collections.abc import Iterable

from memr1_jax.data.nodes import Node, read_json
from memr1_jax.data.published import Edition, PublishedFile
from memr1_jax.data.types import Conversation, Question

AUDIT = PublishedFile(
    title="the audit of LoCoMo's answer key",
    name="errors.json",
    editions={
        "f298ef46263fada20688a1d672be37d4f488c6da3b19343eea55ae5c1b5fe55e": Edition(
            "audit", {"objections": 156}
        )
    },
    home="published by dial481/locomo-audit on GitHub",
    licence="CC BY-NC 4.0",
    url="https://raw.githubusercontent.com/dial481/locomo-audit/"
    "9493fb4b4af4256ed17a18e8fd0b3cfdeec29539/errors.json",
    flag="--audit_path",
)
# The published answer is right; only the turns named as its evidence are wrong.
WRONG_CITATION = "WRONG_CITATION"


def read_audit(path: str | os.PathLike) -> dict[str, Node]:
    """Returns the audit's entries by question id.

    Raises:
      UserError: the file is not of the audit's schema, or names a question twice.
    """
    entries: dict[str, Node] = {}
    for item in read_json(path).items():
        for key in ("question_id", "question", "error_type", "correct_answer"):
            item.text(key)
        identity = item.text("question_id")
        if identity in entries:
            raise item.error(f"the question {identity} stands there twice.")
        entries[identity] = item
    return entries


def with_audit(
    conversations: Iterable[Conversation], entries: dict[str, Node]
) -> list[Conversation]:
    """Returns the conversations with `doubt` and `corrected` set where the audit objects.

    Raises:
      UserError: an entry does not ask the question of its id.
    """

    def checked(question: Question) -> Question:
        entry = entries.get(question.id)
        if entry is None:
            return question
        if entry.text("question") != question.question:
            raise entry.error(
                f"{question.id} asks {entry.text('question')!r} here and {question.question!r} in "
                "the data. The audit belongs to another edition of the data."
            )
        doubt, correct = entry.text("error_type"), entry.text("correct_answer")
        keeps = doubt == WRONG_CITATION or correct == question.answer
        return dataclasses.replace(question, doubt=doubt, corrected=None if keeps else correct)

    return [
        dataclasses.replace(c, questions=tuple(map(checked, c.questions))) for c in conversations
    ]

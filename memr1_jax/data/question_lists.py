"""Fixed lists of questions: the same ones for every system, whatever draws or spreads them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.run.json_files import read_json


def read_question_list(path: str | Path) -> dict[str, list[int]]:
    """Reads a JSON object of conversation ids, each with `Question.index` numbers.

    Raises:
      UserError: the file is missing or is something else, or names a question twice.
    """
    path = user_path(path)
    found = read_json(path, "Check --questions.")
    if not isinstance(found, dict) or not all(_are_indices(value) for value in found.values()):
        raise UserError(
            f'--questions={path} should read {{"conv-26": [0, 3, 17], ...}}: conversation ids, each'
            " with the positions of its questions in the data set's file, none of them twice."
        )
    return found


def listed(
    conversations: Sequence[Conversation], questions: Mapping[str, Sequence[int]]
) -> list[Conversation]:
    """Returns the conversations of a list with its questions, in the data set's order.

    Raises:
      UserError: a conversation or a question is not among those given.
    """
    by_id = {conversation.id: conversation for conversation in conversations}
    if unknown := sorted(questions.keys() - by_id.keys()):
        raise UserError(
            f"The list of questions names the conversation {unknown[0]:.80}, which is not among"
            f" {', '.join(sorted(by_id))}. Check --split and --benchmark."
        )
    kept = []
    for conversation in conversations:
        wanted = set(questions.get(conversation.id, ()))
        chosen = tuple(q for q in conversation.questions if q.index in wanted)
        if absent := sorted(wanted - {question.index for question in chosen}):
            raise UserError(
                f"The list of questions names number {absent[0]} of {conversation.id}, which is not"
                " asked there. Category 5 of LoCoMo needs --adversarial."
            )
        if chosen:
            kept.append(dataclasses.replace(conversation, questions=chosen))
    return kept


def _are_indices(value) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(index, int) and not isinstance(index, bool) for index in value)
        and len(set(value)) == len(value)
    )

"""Folds: questions of training conversations that are held out to validate on."""

import dataclasses
from collections.abc import Sequence

from memr1_jax.data.types import Conversation, Question
from memr1_jax.run.streams import run_draw


def fold_of(question: Question, folds: int) -> int:
    """Returns the fold of a question, which it shares with all others of its last evidence turn.

    It depends on the turn's id alone, so that altered copies of a conversation have the same folds.
    """
    turn = question.evidence[-1] if question.evidence else f"question {question.index}"
    return int(run_draw(0, "fold", turn) * folds)


def hold_out(
    conversations: Sequence[Conversation], folds: int, fold: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Divides questions into those to learn from and those of one fold to validate on.

    Both keep all turns. Generated conversations are left whole, as more can always be generated.
    Neither altered copies nor the earlier stages of a curriculum are validated on.

    Returns:
      All conversations without the questions of the fold, and those with questions in it.
    """
    learned, held = [], []
    longest = max((conversation.sessions_read for conversation in conversations), default=0)
    for conversation in conversations:
        if conversation.operations:
            learned.append(conversation)
            continue
        inside = {q: fold_of(q, folds) == fold for q in conversation.questions}
        parts = [
            tuple(q for q, chosen in inside.items() if chosen == wanted) for wanted in (False, True)
        ]
        learned.append(dataclasses.replace(conversation, questions=parts[0]))
        if parts[1] and not conversation.copy and conversation.sessions_read == longest:
            held.append(dataclasses.replace(conversation, questions=parts[1]))
    return learned, held

"""A curriculum: dialogues that begin short and get longer, stage by stage, in one run.

    --curriculum=8:40,16:40,32

The first 40 steps learn from the first 8 sessions of every training dialogue, the next 40 from the
first 16, all others from 32. Each stage starts from the weights of the one before.
"""

import dataclasses
import itertools
from collections.abc import Sequence

from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CurriculumStage:
    """One length of dialogues: its sessions, and the step at which it ends; None for the last."""

    sessions: int
    end: int | None


def parse_curriculum(text: str) -> tuple[CurriculumStage, ...]:
    """Reads `--curriculum`: sessions and steps of each stage; the last takes all other steps.

    Raises:
      UserError: it makes no sense, or dialogues do not get longer.
    """
    if not text:
        return ()
    *most, last = [item.strip().split(":") for item in text.split(",")]
    numbers = [number for item in [*most, last] for number in item]
    lengths = [int(item[0]) for item in [*most, last] if item[0].isdigit()]
    whole = all(number.isdigit() and 0 < int(number) <= 100_000 for number in numbers)
    longer = all(first < second for first, second in itertools.pairwise(lengths))
    if not (whole and longer and len(last) == 1 and all(len(item) == 2 for item in most)):
        raise UserError(
            f"--curriculum={text} must give growing numbers of sessions, and but for the last the"
            " steps that they are learned from, as 8:40,16:40,32."
        )
    ends = itertools.accumulate(int(steps) for _, steps in most)
    return tuple(map(CurriculumStage, lengths, [*ends, None]))


def stage_at(stages: Sequence[CurriculumStage], step: int) -> CurriculumStage:
    """Returns the stage that a step belongs to."""
    return next(stage for stage in stages if stage.end is None or step < stage.end)


def first_sessions(conversation: Conversation, count: int) -> Conversation:
    """Cuts a conversation after its first sessions, with the questions that these answer.

    Generated dialogues ask for what is true at their end, so shorter ones are generated instead.
    """
    sessions = conversation.sessions[:count]
    told = {turn.dia_id for session in sessions for turn in session.turns}
    return dataclasses.replace(
        conversation,
        sessions=sessions,
        questions=tuple(q for q in conversation.questions if q.evidence and told >= {*q.evidence}),
        facts=tuple(fact for fact in conversation.facts if told >= {*fact.sources}),
    )


def in_stages(
    whole: Sequence[Conversation], shorter: dict[int, Sequence[Conversation]]
) -> list[Conversation]:
    """Joins the dialogues of all stages.

    Args:
      whole: training dialogues of any length.
      shorter: by the sessions of a stage the generated dialogues among them, of this length.
    """
    made = []
    for count, generated in shorter.items():
        of_length = {conversation.id: conversation for conversation in generated}
        for conversation in whole:
            cut = of_length.get(conversation.id) or first_sessions(conversation, count)
            name = f"{conversation.id}@{count}"
            kept = {"source": conversation.source, "sessions_read": count, "id": name}
            made.append(dataclasses.replace(cut, **kept))
    return made

"""One row of a table: its system reads the dialogues and answers their questions."""

import collections
import dataclasses
from collections.abc import Callable, Sequence

from memr1_jax.bench.operations import OperationScorer, question_counts
from memr1_jax.bench.scoring import Answered, Score, score_by_question
from memr1_jax.bench.systems.protocol import (
    Answer,
    Call,
    Memory,
    Reply,
    Steps,
    Store,
    System,
    together,
)
from memr1_jax.bench.usage import find_evidence
from memr1_jax.data.tuples import spread
from memr1_jax.data.types import Conversation, Question, Stage

Run = Callable[[list[Call]], list[Reply]]
Progress = Callable[[str, int, int], None]  # what is done, how far, of how many


@dataclasses.dataclass(frozen=True)
class RowRun:
    """The outcome of a row.

    `bank_items` and `bank_tokens` are summed over the conversations, as they stood at the end. The
    calls are kept without their messages. `operations` are the counts of `bench.operations`; there
    are some where the data set has gold operations or questions on what changed or was never said.
    """

    answered: list[Answered]
    counts: collections.Counter
    bank_items: int
    bank_tokens: int
    without_room: int  # memories that were chosen but did not fit, over all questions
    calls: list[tuple[Call, Reply]]
    search_seconds: list[float]
    operations: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def asking(conversations: Sequence[Conversation], most: int) -> list[Conversation]:
    """Keeps at most `most` questions of the conversations in all, evenly spread; 0 keeps all.

    Conversations without a question are left out.
    """
    places = [(c, q) for c, conversation in enumerate(conversations)
              for q in range(len(conversation.questions))]  # fmt: skip
    kept = collections.defaultdict(list)
    for place in dict.fromkeys(spread(len(places), most)):
        conversation, question = places[place]
        kept[conversation].append(conversations[conversation].questions[question])
    return [
        dataclasses.replace(conversations[c], questions=tuple(questions))
        for c, questions in sorted(kept.items())
    ]


def run_row(
    system: System,
    conversations: Sequence[Conversation],
    run: Run,
    count: Callable[[str], int],
    *,
    score: Score = score_by_question,
    together_at_most: int = 16,
    plain_marks: bool = False,
    on_progress: Progress = lambda what, done, total: None,
) -> RowRun:
    """Has a system read all conversations and answer all their questions.

    Conversations advance together, so that their calls form batches, as do the questions that are
    asked at the same place. A store sees a question only after all that precedes it was read.

    Args:
      system: the row.
      conversations: with the questions that are asked.
      run: answers lists of calls.
      count: tells the tokens of a text, for the size of banks.
      score: of the benchmark, from `scoring.METRICS`.
      together_at_most: conversations that advance together.
      plain_marks: see `metrics.score`.
      on_progress: told what is being done.
    """
    made: list[tuple[Call, Reply]] = []

    def recorded(calls: list[Call]) -> list[Reply]:
        replies = run(calls) if calls else []
        bare = (dataclasses.replace(call, messages=()) for call in calls)
        made.extend(zip(bare, replies, strict=True))
        return replies

    answered, counts, searches = [], collections.Counter(), []
    operations: collections.Counter = collections.Counter()
    items = tokens = without_room = 0
    progress = _Progress(conversations, on_progress)
    for start in range(0, len(conversations), together_at_most):
        wave = conversations[start : start + together_at_most]
        stores = [system.start(conversation.speakers) for conversation in wave]
        scorers = [OperationScorer(c) if c.operations else None for c in wave]
        found: list[list[Answered]] = [[] for _ in wave]
        for level in range(max(len(conversation.stages) for conversation in wave)):
            at = [place for place, c in enumerate(wave) if level < len(c.stages)]
            stages = [wave[place].stages[level] for place in at]
            reading = [
                _read(stores[place], stage, scorers[place], progress)
                for place, stage in zip(at, stages, strict=True)
            ]
            together(reading, recorded)
            asked = [
                (place, question)
                for place, stage in zip(at, stages, strict=True)
                for question in stage.questions
            ]
            answers = together([stores[p].answer(question) for p, question in asked], recorded)
            held = {place: stores[place].memories() for place in at}
            for (place, question), answer in zip(asked, answers, strict=True):
                row = _answered(wave[place], question, answer, held[place], score, plain_marks)
                found[place].append(row)
                operations.update(question_counts(question, answer.answer))
                searches.append(answer.search_seconds)
                without_room += answer.without_room
            progress.answered(len(asked))
        for store, scorer, rows in zip(stores, scorers, found, strict=True):
            operations.update(scorer.finish() if scorer else {})
            answered += rows
            counts.update(store.counts)
            memories = store.memories()
            items += len(memories)
            tokens += sum(count(memory.text) for memory in memories)
    return RowRun(answered, counts, items, tokens, without_room, made, searches, operations)


def _read(
    store: Store, stage: Stage, scorer: OperationScorer | None, progress: "_Progress"
) -> Steps[None]:
    for session in stage.sessions:
        yield from store.ingest(session)
        if scorer:
            scorer.look(session, store.memories())
        progress.read()


def _answered(
    conversation: Conversation,
    question: Question,
    answer: Answer,
    held: Sequence[Memory],
    score: Score,
    plain_marks: bool,
) -> Answered:
    gold = question.answer if question.corrected is None else question.corrected
    asked = dataclasses.replace(question, answer=gold)
    return Answered(
        conversation=conversation.id,
        index=question.index,
        id=question.id,
        kind=question.kind,
        category=question.category,
        question=question.question,
        gold=gold,
        response=answer.response,
        answer=answer.answer,
        rule=answer.rule,
        abstain=question.abstain,
        scores=score(answer.answer, asked, plain_marks),
        evidence=find_evidence(question.evidence, held, answer.memories),
        memories=tuple(dataclasses.asdict(memory) for memory in answer.memories),
        rubric=question.rubric,
    )


class _Progress:
    """Sessions that were read and questions that were answered, of how many."""

    def __init__(self, conversations: Sequence[Conversation], told: Progress):
        stages = [stage for conversation in conversations for stage in conversation.stages]
        self._sessions = sum(len(stage.sessions) for stage in stages)
        self._questions = sum(len(stage.questions) for stage in stages)
        self._told, self._read, self._answered = told, 0, 0

    def read(self) -> None:
        self._read += 1
        self._told("sessions read", self._read, self._sessions)

    def answered(self, count: int) -> None:
        self._answered += count
        self._told("questions answered", self._answered, self._questions)

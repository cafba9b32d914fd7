"""Answers to the questions of a data set, and their scores.

Axis letters: B questions in a batch, R response length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.rollout import Rollout, answer_rollout
from memr1_jax.data.batches import AnswerData, row_batches
from memr1_jax.data.types import Question
from memr1_jax.evals.metrics import aggregate, score
from memr1_jax.models.decoder import Decoder
from memr1_jax.models.sampler import greedy_sampling, rollout_weights
from memr1_jax.parallel.distributed import fetch
from memr1_jax.text.answer_span import extract_answer


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One question, what the Answer Agent wrote, the answer read from it, and its scores."""

    conversation: str
    index: int  # of the question in its conversation's file
    question: str
    gold: str
    category: int
    response: str
    answer: str
    rule: str  # how the answer was found
    tokens: int  # of the response
    stopped: bool  # False: cut off at the response length
    scores: dict[str, float]


@functools.lru_cache(16)  # agents that are loaded again share their programs
def make_answer_questions(agent: AnswerAgent, decoder: Decoder) -> Callable[..., Rollout]:
    """Compiles `answer(params, tools, data, rows, valid) -> Rollout`: one greedy answer each."""

    def answer(params, tools, data, rows, valid):
        params = rollout_weights(params, decoder.dtype)
        return answer_rollout(
            agent,
            decoder,
            params,
            tools,
            data.select(rows, valid),
            *greedy_sampling(),
            group=1,
        )

    return jax.jit(answer)


def predict(
    answer: Callable[..., Rollout],
    params: dict,
    tools,
    data: AnswerData,
    questions: Sequence[tuple[str, Question]],
    tokenizer,
    *,
    batch: int,
    rows: Sequence[int] | None = None,
    plain_marks: bool = False,
    on_batch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prediction]:
    """Answers questions and scores them.

    Args:
      answer: from `make_answer_questions`.
      params: the Answer Agent's parameters.
      tools: see `Tools`.
      data: the questions as arrays.
      questions: the same questions with their conversation's id, in the same order.
      tokenizer: turns responses into text for the metrics and for readers.
      batch: B, questions answered together.
      rows: which questions; all by default.
      plain_marks: see `metrics.score`.
      on_batch: called with the number of questions answered and their total.
    """
    rows = np.arange(data.rows) if rows is None else np.asarray(rows)
    predictions = []
    for places, valid in row_batches(len(rows), batch):
        chosen = rows[places]
        samples = answer(params, tools, data, chosen, valid).samples
        tokens, length, stopped = fetch(
            (samples.tokens[:, 0], samples.length[:, 0], samples.stopped[:, 0])
        )
        for place, row in enumerate(chosen[valid]):
            identity, question = questions[row]
            text = tokenizer.decode(tokens[place, : length[place]], skip_special_tokens=True)
            found, rule = extract_answer(text)
            predictions.append(
                Prediction(
                    conversation=identity,
                    index=question.index,
                    question=question.question,
                    gold=question.answer,
                    category=question.category,
                    response=text,
                    answer=found,
                    rule=rule.name.lower(),
                    tokens=int(length[place]),
                    stopped=bool(stopped[place]),
                    scores=score(found, question, plain_marks),
                )
            )
        on_batch(len(predictions), len(rows))
    return predictions


def summarise(predictions: Sequence[Prediction]) -> list[dict]:
    """Averages scores by category and overall; see `metrics.aggregate`."""
    return aggregate(prediction.scores for prediction in predictions)

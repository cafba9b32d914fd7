"""The whole system on whole dialogues: bank by the manager, answers by the Answer Agent."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.agents.tools import Tools
from memr1_jax.data.encode import Encoder, encode_answer_data
from memr1_jax.data.tuples import spread
from memr1_jax.data.types import Conversation
from memr1_jax.evals.answering import Prediction, make_answer_questions, predict, summarise
from memr1_jax.models.decoder import Decoder


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores by category and overall, every prediction, and what the manager did."""

    summary: list[dict]
    predictions: list[Prediction]
    ingestion: dict[str, float]

    @property
    def overall(self) -> dict:
        """The question-weighted mean over all categories."""
        return self.summary[-1]


def make_evaluator(
    agent: AnswerAgent,
    decoder: Decoder,
    tools: Tools,
    encoder: Encoder,
    tokenizer,
    *,
    batch: int,
    limit: int = 0,
    plain_marks: bool = False,
) -> Callable[..., Evaluation]:
    """Returns `evaluate(params, conversations, ingestion, on_batch) -> Evaluation`.

    The compiled program is shared by all calls. `limit` bounds the number of questions, which are
    then evenly spread; `batch` of them are answered together; `plain_marks` as in `metrics.score`.
    """
    answer = make_answer_questions(agent, decoder)

    def evaluate(
        params: dict,
        conversations: Sequence[Conversation],
        ingestion: Ingestion,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        data = encode_answer_data(encoder, conversations, ingestion.banks)
        questions = [(c.id, question) for c in conversations for question in c.questions]
        predictions = predict(
            answer,
            params,
            tools,
            jax.tree.map(jnp.asarray, data),
            questions,
            tokenizer,
            batch=batch,
            rows=spread(len(questions), limit),
            plain_marks=plain_marks,
            on_batch=on_batch,
        )
        return Evaluation(summarise(predictions), predictions, ingestion.counts)

    return evaluate

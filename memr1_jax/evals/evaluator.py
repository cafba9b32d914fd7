"""The whole system on whole dialogues: bank by the manager, answers by the Answer Agent."""

import dataclasses
import functools
from collections.abc import Callable

import jax

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.ingest import Ingestion, add_everything, ingest, make_ingest_turn
from memr1_jax.data.encode import encode_answer_data
from memr1_jax.data.tuples import spread
from memr1_jax.data.types import Conversation
from memr1_jax.evals.answering import Prediction, make_answer_questions, predict, summarise
from memr1_jax.evals.report.replay import DialogueRecord
from memr1_jax.evals.report.watch import Seen, replay, watch
from memr1_jax.options import SEEDS, at_least, option
from memr1_jax.run.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Set how both agents are evaluated together."""

    bank_builder: str = option(
        "manager",
        "What fills the banks that the Answer Agent is evaluated on: the manager, or every noted"
        " fact as it comes.",
        ("manager", "add_all"),
    )
    eval_questions: int = option(
        0, "Questions to evaluate on, evenly spread; 0: all.", within=at_least(0)
    )
    eval_batch: int = option(8, "Questions answered together.", within=at_least(1))
    plain_marks: bool = option(
        False,
        "In exact match and SQuAD's F1 let typographic apostrophes, quotes and dashes equal plain"
        " ones, as they always do in the reward.",
    )
    replay_dialogues: int = option(
        2,
        "Dialogues of the evaluation that are written down turn by turn, for report.html.",
        within=at_least(0),
    )
    seed: int = option(
        0, "Seed of sampling, of the order of the data and of generated dialogues.", within=SEEDS
    )


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


class Evaluator:
    """Runs both agents on whole dialogues, with progress bars; compiled once for all calls."""

    def __init__(self, options: EvalConfig, pair: AgentPair, models: Models):
        """Compiles nothing yet; the models provide networks and tokenizer, not parameters."""
        self._options, self._pair = options, pair
        self._tokenizer = models.manager.tokenizer
        self._ingest_turn = make_ingest_turn(pair.manager, models.manager.decoder)
        self._answer = make_answer_questions(pair.answerer, models.answerer.decoder)

    def banks(
        self,
        params: dict | None,
        dialogues: list[Conversation],
        what: str,
        watched: Callable[[Callable], Callable] = lambda ingest_turn: ingest_turn,
    ) -> Ingestion:
        """Builds all speakers' banks of `dialogues` (NumPy) with the manager's `params`.

        Without parameters they hold every noted fact unchanged. `watched` may wrap the function
        that ingests a turn, see `evals.watch`.
        """
        with progress_bar(1, f"building banks, {what}") as progress:

            def on_turn(done, total, turn):
                progress.resize(total)
                progress.update(done)

            return ingest(
                watched(self._ingest_turn if params is not None else add_everything),
                params,
                self._pair.tools,
                self._pair.encoder,
                dialogues,
                on_turn,
            )

    def evaluate(
        self, params: dict, dialogues: list[Conversation], banks: Ingestion, what: str
    ) -> Evaluation:
        """Answers the questions with the Answer Agent's `params` and scores the answers."""
        options = self._options
        data = encode_answer_data(self._pair.encoder, dialogues, banks.banks)
        questions = [(c.id, question) for c in dialogues for question in c.questions]
        with progress_bar(1, f"answering, {what}") as progress:

            def on_batch(done, total):
                progress.resize(total)
                progress.update(done)

            predictions = predict(
                self._answer,
                params,
                self._pair.tools,
                jax.device_put(data),
                questions,
                self._tokenizer,
                batch=options.eval_batch,
                rows=spread(len(questions), options.eval_questions),
                plain_marks=options.plain_marks,
                on_batch=on_batch,
            )
        return Evaluation(summarise(predictions), predictions, banks.counts)

    def measure(
        self, manager: dict, answerer: dict, dialogues: list[Conversation], what: str
    ) -> tuple[Evaluation, list[DialogueRecord]]:
        """Builds banks as the options say, answers and scores; the replay shows it turn by turn.

        Args:
          manager: parameters of the Memory Manager, which `--bank_builder=add_all` leaves unused.
          answerer: parameters of the Answer Agent.
          dialogues: with questions.
          what: is said of them by the progress bars.
        """
        options, pair = self._options, self._pair
        seen: list[Seen] = []
        watched = functools.partial(watch, dialogues=options.replay_dialogues, seen=seen)
        params = manager if options.bank_builder == "manager" else None
        banks = self.banks(params, dialogues, what, watched)
        evaluation = self.evaluate(answerer, dialogues, banks, what)
        agents = (pair.manager, pair.tools, pair.encoder, self._tokenizer)
        return evaluation, replay(seen, dialogues, evaluation.predictions, *agents)

"""Measures a pair of agents on held-out generated dialogues, each alone and both together."""

import dataclasses
import functools

import jax
import numpy as np

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.consult import EXACT_MATCH
from memr1_jax.agents.demonstrations import Demonstrations, manager_demonstrations
from memr1_jax.agents.rollout import sample_edits
from memr1_jax.data.batches import row_batches
from memr1_jax.data.encode import encode_manager_data
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.data.types import Conversation
from memr1_jax.evals.answering import Prediction
from memr1_jax.evals.bank_health import bank_health
from memr1_jax.evals.evaluator import Evaluator
from memr1_jax.models.sampler import greedy_sampling, rollout_weights
from memr1_jax.options import with_options
from memr1_jax.text.events import Event
from memr1_jax.text.json_reference import scan_operations_reference
from memr1_jax.training.build import make_policy
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.step import Frozen
from memr1_jax.training.training_data import gold_banks
from memr1_jax.training.validation import greedy_reward

_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Measured:
    """Shares in [0, 1], numbers of words, and the counts of `evals.bank_health`.

    `answer`: exact match on banks as they should be; there too `answer_f1` (sets of words), and the
    mean words of the answers, `answer_words`, and of the gold ones, `gold_words`, and the mean
    tokens of whole responses, `response_tokens`. `manager`: exact match of an Answer Agent after
    one greedy edit of such a bank, the mean over turns with questions, or None. `operations`:
    greedy operations equal to the gold ones in event and memory, of all turns that bring a fact;
    `by_event` the same by gold event. `dialogue`: exact match when the manager fills the banks turn
    by turn from nothing; `dialogue_f1` likewise.
    """

    answer: float
    manager: float | None
    operations: float
    by_event: dict[str, float]
    dialogue: float
    dialogue_f1: float
    answer_f1: float
    answer_words: float
    gold_words: float
    response_tokens: float
    health: dict[str, float]
    questions: int
    turns: int


class HeldOutDialogues:
    """Held-out dialogues as arrays and the programs that measure on them, compiled once."""

    def __init__(
        self,
        options: ExperimentConfig,
        pair: AgentPair,
        models: Models,
        dialogues: list[Conversation],
    ):
        """Takes dialogues with gold operations; UserError where they have none."""
        self._pair, self._models, self._dialogues = pair, models, dialogues
        whole = {"bank_builder": "manager", "replay_dialogues": len(dialogues)}
        self._evaluator = Evaluator(with_options(options, **whole), pair, models)
        self._gold = gold_banks(pair, dialogues)
        tuples = [item for dialogue in dialogues for item in manager_tuples(dialogue, None)]
        self._asked = encode_manager_data(pair.encoder, dialogues, tuples)
        self._shown, _ = manager_demonstrations(
            pair.manager, pair.tools, pair.encoder, models.manager.tokenizer, dialogues
        )
        # Only an exact match counts here, whatever was rewarded in training.
        policy = make_policy(options, pair, models, "manager")
        policy = dataclasses.replace(policy, reward=EXACT_MATCH.reward, judge=None)
        self._exact_match = greedy_reward(policy, batch=_BATCH)
        self._write = jax.jit(functools.partial(_write, pair.manager, models.manager.decoder))

    def measure(self, manager: dict, answerer: dict, reader: dict | None) -> Measured:
        """Measures the agents with these parameters.

        Args:
          manager: of the Memory Manager.
          answerer: of the Answer Agent.
          reader: of the Answer Agent that answers after single edits, which takes longest; None:
            the field `manager` is not measured.
        """
        dialogues, what = self._dialogues, "held-out dialogues"
        whole, records = self._evaluator.measure(manager, answerer, dialogues, what)
        alone = self._evaluator.evaluate(answerer, dialogues, self._gold, what)
        right = self._right_operations(manager)
        return Measured(
            answer=_exact(alone.predictions),
            manager=None if reader is None else self._one_edit(manager, reader),
            operations=float(np.mean([same for _, same in right])),
            by_event={
                event.name: float(np.mean([same for kind, same in right if kind == event]))
                for event in Event
                if any(kind == event for kind, _ in right)
            },
            dialogue=_exact(whole.predictions),
            dialogue_f1=_score(whole.predictions, "f1_set_of_words"),
            answer_f1=_score(alone.predictions, "f1_set_of_words"),
            answer_words=float(np.mean([len(p.answer.split()) for p in alone.predictions])),
            gold_words=float(np.mean([len(p.gold.split()) for p in alone.predictions])),
            response_tokens=float(np.mean([p.tokens for p in alone.predictions])),
            health=bank_health(records, self._dialogues),
            questions=len(whole.predictions),
            turns=len(right),
        )

    def _one_edit(self, manager: dict, reader: dict) -> float:
        frozen, rows = Frozen(reference=None, answerer=reader), np.arange(self._asked.rows)
        return self._exact_match(manager, frozen, self._pair.tools, self._asked, rows)

    def _right_operations(self, manager: dict) -> list[tuple[Event, bool]]:
        """Returns the gold event of every turn, and whether the manager did what it should."""
        tokenizer, shown = self._models.manager.tokenizer, self._shown
        agent = self._pair.manager
        found = []
        for rows, valid in row_batches(shown.rows, _BATCH):
            written, length = jax.device_get(
                self._write(manager, self._pair.tools, shown, rows, valid)
            )
            for place, row in enumerate(rows[: int(valid.sum())]):
                gold, did = (
                    _acts(tokenizer, tokens[:count], agent)
                    for tokens, count in (
                        (np.asarray(shown.tokens[row]), int(shown.length[row])),
                        (written[place], int(length[place])),
                    )
                )
                found.append((gold[0][0] if gold else Event.NONE, gold == did))
        return found


def _exact(predictions: list[Prediction]) -> float:
    return _score(predictions, "exact_match")


def _score(predictions: list[Prediction], metric: str) -> float:
    return float(np.mean([prediction.scores[metric] for prediction in predictions]))


def _acts(tokenizer, tokens, agent) -> list[tuple[Event, int]] | None:
    """Returns events and memories of a response, without those of NONE; None if unreadable."""
    text = tokenizer.decode(tokens, skip_special_tokens=True).encode()
    scan = scan_operations_reference(text, agent.operations, agent.salvage)
    if not scan.valid or scan.skipped:
        return None
    return [(event, -1 if event == Event.ADD else place) for event, place, _ in scan.operations]


def _write(manager, decoder, params, tools, shown: Demonstrations, rows, valid):
    """Writes greedy responses `[B, R]` to the turns of demonstrations; also their lengths."""
    batch, _ = shown.select(rows, valid)
    params = rollout_weights(params, decoder.dtype)
    edits = sample_edits(
        manager,
        decoder,
        params,
        tools,
        batch,
        *greedy_sampling(),
        group=1,
    )
    return edits.samples.tokens[:, 0], edits.samples.length[:, 0]

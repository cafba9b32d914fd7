"""Makes a judge for the nano model's answers: the nano model, taught to say yes or no.

A reward that comes from a judge needs one that reads the agents' tokens and knows what it is asked;
the nano model was only taught the agents' forms. Here it is shown a question, the right answer and
a given one, and learns to say Yes where the given one holds the right one, whatever it adds: as
lenient as judges of such benchmarks are told to be. As this is learned, and so now and then
mistaken, it is a judge and not a rule.

Axis letters: N shown answers, W tokens of a text, B shown answers in a batch.
"""

import collections
import dataclasses
import functools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from memr1_jax.agents.agent_pair import AgentPair, build_agent_pair, load_models
from memr1_jax.agents.judge import judge_log_odds
from memr1_jax.data.batches import row_batches
from memr1_jax.data.encode import Encoder
from memr1_jax.data.types import Conversation, Question
from memr1_jax.models.decoder import Block
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.precision import float32_copy
from memr1_jax.options import at_least, between, check, option, with_default, with_options
from memr1_jax.run.progress import progress_bar, table
from memr1_jax.run.run_folder import OutputConfig
from memr1_jax.studies.nano import (
    NANO_SIZES,
    falling_rate,
    nano_dialogues,
    new_folder,
    write_report,
)
from memr1_jax.text.normalize import normalize_text
from memr1_jax.training.config import ExperimentConfig

_TEST_BATCH = 256


@dataclasses.dataclass(frozen=True)
class NanoJudgeConfig(OutputConfig):
    """Set the lessons of the nano model's judge, which is written to `model` of --output."""

    output: str = with_default(OutputConfig, "output", "runs/nano_judge")
    steps: int = option(1500, "Steps of the optimiser.", within=at_least(1))
    dialogues: int = option(
        1500, "Generated dialogues whose answers are shown.", within=at_least(1)
    )
    test_dialogues: int = option(
        60, "Generated dialogues to test the judge on.", within=at_least(1)
    )
    batch: int = option(64, "Shown answers a step, half of them right.", within=at_least(1))
    learning_rate: float = option(
        1e-3, "Peak learning rate; it falls to a twentieth by a cosine.", within=at_least(0)
    )
    seed: int = option(
        50,
        "Seed of the dialogues and of the order; one more is that of the tests.",
        within=between(0, 2**31 - 2),
    )


class Shown(NamedTuple):
    """An answer as the judge is shown it; `kind` says how it was made."""

    question: str
    gold: str
    answer: str
    kind: str

    @property
    def right(self) -> bool:
        """Tells whether the words of the right answer stand in the given one, in a row."""
        gold, given = (f" {normalize_text(text)} " for text in (self.gold, self.answer))
        return gold.strip() != "" and gold in given


class _Rows(NamedTuple):
    """Shown answers as arrays: three texts `[N, W]` with lengths `[N]`, and labels `[N]`."""

    question: Block
    gold: Block
    answer: Block
    label: np.ndarray


def make_nano_judge(options: NanoJudgeConfig) -> Path:
    """Makes the judge and returns its folder, to be named by --judge_model.

    Next to it `report.json` holds the options and the share of held-out answers that the nano model
    and the judge mark as they should be marked, by the kind of answer.

    Raises:
      UserError: an option makes no sense, or the folder holds a run.
    """
    check(options)
    opened = new_folder(options, "nano_judge")  # held until the judge is written
    folder = opened.path
    settings = with_options(ExperimentConfig(), model="nano", reward="judge", **NANO_SIZES)
    models = load_models(settings)
    dialogues = nano_dialogues(options.seed, options.dialogues)
    pair = build_agent_pair(settings, models, dialogues)
    learned = _encoded(pair.encoder, list(shown_answers(dialogues, options.seed)))
    tests = nano_dialogues(options.seed + 1, options.test_dialogues, split="test")
    tests = list(shown_answers(tests, options.seed + 1))
    mark = functools.partial(right_by_kind, pair, tests)

    params = float32_copy(models.judge.params)
    before = mark(params)
    params = _teach(options, pair, params, learned)
    after = mark(params)
    said = {one.kind: "yes" if one.right else "no" for one in tests}
    table(
        "Held-out answers that are marked as they should be, percent",
        ("answer", "should be", "number", "nano", "judge"),
        [
            (
                kind,
                said.get(kind, ""),
                found["count"],
                *(f"{100 * scores[kind]['right']:.1f}" for scores in (before, after)),
            )
            for kind, found in after.items()
        ],
    )
    made = export_params(
        folder / "model",
        jax.device_get(params),
        models.judge.config,
        tokenizer_folder=models.judge.folder,
        dtype="bfloat16",
    )
    write_report(folder, options, nano=before, judge=after)
    print(f"The judge is in {made}")
    return made


def shown_answers(dialogues: Sequence[Conversation], seed: int) -> Iterator[Shown]:
    """Yields right and wrong answers to every question, of the kinds that an Answer Agent gives."""
    for dialogue in dialogues:
        for question in dialogue.questions:
            draw = random.Random(f"{seed}/{dialogue.id}/{question.index}")
            for kind, answer in _answers(draw, dialogue, question):
                yield Shown(question.question, question.answer, answer, kind)


def right_by_kind(pair: AgentPair, shown: list[Shown], params: dict) -> dict[str, dict]:
    """Measures the share of answers that the pair's judge marks as it should, by kind and in all.

    Each kind has its `count` and the share `right`.
    """
    rows = _encoded(pair.encoder, shown)
    judge = jax.jit(functools.partial(judge_log_odds, pair.judge))
    right = []
    for index, valid in row_batches(len(shown), _TEST_BATCH):
        batch = jax.tree.map(lambda x, index=index: x[index], rows)
        odds = judge(params, pair.tools, *batch[:3])
        right += list(((np.asarray(odds) > 0) == batch.label)[valid])
    kinds = collections.defaultdict(list)
    for one, correct in zip(shown, right, strict=True):
        kinds[one.kind].append(correct)
    kinds["all"] = right
    return {kind: {"count": len(x), "right": float(np.mean(x))} for kind, x in kinds.items()}


def _answers(
    draw: random.Random, dialogue: Conversation, question: Question
) -> Iterator[tuple[str, str]]:
    """Pairs of a kind and an answer of that kind, as far as the dialogue has one."""

    def holds(text):
        return Shown("", question.answer, text, "").right

    memories = [fact.text for fact in dialogue.facts]
    values = [q.answer for q in dialogue.questions if not holds(q.answer)]
    draw.shuffle(memories)
    draw.shuffle(values)
    yield "the right answer", question.answer
    yield from (("a memory that holds it", text) for text in list(filter(holds, memories))[:1])
    others = [text for text in memories if not holds(text)]
    yield from (("another memory", text) for text in others[:2])
    yield from (("another value", text) for text in values[:2])
    for value in values[:1]:
        pair = [question.answer, value]
        draw.shuffle(pair)
        yield "it and another value", " and ".join(pair)
    if len(values) > 1:
        yield "two other values", " and ".join(values[-2:])
    words = question.answer.split()
    if len(words) > 1:
        words.pop(draw.randrange(len(words)))
        yield "a part of it", " ".join(words)


def _encoded(encoder: Encoder, shown: list[Shown]) -> _Rows:
    def block(texts, most):
        place = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens, length = encoder.rows(list(place), most)
        rows = [place[text] for text in texts]
        return Block(tokens[rows, : length.max()], length[rows])

    question, gold, answer, _ = zip(*shown, strict=True)
    return _Rows(
        block(question, encoder.sizes.question_width),
        block(gold, encoder.sizes.gold_width),
        block(answer, NANO_SIZES["answer_response_length"]),
        np.array([one.right for one in shown], np.float32),
    )


def _teach(options, pair, params, rows: _Rows) -> dict:
    rate = falling_rate(options.learning_rate, options.steps, warmup=50)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.05))

    def loss(params, batch):
        odds = judge_log_odds(pair.judge, params, pair.tools, *batch[:3])
        return optax.sigmoid_binary_cross_entropy(odds, batch.label).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, moments, batch):
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, moments = optimizer.update(gradient, moments, params)
        return optax.apply_updates(params, updates), moments, value

    moments = optimizer.init(params)
    order = np.random.default_rng(options.seed)
    sides = [np.flatnonzero(rows.label == label) for label in (0, 1)]
    halves = (options.batch // 2, options.batch - options.batch // 2)
    with progress_bar(options.steps, "judging") as progress:
        for number in range(options.steps):
            picked = map(order.choice, sides, halves)
            index = np.concatenate(list(picked))
            batch = jax.tree.map(lambda x, index=index: x[index], rows)
            params, moments, value = step(params, moments, batch)
            if number % 25 == 24 or number + 1 == options.steps:
                progress.update(number + 1, loss=float(value))
    return params

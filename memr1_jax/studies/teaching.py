"""Teaches a small decoder from lessons of very different lengths, on few processors.

A row is a prompt with its response, right padded to a multiple of sixteen tokens, and a batch has
about the same number of tokens whatever its width, so that short lessons do not pay for long ones.
Prompts are learned as well, with less weight: their names and values recur, and predicting them is
what teaches a small model to copy.

Axis letters: B rows of a batch, T tokens of a row.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon

from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.run.progress import progress_bar
from memr1_jax.studies.agent_lessons import Lesson

_WIDTHS = 16  # rows are padded to a multiple of it
_SHORT = 64  # tokens of a row in the first steps, at most


def steady_rate(
    peak: float, steps: int, *, warmup: int = 100, falling: float = 0.6
) -> optax.Schedule:
    """Makes a rate that climbs, stays, and falls to a twentieth over the last `falling` share."""
    warmup, fall = min(warmup, steps // 2), int(falling * steps)
    parts = (
        optax.linear_schedule(0.0, peak, warmup),
        optax.linear_schedule(peak, peak / 20, fall, transition_begin=steps - fall - warmup),
    )
    return optax.join_schedules(parts, [warmup])


def right_tokens(decoder: Decoder, params: dict, lessons: Sequence[Lesson]) -> list[np.ndarray]:
    """Tells which tokens of each response are the likeliest after the right ones before them.

    Greedy output equals the response where all are.
    """
    likeliest = jax.jit(functools.partial(_likeliest, decoder))
    found: list[np.ndarray] = [np.empty(0)] * len(lessons)
    order = sorted(range(len(lessons)), key=lambda place: -len(lessons[place].prompt))
    for start in range(0, len(order), 64):
        places = order[start : start + 64]
        part = [lessons[place] for place in places]
        width = max(len(lesson.prompt) + len(lesson.response) for lesson in part)
        tokens, length, _ = _rows(part, -(-width // 64) * 64)
        rows = 64 - len(part)
        best = likeliest(params, np.pad(tokens, ((0, rows), (0, 0))), np.pad(length, (0, rows)))
        best = np.asarray(best)
        for row, place in enumerate(places):
            prompt, response = lessons[place]
            end = len(prompt) + len(response)
            found[place] = best[row, len(prompt) - 1 : end - 1] == response
    return found


def _likeliest(decoder, params, tokens, length):
    (hidden,) = decoder.apply({"params": params}, (Block(tokens.astype(jnp.int32), length),))
    return jnp.argmax(decoder.apply({"params": params}, hidden, method=Decoder.logits), axis=-1)


def teach_lessons(
    decoder: Decoder,
    params: dict,
    lessons: Sequence[Lesson],
    *,
    rate: optax.ScalarOrSchedule,
    steps: int,
    tokens: int,
    prompt_weight: float,
    seed: int,
    short_steps: int = 0,
) -> dict:
    """Trains float32 `params` on lessons; each step takes about `tokens` tokens of them.

    The first `short_steps` take short rows only: copying is learned from these in less time.
    """
    optimizer = matrix_optimizer(rate)
    state = optimizer.init(params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, *rows):
        loss = functools.partial(row_loss, decoder, prompt_weight)
        gradient, of_responses = jax.grad(loss, has_aux=True)(params, *rows)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, of_responses

    losses = []
    params = jax.tree.map(jnp.copy, params)
    with progress_bar(steps, "lessons of all agents") as progress:
        batches = Batches(lessons, tokens, seed, short_steps)
        for done, rows in zip(range(1, steps + 1), batches, strict=False):
            params, state, loss = step(params, state, *rows)
            losses.append(loss)
            if done % 25 == 0 or done == steps:
                progress.update(done, loss=float(np.mean(jax.device_get(losses))))
                losses.clear()
    return params


class Batches:
    """Draws batches of lessons of like lengths; every lesson comes once in each round."""

    def __init__(self, lessons: Sequence[Lesson], tokens: int, seed: int, short_steps: int = 0):
        """Lays the lessons out by width; the first `short_steps` batches are of short ones."""
        self._short_steps = short_steps
        self._rng = np.random.default_rng(seed)
        by_width: dict[int, list[Lesson]] = {}
        for lesson in lessons:
            length = len(lesson.prompt) + len(lesson.response)
            by_width.setdefault(-(-length // _WIDTHS) * _WIDTHS, []).append(lesson)
        self._rows = {width: _rows(found, width) for width, found in by_width.items()}
        self._size = {width: max(2, tokens // width) for width in by_width}

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Yields `(tokens [B, T], length [B], asked [B])` without end."""
        steps = 0
        while True:
            parts = []
            for width, (tokens, *_) in self._rows.items():
                order, size = self._rng.permutation(len(tokens)), self._size[width]
                order = np.resize(order, -(-len(order) // size) * size)
                parts += [(width, rows) for rows in order.reshape(-1, size)]
            for place in self._rng.permutation(len(parts)):
                width, rows = parts[place]
                if steps < self._short_steps and width > _SHORT >= min(self._rows):
                    continue
                steps += 1
                yield tuple(part[rows] for part in self._rows[width])


def _rows(lessons: Sequence[Lesson], width: int) -> tuple[np.ndarray, ...]:
    tokens = np.zeros((len(lessons), width), np.int16)
    for row, (prompt, response) in enumerate(lessons):
        tokens[row, : len(prompt) + len(response)] = [*prompt, *response]
    asked = np.array([len(lesson.prompt) for lesson in lessons], np.int32)
    length = np.array([len(lesson.prompt) + len(lesson.response) for lesson in lessons], np.int32)
    return tokens, length, asked


def row_loss(
    decoder: Decoder, prompt_weight: float, params, tokens, length, asked
) -> tuple[jax.Array, jax.Array]:
    """Returns the loss per weighted token, and that of the responses alone, in nats."""
    tokens = tokens.astype(jnp.int32)
    (hidden,) = decoder.apply({"params": params}, (Block(tokens, length),))
    logits = decoder.apply({"params": params}, hidden[:, :-1], method=Decoder.logits)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    place = jnp.arange(1, tokens.shape[1])
    inside = place < length[:, None]
    response = inside & (place >= asked[:, None])
    weight = jnp.where(response, 1.0, prompt_weight) * inside
    return (
        jnp.sum(nll * weight) / jnp.sum(weight),
        jnp.sum(nll * response) / jnp.maximum(jnp.sum(response), 1),
    )


def matrix_optimizer(rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Makes Muon for the matrices of the layers, and Adam for tables and norms."""

    def numbers(params):
        def one(path, leaf):
            names = [key.key for key in path]
            if names[0] != "layers" or names[-1] != "kernel":
                return None
            return _MATRICES[names[-2]]

        return jax.tree_util.tree_map_with_path(one, params)

    return optax.chain(
        optax.clip_by_global_norm(1.0),
        muon(
            rate,
            weight_decay=0.01,
            adam_b2=0.98,
            muon_weight_dimension_numbers=numbers,
            consistent_rms=0.2,
        ),
    )


_HEADS = MuonDimensionNumbers(1, (2, 3))  # of kernels [L, D, N, H]
_MATRICES = {
    "query": _HEADS,
    "key": _HEADS,
    "value": _HEADS,
    "output": MuonDimensionNumbers((1, 2), 3),
    **dict.fromkeys(("gate", "up", "down"), MuonDimensionNumbers(1, 2)),
}

"""Shares shapes, prompts, reward and timing among the systems, so that their steps are the same.

Imports nothing but NumPy, as each system has an environment of its own.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SHAPES: dict[str, dict[str, int]] = {
    "135m": {
        "layers": 30,
        "vocabulary": 49152,
        "width": 576,
        "mlp_width": 1536,
        "heads": 9,
        "key_heads": 3,
    },
    "small": {
        "layers": 2,
        "vocabulary": 2048,
        "width": 128,
        "mlp_width": 256,
        "heads": 2,
        "key_heads": 1,
    },
}
HEAD_SIZE = 64
ROPE_THETA, NORM_EPSILON = 10_000.0, 1e-5
KL_WEIGHT, CLIP, LEARNING_RATE = 0.04, 0.2, 1e-4
FIRST_TOKEN = 2  # below are padding and the end of a text, which no prompt holds


def arguments(about: str, remat: str) -> argparse.Namespace:
    """Reads the flags that all systems have; `remat` is this system's default."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--model", default="135m", choices=SHAPES)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--prompt_length", type=int, default=512)
    parser.add_argument("--response_length", type=int, default=64)
    parser.add_argument(
        "--steps", type=int, default=3, help="the first compiles and is not counted"
    )
    parser.add_argument("--micro", type=int, default=0, help="prompts of a micro-batch; 0: all")
    parser.add_argument("--remat", default=remat, help="what the backward pass keeps")
    return parser.parse_args()


def prompts(options: argparse.Namespace) -> Iterator[np.ndarray]:
    """Yields the tokens `[prompts, prompt_length]` of each step."""
    draw = np.random.default_rng(0)
    vocabulary = SHAPES[options.model]["vocabulary"]
    while True:
        shape = (options.prompts, options.prompt_length)
        yield draw.integers(FIRST_TOKEN, vocabulary, shape).astype(np.int32)


def reward(tokens: Any, vocabulary: int) -> float:
    """Returns the share of a response's tokens in the lower half of the vocabulary."""
    tokens = np.asarray(tokens)
    return float((tokens < vocabulary // 2).mean()) if tokens.size else 0.0


class Clock:
    """Times steps and prints each as a line of JSON, then a summary of all but the first."""

    def __init__(self, system: str, version: str, options: argparse.Namespace):
        """Notes what is timed."""
        self.about = {"system": system, "version": version} | vars(options)
        self.steps: list[dict[str, float]] = []

    def begin(self) -> None:
        """Begins a step."""
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def end(self, **more: float) -> None:
        """Ends it, and prints what it took with what else is known of it."""
        wall, processor = time.perf_counter(), time.process_time()
        took = {"seconds": wall - self._wall, "cpu_seconds": processor - self._processor}
        self.steps.append(took | more)
        print(json.dumps(self.steps[-1]), flush=True)

    def step(self, function: Callable[[], dict[str, float]]) -> None:
        """Times one call, whose result is what else is known."""
        self.begin()
        self.end(**function())

    def summary(self) -> None:
        """Prints medians and the peak memory of this process, in GiB."""
        counted = self.steps[1:] or self.steps
        medians = {
            name: statistics.median(step[name] for step in counted)
            for name in ("seconds", "cpu_seconds")
        }
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        first = {"first_seconds": self.steps[0]["seconds"], "peak_gib": peak}
        print(json.dumps({"summary": self.about | medians | first}), flush=True)

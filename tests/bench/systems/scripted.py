"""A language model that follows a script, a small dialogue, and an embedder that counts words."""

import re
import zlib
from collections.abc import Callable

import numpy as np

from memr1_jax.agents.prompt_files import read_prompt
from memr1_jax.bench.systems.answer_stage import AnswerStage
from memr1_jax.bench.systems.protocol import Call, Reply, together
from memr1_jax.data.types import Question, Session, Turn

SPEAKERS = ("Ann", "Ben")
MAY, JUNE = "9:10 am on 8 May, 2023", "6:00 pm on 9 June, 2023"
SESSIONS = (
    Session(
        1,
        MAY,
        (
            Turn("Ann", "I adopted a dog, Rex.", "D1:1"),
            Turn("Ben", "Nice! I moved to Oslo.", "D1:2"),
            Turn("Ann", "I play chess.", "D1:3"),
            Turn("Ben", "I drink tea.", "D1:4"),
        ),
    ),
    Session(
        2,
        JUNE,
        (
            Turn("Ann", "Rex lives with my brother now.", "D2:1"),
            Turn("Ben", "I moved on to Bergen.", "D2:2"),
        ),
    ),
)
QUESTION = Question("Whereabouts is Rex dwelling?", "brother's farmstead", 1, ("D2:1",), 0)


def embed(texts):
    """Returns unit vectors `[n, 512]` of the words in the texts."""
    rows = np.zeros((len(texts), 512), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in re.findall(r"\w+", text.lower()):
            row[zlib.crc32(word.encode()) % 512] += 1
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def stage(name: str = "compact", model: str = "base") -> AnswerStage:
    """Returns the answer prompt with room for 500 words."""
    prompt = read_prompt(f"answer_{name}")
    return AnswerStage(prompt, lambda text: len(text.split()), 500, 64, model)


class Script:
    """Answers calls by a function of the call; keeps the batches that it was given.

    A text that ends with "<cut>" is a response that was cut off at its greatest length.
    """

    def __init__(self, say: Callable[[Call], str]):
        self.say = say
        self.batches: list[list[Call]] = []

    def __call__(self, calls):
        self.batches.append(list(calls))
        texts = [self.say(call) for call in calls]
        return [
            Reply(text.removesuffix("<cut>"), 7, 3, not text.endswith("<cut>"), 0.1)
            for text in texts
        ]

    @property
    def calls(self) -> list[Call]:
        return [call for batch in self.batches for call in batch]

    def stages(self) -> list[list[str]]:
        """Returns the stages of each batch."""
        return [[call.stage for call in batch] for batch in self.batches]


def last(call: Call) -> str:
    """Returns the part of a prompt that is not the same for all."""
    return call.messages[-1][1]


def read(system, script, sessions=SESSIONS, conversations=1):
    """Stores of as many conversations, which read the same sessions side by side."""
    stores = [system.start(SPEAKERS) for _ in range(conversations)]
    for session in sessions:
        together([store.ingest(session) for store in stores], script)
    return stores if conversations > 1 else stores[0]


def reply(store, script, question=QUESTION):
    (answer,) = together([store.answer(question)], script)
    return answer


def held(store):
    """Returns text, time, owner and sources of all memories."""
    return [(m.text, m.time, m.owner, m.sources) for m in store.memories()]


def counted(store):
    """Returns the counters that are not zero."""
    return {name: value for name, value in store.counts.items() if value}

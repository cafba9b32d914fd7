"""A judge in this process: a model folder, or anything that turns prompts into texts."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from memr1_jax.bench.engine import Engine, Limits
from memr1_jax.bench.judge.judge_prompts import Messages
from memr1_jax.bench.judge.judging import Judge, Outcome, Request
from memr1_jax.bench.reply_cache import model_digest
from memr1_jax.bench.systems.protocol import Call
from memr1_jax.models.loading import Model

Write = Callable[[list[Messages]], list[str | None]]

_NAME = "judge"  # of the model, to its engine


def local_judge(
    model: str,
    write: Write,
    *,
    batch: int = 16,
    log: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Judge:
    """Returns a judge whose replies come from `write`.

    Args:
      model: names the weights in verdicts; see `folder_identity`.
      write: replies to chats, in order; None for one that is too long.
      batch: chats that are handed over together.
      log: gets a line for every reply.
      clock: seconds. Those of a batch are shared out evenly.
    """

    def ask(requests: Sequence[Request]) -> Iterator[Outcome]:
        for start in range(0, len(requests), batch):
            chunk, begin = requests[start : start + batch], clock()
            texts = write([request.messages for request in chunk])
            seconds = (clock() - begin) / len(chunk)
            for request, text in zip(chunk, texts, strict=True):
                log(f"{request.name}: {'too long' if text is None else repr(text)}")
                yield Outcome(text, seconds, "" if text is not None else "the chat is too long")

    return Judge(model, ask, batch)


def folder_identity(folder: Path, dtype) -> str:
    """Names a model that is used in `dtype`: its folder's name, and a digest."""
    return f"{folder.resolve().name}@{model_digest(folder, dtype)[:12]}"


def model_writer(model: Model, *, max_tokens: int = 256, batch: int = 16) -> Write:
    """Returns a function that replies to chats with `model`, greedily, `batch` of them at a time.

    The names of control tokens are plain text in an answer, so that none can end its message.
    `batch` is a power of two.
    """
    generate = Engine({_NAME: model}, limits=Limits(rows=batch))

    def call(messages: Messages) -> Call:
        return Call("judge", messages, max_tokens, _NAME)

    def write(chats: list[Messages]) -> list[str | None]:
        generate.forget()  # a verdict must not depend on earlier ones
        replies = generate([call(messages) for messages in chats])
        return [None if reply.cut else reply.text for reply in replies]

    return write

"""A judge in this process: a model folder, or anything that turns prompts into texts.

Axis letters: B prompts in a batch, P prompt length, R response length.
"""

import functools
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.templates import render_chat
from memr1_jax.evals.judge.judging import Judge, Outcome, Request
from memr1_jax.evals.judge.templates import Messages
from memr1_jax.models.decoder import Block
from memr1_jax.models.sampler import Sampling, generate, rollout_weights
from memr1_jax.training.loading import Model

Write = Callable[[list[Messages]], list[str | None]]

_STRIDE = 64  # prompts are padded to a multiple of this, so that few shapes are compiled


def local_judge(
    model: str,
    write: Write,
    *,
    batch: int = 16,
    log: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Judge:
    """A judge whose replies come from `write`.

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


def folder_identity(folder: Path) -> str:
    """A name for the weights of a model folder: the folder's, and a digest of their files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"{folder.resolve().name}@{digest.hexdigest()[:12]}"


def model_writer(model: Model, *, max_tokens: int = 256, batch: int = 16) -> Write:
    """Returns a function that replies to chats with `model`, greedily, `batch` of them at a time.

    Chats are written in the tokenizer's own template. What an answer contains of the names of
    control tokens is left out, so that no answer can end its message. Compiled once for each
    padded length of prompts.
    """
    control = sorted({*model.tokenizer.all_special_tokens, *model.tokenizer.get_added_vocab()})
    control = re.compile("|".join(map(re.escape, control)) or r"(?!)")
    room = model.config.max_positions - max_tokens
    respond = jax.jit(functools.partial(_respond, model, max_tokens))

    def encode(messages: Messages) -> list[int]:
        clean = [(role, control.sub("", text)) for role, text in messages]
        text = render_chat("of the judge", clean, model.tokenizer)
        return model.tokenizer.encode(text, add_special_tokens=False)

    def write(chats: list[Messages]) -> list[str | None]:
        prompts = [encode(messages) for messages in chats]
        fitting = [place for place, prompt in enumerate(prompts) if len(prompt) <= room]
        texts: list[str | None] = [None] * len(chats)
        for start in range(0, len(fitting), batch):
            places = fitting[start : start + batch]
            width = max(len(prompts[place]) for place in places)
            width = min(-(-width // _STRIDE) * _STRIDE, room)
            tokens, length = np.zeros((batch, width), np.int32), np.ones(batch, np.int32)
            for row, place in enumerate(places):
                length[row] = len(prompts[place])
                tokens[row, : length[row]] = prompts[place]
            active = np.arange(batch) < len(places)
            written, count = jax.device_get(respond(model.params, tokens, length, active))
            for row, place in enumerate(places):
                texts[place] = model.tokenizer.decode(
                    written[row, : count[row]], skip_special_tokens=True
                )
        return texts

    return write


def _respond(model, max_tokens, params, tokens, length, active):
    """Greedy responses `[B, R]` and their lengths `[B]` to prompts `[B, P]`."""
    samples = generate(
        model.decoder,
        rollout_weights(params, model.decoder.dtype),
        (Block(tokens, length),),
        jax.random.key(0),  # greedy: no draw is made from it
        Sampling.create(temperature=0.0),
        group=1,
        max_tokens=max_tokens,
        stop_tokens=model.stop_tokens,
        active=jnp.asarray(active)[:, None],
    )
    return samples.tokens[:, 0], samples.length[:, 0]

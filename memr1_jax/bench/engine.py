"""Greedy replies to lists of calls: batches of few shapes through the compiled sampler."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from memr1_jax.agents.templates import render_chat
from memr1_jax.bench.batch_plans import bucket, plan, rows_of
from memr1_jax.bench.programs import compiled, greedy, read_prefix
from memr1_jax.bench.reply_cache import ReplyCache, model_digest, reply_key
from memr1_jax.bench.systems.protocol import Call, Reply
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Context
from memr1_jax.models.loading import Model
from memr1_jax.parallel.rules import BATCH
from memr1_jax.text.byte_table import build_byte_table
from memr1_jax.text.grammar import Grammar, build_grammar, fewest_tokens
from memr1_jax.text.plain import ChatEncoder

_MOST_HEADS = 1024  # beginnings of prompts that are remembered
_FEWEST_IDS = 16  # memory ids that a grammar knows, at least: more are built in powers of two


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a batch and a prompt."""

    rows: int = 8  # a power of two
    tokens: int = 65_536  # keys of a batch, prompts and responses together
    prompt_length: int = 0  # tokens of a prompt at most; 0: as the model's positions allow


class _Prompt(NamedTuple):
    """Token ids `[P]`, how many were cut, and how many leading ones many calls have."""

    tokens: np.ndarray
    cut: int
    fixed: int


class Engine:
    """Answers lists of calls, in order; compiled once a shape.

    A prompt is the model's chat template around the messages. One that is too long loses the first
    tokens of its last message, which `Reply.cut` counts: the text before it (instruction, examples)
    and its end (the question) are kept. Decoding is greedy, so a repeated prompt
    gets the reply from the cache. Batches are arranged before the cache is looked at, and stored
    whole: a run that resumes after a kill computes the same batches as one that was not killed.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        limits: Limits = Limits(),
        cache: ReplyCache | None = None,
        mesh: Mesh | None = None,
        on_batch: Callable[[int, int], None] = lambda done, total: None,
    ):
        """Compiles nothing yet.

        Args:
          models: by the names that calls use, such as "base", "manager" and "answer"; one model
            may have several names.
          limits: sizes of batches and prompts.
          cache: where replies are kept.
          mesh: the devices that the models' weights lie on; None: one device.
          on_batch: told after each batch how many calls of the list are answered, of how many.
        """
        self._models, self._limits, self._cache, self._mesh = models, limits, cache, mesh
        self.on_batch = on_batch
        self._digests: dict[str, str] = {}
        self._chats: dict[str, ChatEncoder] = {}
        self._heads: dict[tuple[str, str], list[int]] = {}
        self._grammars: dict[tuple, Grammar] = {}
        self._prefixes: collections.OrderedDict[tuple, Context] = collections.OrderedDict()
        split = 1 if mesh is None else int(np.prod([mesh.shape[name] for name in BATCH]))
        self._fewest_rows = split
        self._most_rows = max(limits.rows, split)

    def __call__(self, calls: Sequence[Call]) -> list[Reply]:
        """Returns the replies to the calls; equal calls are made once.

        Raises:
          UserError: a call names an unknown model, or its response has no room.
        """
        encoded = [self._encode(call) for call in calls]
        keys = [
            reply_key(
                self._digest(call.model),
                prompt.tokens.tolist(),
                call.max_tokens,
                call.schema,
                call.ids,
            )
            for call, prompt in zip(calls, encoded, strict=True)
        ]
        unique = {key: place for place, key in reversed(list(enumerate(keys)))}
        places = sorted(unique.values())
        batches = plan(
            [encoded[place].tokens for place in places],
            [self._kind(calls[place]) for place in places],
            self._most_rows,
            self._limits.tokens,
            [calls[place].max_tokens for place in places],
            [encoded[place].fixed for place in places],
        )
        replies = self._cache.get(keys) if self._cache else {}
        for batch in batches:
            members = [places[i] for i in batch.places if keys[places[i]] not in replies]
            if members:
                new = self._answer(
                    [calls[place] for place in members],
                    [encoded[place] for place in members],
                    batch.prefix,
                )
                new = {keys[place]: reply for place, reply in zip(members, new, strict=True)}
                if self._cache:
                    self._cache.put(new)
                replies |= new
                self.on_batch(sum(key in replies for key in keys), len(keys))
        return [replies[key] for key in keys]

    def forget(self) -> None:
        """Drops what earlier calls left, so that what follows does not depend on it."""
        self._heads.clear()
        self._prefixes.clear()

    def _digest(self, name: str) -> str:
        """Returns the cache's key of a model; its name is enough where nothing is kept."""
        if self._cache is None:
            return name
        if name not in self._digests:
            model = self._models[name]
            self._digests[name] = model_digest(model.folder, model.decoder.dtype)
        return self._digests[name]

    def _kind(self, call: Call) -> tuple:
        return call.model, call.schema, self._entries(call), call.max_tokens

    def _entries(self, call: Call) -> int:
        """Counts the ids that the grammar of a call knows."""
        return max(_FEWEST_IDS, 1 << max(call.ids - 1, 0).bit_length()) if call.schema else 0

    def _encode(self, call: Call) -> "_Prompt":
        """Encodes a prompt as token ids, cut where it is too long."""
        if call.model not in self._models:
            raise UserError(
                f"A call of the stage {call.stage} wants the model {call.model!r}, but there are "
                f"only {', '.join(self._models)}."
            )
        model = self._models[call.model]
        room = model.config.max_positions - call.max_tokens
        if self._limits.prompt_length:
            room = min(room, self._limits.prompt_length)
        if room < 1:
            raise UserError(
                f"A response of {call.max_tokens} tokens leaves no room for a prompt: "
                f"{model.folder} has {model.config.max_positions} positions. Lower the response "
                f"length of the stage {call.stage}."
            )
        chat = self._chat(call.model)
        messages = [(role, chat.hide(content)) for role, content in call.messages]
        text = render_chat(f"of the stage {call.stage}", messages, model.tokenizer)
        begin = text.rfind(messages[-1][1].strip())
        (head, known), tokens = self._head(call.model, text[:begin]), chat.encode(text)
        over = len(tokens) - room
        if over > 0:
            rest = chat.encode(text[begin:], begins=False)
            over = len(head) + len(rest) - room
            # A head that fills the room alone is cut as well.
            tokens = (*head, *rest[over:]) if over < len(rest) else (*head, *rest)[over:]
        # A head that came again is an instruction with its examples, and will come again.
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(head, tokens, strict=False))
        fixed = sum(1 for _ in same) if known else 0
        return _Prompt(np.array(tokens, np.int32), max(over, 0), fixed)

    def _head(self, name: str, text: str) -> tuple[list[int], bool]:
        """Encodes the text before a last message, and tells whether it has been seen before."""
        known = (name, text) in self._heads
        if not known:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[name, text] = self._chat(name).encode(text)
        return self._heads[name, text], known

    def _chat(self, name: str) -> ChatEncoder:
        """Returns the encoder of a model's chats, in which texts write no control tokens."""
        if name not in self._chats:
            self._chats[name] = ChatEncoder(self._models[name].tokenizer)
        return self._chats[name]

    def _answer(
        self,
        calls: Sequence[Call],
        prompts: Sequence["_Prompt"],
        prefix: int,
    ) -> list[Reply]:
        """Runs one batch through the device."""
        first = calls[0]
        model = self._models[first.model]
        grammar = self._grammar(first)
        rows = max(rows_of(len(calls), self._most_rows), self._fewest_rows)
        width = bucket(max(len(prompt.tokens) for prompt in prompts) - prefix)
        tokens = np.zeros((rows, width), np.int32)
        length = np.ones(rows, np.int32)
        for row, prompt in enumerate(prompts):
            length[row] = len(prompt.tokens) - prefix
            tokens[row, : length[row]] = prompt.tokens[prefix:]
        active = np.arange(rows) < len(calls)
        shown = np.zeros(rows, np.int32)
        shown[: len(calls)] = [call.ids for call in calls]

        static = (model.decoder, first.max_tokens, model.stop_tokens, self._mesh)
        seconds, past = self._prefix(model, prompts[0].tokens[:prefix])
        arguments = (model.params, past, Block(tokens, length), active, shown, grammar)
        run = compiled(greedy, static, arguments)
        begin = time.perf_counter()
        found, count, stopped = jax.device_get(run(*arguments))
        seconds += time.perf_counter() - begin
        replies = []
        for row, prompt in enumerate(prompts):
            written = found[row, : count[row]]
            text = written[:-1] if stopped[row] else written
            replies.append(
                Reply(
                    text=model.tokenizer.decode(text, skip_special_tokens=True),
                    prompt_tokens=len(prompt.tokens),
                    tokens=int(count[row]),
                    stopped=bool(stopped[row]),
                    seconds=seconds,
                    cut=prompt.cut,
                )
            )
        return replies

    def _prefix(self, model: Model, tokens: np.ndarray) -> tuple[float, tuple[Context, ...]]:
        """Returns keys and values of a shared prefix, and the seconds spent on them now."""
        if not len(tokens):
            return 0.0, ()
        key = (id(model), tokens.tobytes())
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
            return 0.0, (self._prefixes[key],)
        padded = np.zeros(bucket(len(tokens)), np.int32)
        padded[: len(tokens)] = tokens
        arguments = (model.params, Block(padded, np.int32(len(tokens))))
        run = compiled(read_prefix, (model.decoder, self._mesh), arguments)
        begin = time.perf_counter()
        context = jax.block_until_ready(run(*arguments))
        seconds = time.perf_counter() - begin
        self._prefixes[key] = context
        held = [context.key.shape[-2] for context in self._prefixes.values()]
        while len(self._prefixes) > 1 and sum(held) > self._limits.tokens:
            self._prefixes.popitem(last=False)
            held.pop(0)
        return seconds, (context,)

    def _grammar(self, call: Call) -> Grammar | None:
        if not call.schema:
            return None
        model, entries = self._models[call.model], self._entries(call)
        key = (id(model), call.schema, entries)
        if key not in self._grammars:
            table = build_byte_table(model.tokenizer, model.config.vocab_size)
            grammar = build_grammar(call.schema, table, list(model.stop_tokens), entries)
            self._grammars[key] = jax.device_put(grammar)
        shortest = int(fewest_tokens(self._grammars[key]))
        if call.max_tokens < shortest:
            raise UserError(
                f"{call.max_tokens} tokens are too few for any response in the {call.schema} "
                f"schema: the shortest takes {shortest}. Raise the response length of the stage "
                f"{call.stage}."
            )
        return self._grammars[key]

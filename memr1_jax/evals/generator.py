"""Greedy replies to lists of calls: batches of few shapes through the compiled sampler.

Axis letters: B rows of a batch, P prompt length, R response length, T length of a shared prefix.
"""

import collections
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from memr1_jax.agents.manager import grammar_constraint
from memr1_jax.agents.templates import render_chat
from memr1_jax.errors import UserError
from memr1_jax.evals.batching import bucket, plan, rows_of
from memr1_jax.evals.reply_cache import ReplyCache, model_digest, reply_key
from memr1_jax.evals.systems.protocol import Call, Reply
from memr1_jax.models.decoder import Block, Context, Decoder
from memr1_jax.models.sampler import Sampling, generate, rollout_weights
from memr1_jax.parallel.activations import on_mesh
from memr1_jax.parallel.rules import BATCH
from memr1_jax.text.byte_table import build_byte_table
from memr1_jax.text.grammar import Grammar, build_grammar, fewest_tokens
from memr1_jax.training.loading import Model

_FEWEST_IDS = 16  # memory ids that a grammar knows, at least: more are built in powers of two


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much goes into a batch and a prompt."""

    rows: int = 8  # a power of two
    tokens: int = 65_536  # keys of a batch, prompts and responses together
    prompt_length: int = 0  # tokens of a prompt at most; 0: as the model's positions allow


class Generator:
    """Answers lists of calls, in order; compiled once a shape.

    A prompt is the model's chat template around the messages. One that is too long loses the first
    tokens of its last message, which `Reply.cut` counts: what stands before (instruction, examples)
    and what stands at its end (the question) are kept. Decoding is greedy, so what is asked again
    gets the reply from the cache. Batches are arranged before the cache is looked at, and stored
    whole: a run that goes on after a kill computes the same batches as one that was not killed.
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
        self._grammars: dict[tuple, Grammar] = {}
        self._prefixes: collections.OrderedDict[tuple, Context] = collections.OrderedDict()
        split = 1 if mesh is None else int(np.prod([mesh.shape[name] for name in BATCH]))
        self._fewest_rows = split
        self._most_rows = max(limits.rows, split)

    def __call__(self, calls: Sequence[Call]) -> list[Reply]:
        """The replies to the calls; equal calls are made once.

        Raises:
          UserError: a call names an unknown model, or its response has no room.
        """
        encoded = [self._encode(call) for call in calls]
        keys = [
            reply_key(
                self._digest(call.model),
                prompt.tolist(),
                call.max_tokens,
                call.schema,
                call.ids,
            )
            for call, (prompt, _) in zip(calls, encoded, strict=True)
        ]
        unique = {key: place for place, key in reversed(list(enumerate(keys)))}
        places = sorted(unique.values())
        batches = plan(
            [encoded[place][0] for place in places],
            [self._kind(calls[place]) for place in places],
            self._most_rows,
            self._limits.tokens,
            [calls[place].max_tokens for place in places],
        )
        replies = self._cache.get(keys) if self._cache else {}
        for batch in batches:
            members = [places[i] for i in batch.places if keys[places[i]] not in replies]
            if members:
                new = self._answer(
                    [calls[place] for place in members],
                    [encoded[place][0] for place in members],
                    [encoded[place][1] for place in members],
                    batch.prefix,
                )
                new = {keys[place]: reply for place, reply in zip(members, new, strict=True)}
                if self._cache:
                    self._cache.put(new)
                replies |= new
                self.on_batch(sum(key in replies for key in keys), len(keys))
        return [replies[key] for key in keys]

    def _digest(self, name: str) -> str:
        """What the cache knows a model by; a name is enough where nothing is kept."""
        if self._cache is None:
            return name
        if name not in self._digests:
            model = self._models[name]
            dtype = str(jnp.dtype(model.decoder.dtype))
            self._digests[name] = model_digest(model.folder, dtype)
        return self._digests[name]

    def _kind(self, call: Call) -> tuple:
        return call.model, call.schema, self._entries(call), call.max_tokens

    def _entries(self, call: Call) -> int:
        """Ids that the grammar of a call knows."""
        return max(_FEWEST_IDS, 1 << max(call.ids - 1, 0).bit_length()) if call.schema else 0

    def _encode(self, call: Call) -> tuple[np.ndarray, int]:
        """The prompt as token ids, and how many were cut."""
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
        text = render_chat(f"of the stage {call.stage}", call.messages, model.tokenizer)
        encode = functools.partial(model.tokenizer.encode, add_special_tokens=False)
        tokens = encode(text)
        over = len(tokens) - room
        if over > 0:
            # Cut apart where the last message begins, then its first tokens are left out.
            begin = text.rfind(call.messages[-1][1].strip())
            head, rest = encode(text[:begin]), encode(text[begin:])
            over = len(head) + len(rest) - room
            # A head that fills the room alone is cut as well.
            tokens = head + rest[over:] if over < len(rest) else (head + rest)[over:]
        return np.array(tokens, np.int32), max(over, 0)

    def _answer(
        self,
        calls: Sequence[Call],
        prompts: Sequence[np.ndarray],
        cuts: Sequence[int],
        prefix: int,
    ) -> list[Reply]:
        """One batch through the device."""
        first = calls[0]
        model = self._models[first.model]
        grammar = self._grammar(first)
        rows = max(rows_of(len(calls), self._most_rows), self._fewest_rows)
        width = bucket(max(len(prompt) for prompt in prompts) - prefix)
        tokens = np.zeros((rows, width), np.int32)
        length = np.ones(rows, np.int32)
        for row, prompt in enumerate(prompts):
            length[row] = len(prompt) - prefix
            tokens[row, : length[row]] = prompt[prefix:]
        active = np.arange(rows) < len(calls)
        shown = np.zeros(rows, np.int32)
        shown[: len(calls)] = [call.ids for call in calls]

        static = (model.decoder, first.max_tokens, model.stop_tokens, self._mesh)
        seconds, past = self._prefix(model, prompts[0][:prefix])
        arguments = (model.params, past, Block(tokens, length), active, shown, grammar)
        run = _compiled(_generate, static, arguments)
        begin = time.perf_counter()
        found, count, stopped = jax.device_get(run(*arguments))
        seconds += time.perf_counter() - begin
        replies = []
        for row, (prompt, cut) in enumerate(zip(prompts, cuts, strict=True)):
            written = found[row, : count[row]]
            text = written[:-1] if stopped[row] else written
            replies.append(
                Reply(
                    text=model.tokenizer.decode(text, skip_special_tokens=True),
                    prompt_tokens=len(prompt),
                    tokens=int(count[row]),
                    stopped=bool(stopped[row]),
                    seconds=seconds,
                    cut=cut,
                )
            )
        return replies

    def _prefix(self, model: Model, tokens: np.ndarray) -> tuple[float, tuple[Context, ...]]:
        """Keys and values of a shared prefix, and the seconds it took to compute them now."""
        if not len(tokens):
            return 0.0, ()
        key = (id(model), tokens.tobytes())
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
            return 0.0, (self._prefixes[key],)
        padded = np.zeros(bucket(len(tokens)), np.int32)
        padded[: len(tokens)] = tokens
        arguments = (model.params, Block(padded, np.int32(len(tokens))))
        run = _compiled(_read, (model.decoder, self._mesh), arguments)
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
            self._grammars[key] = jax.tree.map(jnp.asarray, grammar)
        shortest = int(fewest_tokens(self._grammars[key]))
        if call.max_tokens < shortest:
            raise UserError(
                f"{call.max_tokens} tokens are too few for any response in the {call.schema} "
                f"schema: the shortest takes {shortest}. Raise the response length of the stage "
                f"{call.stage}."
            )
        return self._grammars[key]


_programs: dict[tuple, Callable] = {}


def _compiled(function: Callable, static: tuple, arguments: tuple) -> Callable:
    """The function, its first arguments fixed, compiled for the shapes of the others.

    So no run that is timed compiles, and generators share their programs.
    """
    leaves, structure = jax.tree.flatten(arguments)
    key = (function, static, structure, *((np.shape(x), x.dtype) for x in leaves))
    if key not in _programs:
        compiled = jax.jit(functools.partial(function, *static)).lower(*arguments).compile()
        _programs[key] = compiled
    return _programs[key]


def _generate(
    decoder: Decoder,
    max_tokens: int,
    stop_tokens: tuple[int, ...],
    mesh: Mesh | None,
    params: dict,
    past: tuple[Context, ...],
    block: Block,
    active: jax.Array,
    shown: jax.Array,
    grammar: Grammar | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Greedy responses `[B, R]`, their lengths and whether they stopped, each `[B]`."""
    with _mesh(mesh):
        constraint = None
        if grammar is not None:
            constraint = grammar_constraint(grammar, shown[:, None], (*shown.shape, 1))
        samples = generate(
            decoder,
            rollout_weights(params, decoder.dtype),
            (block,),
            jax.random.key(0),  # greedy: no draw is made from it
            Sampling.create(temperature=0.0),
            group=1,
            max_tokens=max_tokens,
            stop_tokens=stop_tokens,
            active=active[:, None],
            constraint=constraint,
            past=past,
        )
        return samples.tokens[:, 0], samples.length[:, 0], samples.stopped[:, 0]


def _read(decoder: Decoder, mesh: Mesh | None, params: dict, block: Block) -> Context:
    """Keys and values of a prefix `[T]`."""
    with _mesh(mesh):
        _, (context,) = decoder.apply({"params": params}, (block,), method=Decoder.prefill)
        return context


def _mesh(mesh: Mesh | None) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext() if mesh is None else on_mesh(mesh)

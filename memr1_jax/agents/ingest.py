"""From a dialogue to its memory banks: the Memory Manager reads turn after turn.

Memory-R1, Algorithm 3. Every speaker has a bank; the streams of all speakers of all conversations
advance together, one turn at a time.

Axis letters: C conversations, F facts of a turn, M slots of a bank, R response length.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from memr1_jax.agents.manager import (
    ManagerPrompt,
    MemoryManager,
    Report,
    apply_response,
    manager_prompt,
)
from memr1_jax.agents.rollout import manager_constraint
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import Facts
from memr1_jax.data.encode import Encoder, encode_facts, fact_streams
from memr1_jax.data.types import Conversation
from memr1_jax.memory.bank import MemoryBank, Operations, apply_operations, empty_bank
from memr1_jax.memory.embedder import embed, embedding_width
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import Samples, generate, greedy_sampling, rollout_weights
from memr1_jax.parallel.distributed import fetch
from memr1_jax.text.events import Event


@struct.dataclass
class Turn:
    """Records what the manager saw and did at one turn of each stream; leaves `[streams, ...]`."""

    prompt: ManagerPrompt
    samples: Samples
    report: Report


@dataclasses.dataclass(frozen=True)
class Ingestion:
    """The banks of all conversations `[C, M, ...]` (NumPy), one a speaker, and summed reports."""

    banks: tuple[MemoryBank, MemoryBank]
    counts: dict[str, float]  # per kind of event in `Report`, with "turns" and "responses_cut"


@functools.lru_cache(16)  # agents that are loaded again share their programs
def make_ingest_turn(manager: MemoryManager, decoder: Decoder) -> Callable:
    """Compiles `ingest_turn(params, tools, banks, facts, active) -> banks, Turn`, greedy decoding.

    Leaves are `[streams, ...]`; streams outside `active` `[streams]` keep their banks. The banks
    are donated.
    """

    def ingest_turn(params, tools, banks, facts, active):
        params = rollout_weights(params, decoder.dtype)
        prompts = jax.vmap(lambda bank, facts: manager_prompt(manager, tools, bank, facts))(
            banks, facts
        )
        samples = generate(
            decoder,
            params,
            (manager.template.instruction_block, Block(prompts.tokens, prompts.length)),
            *greedy_sampling(),
            group=1,
            max_tokens=manager.response_length,
            stop_tokens=manager.stop_tokens,
            drafts=manager.draft_tokens,
            active=active[:, None],
            constraint=manager_constraint(tools, prompts.shown, (*active.shape, 1)),
        )
        samples = jax.tree.map(lambda x: x[:, 0], samples)

        def act(bank, prompt, facts, tokens, length):
            return apply_response(manager, tools, bank, prompt, facts, tokens, length)

        edited, report = jax.vmap(act)(banks, prompts, facts, samples.tokens, samples.length)
        banks = _where(active, edited, banks)
        return banks, Turn(prompts, samples, report)

    return jax.jit(ingest_turn, donate_argnums=2)


def ingest(
    ingest_turn: Callable,
    params: dict | None,
    tools: Tools,
    encoder: Encoder,
    conversations: Sequence[Conversation],
    on_turn: Callable[[int, int, Turn | None], None] = lambda done, total, turn: None,
) -> Ingestion:
    """Builds the banks of all speakers from the facts noted for each turn.

    Args:
      ingest_turn: from `make_ingest_turn`, or `add_everything` for a bank without a manager.
      params: the manager's parameters.
      tools: see `Tools`.
      encoder: turns facts into arrays; its sizes fix those of the banks.
      conversations: the dialogues.
      on_turn: called after each turn with its number, their total and what happened.
    """
    sizes = encoder.sizes
    streams = [(c, stream) for c in conversations for stream in fact_streams(c, sizes.facts)]
    total = max(len(stream) for _, stream in streams)
    bank = empty_bank(sizes.bank_capacity, sizes.memory_width, embedding_width(encoder.embedder))
    banks = jax.tree.map(lambda x: jnp.stack([x] * len(streams)), bank)
    long = sum(
        len(encoder.tokenize(fact.text)) > sizes.memory_width
        for conversation in conversations
        for fact in conversation.facts
    )
    blank = sum(not f.text.strip() for conversation in conversations for f in conversation.facts)
    counts: dict[str, float] = {"turns": 0.0, "responses_cut": 0.0, "facts_cut": float(long)}
    counts["facts_skipped"] = float(blank)
    for index in range(total):
        facts, active = [], []
        for conversation, stream in streams:
            active.append(index < len(stream))
            turn, _, noted = stream[index] if active[-1] else (0, 0, ())
            facts.append(encode_facts(encoder, conversation, noted, turn))
        facts = jax.tree.map(lambda *x: np.stack(x), *facts)
        active = np.array(active)
        banks, turn = ingest_turn(params, tools, banks, facts, active)
        counts["turns"] += float(active.sum())
        if turn is not None:
            _count(counts, turn, active)
        on_turn(index + 1, total, turn)
    banks = fetch(banks)
    counts["refused"] = float(banks.refused.sum())
    counts["overflowed"] = float(banks.overflowed.sum())
    first = jax.tree.map(lambda x: x[0::2], banks)
    second = jax.tree.map(lambda x: x[1::2], banks)
    return Ingestion((first, second), counts)


@jax.jit
def _add_facts(tools: Tools, banks: MemoryBank, facts: Facts):
    def add(bank, facts):
        events = jnp.where(facts.length > 0, Event.ADD, Event.NONE)
        operations = Operations(events, jnp.zeros_like(events), facts.tokens, facts.length)
        keys = jax.vmap(embed, (None, 0, 0))(tools.embedder, facts.tokens, facts.length)
        return apply_operations(bank, operations, keys, facts.time, facts.source)

    return jax.vmap(add)(banks, facts)


def add_everything(params, tools, banks, facts, active):
    """Stores every fact as it comes, in place of a manager (as Mem0 2.0 does)."""
    del params, active  # a stream that has ended brings no facts
    return _add_facts(tools, banks, facts), None


def _count(counts, turn, active):
    report, stopped = fetch((turn.report, turn.samples.stopped))
    for field in dataclasses.fields(report):
        value = float(np.sum(getattr(report, field.name) * active))
        counts[field.name] = counts.get(field.name, 0.0) + value
    counts["responses_cut"] += float(np.sum(~stopped & active))


def _where(active, yes, no):
    def choose(a, b):
        return jnp.where(active.reshape(-1, *([1] * (a.ndim - 1))), a, b)

    return jax.tree.map(choose, yes, no)

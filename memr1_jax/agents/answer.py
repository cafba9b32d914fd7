"""The Answer Agent: picks from retrieved memories, then answers briefly.

Axis letters: B prompts, G samples a prompt, P prompt length, R response length, Q retrieved
memories a speaker, W tokens of a memory, A words of an answer.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from memr1_jax.agents.templates import Items, Template, fill, list_items, single
from memr1_jax.agents.tools import Tools
from memr1_jax.data.batches import Query, Scene
from memr1_jax.memory.bank import MemoryBank
from memr1_jax.memory.embedder import embed
from memr1_jax.memory.retrieval import retrieve
from memr1_jax.text.answer_span import answer_span
from memr1_jax.text.byte_table import tokens_to_bytes
from memr1_jax.text.json_escapes import Escapes
from memr1_jax.text.match import contains, exact_match, token_f1
from memr1_jax.text.normalize import Words, words_of_bytes
from memr1_jax.text.segments import Packed

BYTES_PER_TOKEN = 8  # room for the bytes of a response, on average; the rest is not read


@dataclasses.dataclass(frozen=True)
class AnswerAgent:
    """Sizes and prompt of the Answer Agent; static under `jit`."""

    template: Template
    prompt_length: int  # P, the instruction not counted
    response_length: int  # R
    stop_tokens: tuple[int, ...]
    memories: int = 30  # retrieved for each speaker
    answer_words: int = 48  # words read of a prediction
    draft_tokens: int = 0  # drafted in a pass of decoding
    label: tuple[int, ...] = ()  # tokens of the label that an answer comes after


@struct.dataclass
class Verdict:
    """Compares a response with the gold answer; float32 scalars in [0, 1]."""

    exact_match: jax.Array
    token_f1: jax.Array
    contains: jax.Array
    labelled: jax.Array  # 1 where the answer was marked as asked for


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Memories of one bank for a query, best first: rendered later, once both banks are known."""

    tokens: jax.Array  # [Q, W]
    length: jax.Array  # [Q]
    time: jax.Array  # [Q] index of the time stamp
    score: jax.Array  # [Q]
    valid: jax.Array  # [Q]


jax.tree_util.register_dataclass(Retrieval)


@functools.partial(jax.jit, static_argnums=0)
def retrieve_memories(agent: AnswerAgent, tools: Tools, bank: MemoryBank, query: Query):
    """Retrieves the memories of one bank nearest to the question, as a `Retrieval`."""
    found = retrieve(bank, embed(tools.embedder, query.tokens, query.length), agent.memories)
    slot = jnp.minimum(found.slot, bank.alive.shape[-1] - 1)
    return Retrieval(
        bank.tokens[slot], bank.length[slot], bank.updated[slot], found.score, found.valid
    )


@functools.partial(jax.jit, static_argnums=0)
def answer_prompt(
    agent: AnswerAgent,
    scene: Scene,
    retrieved: tuple[Retrieval, Retrieval],
    query: Query,
    escapes: Escapes | None = None,
) -> Packed:
    """Writes the prompt `[P]` for one question, given both speakers' memories.

    When space is short the memories with the lowest scores go first, whoever they belong to.
    `escapes` are for prompt files that show memories as JSON.
    """
    score = jnp.concatenate([part.score for part in retrieved])
    rank = jnp.argsort(jnp.argsort(-score, stable=True), stable=True) + 1
    slots: dict[str, Items] = {"question": single(query.tokens, query.length)}
    for index, part in enumerate(retrieved):
        name = f"memories_{index + 1}"
        slots[f"speaker_{index + 1}"] = single(scene.names[index], scene.name_length[index])
        slots[name] = list_items(
            agent.template,
            name,
            (part.tokens, part.length),
            part.valid,
            rank[index * agent.memories : (index + 1) * agent.memories],
            time=(scene.times[part.time], scene.time_length[part.time]),
            escapes=escapes,
        )
    return fill(agent.template, slots, agent.prompt_length)


def read_words(
    agent: AnswerAgent, tools: Tools, tokens: jax.Array, length: jax.Array
) -> tuple[Words, jax.Array]:
    """Reads the answer out of one response `[R]`: its words, and whether it was marked."""
    capacity = tokens.shape[-1] * BYTES_PER_TOKEN
    text = tokens_to_bytes(tools.byte_table, tokens, length, capacity)
    start, end, rule = answer_span(text.bytes, text.length)
    words = words_of_bytes(tools.unicode, text.bytes, start, end, agent.answer_words)
    return words, jnp.float32(rule < 4)


def compare(words: Words, labelled: jax.Array, gold: Words) -> Verdict:
    """Compares what `read_words` read with the gold words."""
    return Verdict(
        exact_match=exact_match(words, gold),
        token_f1=token_f1(words, gold),
        contains=contains(words, gold),
        labelled=labelled,
    )


def judge_answer(
    agent: AnswerAgent, tools: Tools, tokens: jax.Array, length: jax.Array, gold: Words
) -> Verdict:
    """Reads the answer out of one response `[R]` and compares it with the gold words."""
    return compare(*read_words(agent, tools, tokens, length), gold)

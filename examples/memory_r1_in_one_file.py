"""Memory-R1 in one file: GRPO of both agents from outcomes, the whole of training in one jit.

    python examples/memory_r1_in_one_file.py

The Answer Agent learns first, on banks as they should be; then the Memory Manager learns through
it: memories are worth what the Answer Agent can make of them. The bank, retrieval, the reading
of JSON and the sampler are the library's; the algorithm stands here. It takes a few minutes on
two CPU cores.

Axis letters: B prompts, G samples a prompt, R response length, n questions of a turn.
"""

import argparse
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import memr1_jax as m1
from memr1_jax.agents.answer import answer_prompt, read_words, retrieve_memories
from memr1_jax.agents.manager import manager_prompt
from memr1_jax.data.encode import encode_answer_data, encode_final_banks, encode_manager_data
from memr1_jax.data.synthetic import generate_conversations
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.memory.bank import Operations, apply_operations
from memr1_jax.memory.embedder import embed
from memr1_jax.models.decoder import Block
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.logprobs import response_statistics
from memr1_jax.models.sampler import Sampling, generate
from memr1_jax.text.json_scanner import scan_operations
from memr1_jax.text.match import exact_match

# What the nano model was taught on.
DIALOGUES = {"num_sessions": 3, "facts_per_session": 4, "changes": 0.25, "relative_dates": 0.0}


class World(NamedTuple):
    """Both agents and what they work on; data lie on the device as a whole."""

    manager: Any  # sizes and prompt of each agent
    answerer: Any
    decoder: Any  # one network architecture for both
    tools: Any  # tables: bytes of tokens, automaton of JSON, word statistics
    turns: Any  # what the manager learns from, [rows, ...]
    questions: Any  # what the Answer Agent learns from, [rows, ...]


class Rollout(NamedTuple):
    """Prompts `[B, P]`, responses `[B, G, R]` and rewards `[B, G]`."""

    prompt: Block
    response: Block
    rewards: jax.Array


def make_world(dialogues: int, seed: int) -> tuple[World, dict]:
    """Loads the nano model, generates dialogues and encodes them; returns the weights as well."""
    agents = m1.load(resolve_model("nano"), remat="none")  # it is small: nothing to recompute
    pair, model = agents.pair, agents.models.manager
    told = generate_conversations(seed, dialogues, **DIALOGUES)
    tuples = [item for dialogue in told for item in manager_tuples(dialogue, window=None)]
    banks = encode_final_banks(pair.encoder, told)
    turns = encode_manager_data(pair.encoder, told, tuples)
    questions = encode_answer_data(pair.encoder, told, banks)
    data = jax.tree.map(jnp.asarray, (turns, questions))
    return World(pair.manager, pair.answerer, model.decoder, pair.tools, *data), model.params


# 1. What the agents do


def respond(world: World, agent, params, prompt: Block, key, *, group=1, temperature=1.0):
    """Samples `group` responses to every prompt; the prompt is computed once for all of them."""
    return generate(
        world.decoder,
        params,
        (agent.template.instruction_block, prompt),
        key,
        Sampling.create(temperature),
        group=group,
        max_tokens=agent.response_length,
        stop_tokens=agent.stop_tokens,
    )


def question_prompt(world: World, banks, scene, query):
    """Retrieves from both speakers' banks and writes the prompt of one question."""
    found = tuple(retrieve_memories(world.answerer, world.tools, bank, query) for bank in banks)
    return answer_prompt(world.answerer, scene, found, query)


def grade(world: World, tokens, length, gold):
    """Marks one response `[R]`: 1 where the answer's words are those of the gold answer."""
    words, _ = read_words(world.answerer, world.tools, tokens, length)
    return exact_match(words, gold)


def edit(world: World, bank, prompt, facts, tokens, length):
    """Reads the operations in one response `[R]` of the manager and applies them to the bank."""
    manager, tools = world.manager, world.tools
    capacity, width = bank.tokens.shape
    read = scan_operations(
        tools.scanner,
        tools.byte_table,
        tokens,
        length,
        max_operations=manager.operations,
        max_text=width,
        capacity=tokens.shape[-1] * 8,
    )
    shown = (read.id >= 0) & (read.id < prompt.shown)  # an id that was not shown names nothing
    slot = jnp.where(shown, prompt.slots[jnp.clip(read.id, 0, manager.shown - 1)], capacity)
    text = read.tokens.at[:, 0].set(tools.after_space(read.tokens[:, 0]))
    keys = jax.vmap(embed, (None, 0, 0))(tools.embedder, text, jnp.minimum(read.length, width))
    operations = Operations(read.event, slot, text, read.length)
    return apply_operations(bank, operations, keys, facts.time, facts.source)


# 2. Rollouts: from rows of the data to rewards


def answer_rollout(world: World, params, rows, key, group: int) -> Rollout:
    """Samples answers to questions; a right one earns 1."""
    batch = world.questions.select(rows, jnp.ones(rows.shape, bool))
    prompts = jax.vmap(functools.partial(question_prompt, world))(
        batch.banks, batch.scene, batch.query
    )
    prompt = Block(prompts.tokens, prompts.length)
    said = respond(world, world.answerer, params, prompt, key, group=group)
    grades = jax.vmap(jax.vmap(functools.partial(grade, world), (0, 0, None)))
    return Rollout(prompt, said.block, grades(said.tokens, said.length, batch.query.gold))


def manager_rollout(world: World, answer_params, params, rows, key, group: int) -> Rollout:
    """Samples edits of the bank; each earns the share of questions answered rightly after it."""
    batch = world.turns.select(rows, jnp.ones(rows.shape, bool))
    prompts = jax.vmap(functools.partial(manager_prompt, world.manager, world.tools))(
        batch.own, batch.facts
    )
    prompt = Block(prompts.tokens, prompts.length)
    said = respond(world, world.manager, params, prompt, key, group=group)
    over_group = jax.vmap(functools.partial(edit, world), (None, None, None, 0, 0))
    edited = jax.vmap(over_group)(batch.own, prompts, batch.facts, said.tokens, said.length)
    correct = consult(world, answer_params, batch, edited)  # [B, G, n]
    asked = batch.asked[:, None]
    rewards = (correct * asked).sum(-1) / jnp.maximum(asked.sum(-1), 1)
    return Rollout(prompt, said.block, rewards)


def consult(world: World, params, batch, edited):
    """Has the frozen Answer Agent answer greedily from every edited bank; grades `[B, G, n]`."""

    def prompt_of(own, other, speaker, scene, query):
        own_first = speaker == 0
        banks = [
            jax.tree.map(functools.partial(jnp.where, own_first), *pair)
            for pair in ((own, other), (other, own))
        ]
        return question_prompt(world, banks, scene, query)

    over_questions = jax.vmap(prompt_of, (None, None, None, None, 0))
    over_group = jax.vmap(over_questions, (0, None, None, None, None))
    prompts = jax.vmap(over_group)(edited, batch.other, batch.speaker, batch.scene, batch.queries)
    rows = prompts.length.shape
    prompt = Block(prompts.tokens.reshape(-1, prompts.tokens.shape[-1]), prompts.length.reshape(-1))
    said = respond(world, world.answerer, params, prompt, jax.random.key(0), temperature=0.0)
    gold = jax.tree.map(
        lambda x: jnp.broadcast_to(x[:, None], (*rows, *x.shape[2:])).reshape(-1, *x.shape[2:]),
        batch.queries.gold,
    )
    grades = jax.vmap(functools.partial(grade, world))
    return grades(said.tokens[:, 0], said.length[:, 0], gold).reshape(rows)


# 3. GRPO


def grpo_loss(params, world: World, agent, rollout: Rollout):
    """Computes the policy gradient's loss with group-relative advantages (arXiv 2402.03300).

    One update follows a rollout, so the ratio of new and old policy is 1 and no clip binds.
    """
    blocks = (agent.template.instruction_block, rollout.prompt, rollout.response)
    logprobs = response_statistics(world.decoder, params, blocks, jnp.float32(1)).logprobs
    mean = rollout.rewards.mean(-1, keepdims=True)
    deviation = rollout.rewards.std(-1, keepdims=True)
    advantages = (rollout.rewards - mean) / (deviation + 1e-6)
    ratio = jnp.exp(logprobs - jax.lax.stop_gradient(logprobs))
    mask = jnp.arange(logprobs.shape[-1]) < rollout.response.length[..., None]
    return -(ratio * advantages[..., None] * mask).sum() / mask.sum()


def learn(world: World, agent, rollout_of: Callable, params, count: int, key, settings):
    """Trains one agent for some steps, as a scan; returns weights and the reward of every step."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.learning_rate))

    def step(carry, key):
        params, moments = carry
        choose, sample = jax.random.split(key)
        rows = jax.random.randint(choose, (settings.batch,), 0, count)
        rollout = rollout_of(params, rows, sample, settings.group)
        gradient = jax.grad(grpo_loss)(params, world, agent, rollout)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments), rollout.rewards.mean()

    steps = settings.answer_steps if agent is world.answerer else settings.manager_steps
    carry = params, optimizer.init(params)
    (params, _), rewards = jax.lax.scan(step, carry, jax.random.split(key, steps))
    return params, rewards


def make_train(world: World, settings) -> Callable:
    """Compiles `train(arrays, params, key) -> weights and rewards of both agents`.

    `arrays` are the world's, which as constants would make the program large.
    """

    def train(arrays, params, key):
        here = world._replace(**arrays)
        first, second = jax.random.split(key)
        rollout_of = functools.partial(answer_rollout, here)
        answerer, answer_rewards = learn(
            here, here.answerer, rollout_of, params, world.questions.rows, first, settings
        )
        rollout_of = functools.partial(manager_rollout, here, answerer)
        manager, manager_rewards = learn(
            here, here.manager, rollout_of, params, world.turns.rows, second, settings
        )
        return (answerer, manager), (answer_rewards, manager_rewards)

    return jax.jit(train)


def main(arguments: list[str] | None = None) -> tuple[jax.Array, jax.Array]:
    """Trains both agents and prints their rewards; returns these."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answer_steps", type=int, default=40)
    parser.add_argument("--manager_steps", type=int, default=24)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--dialogues", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args(arguments)
    begun = time.monotonic()
    world, params = make_world(settings.dialogues, settings.seed)
    arrays = {name: getattr(world, name) for name in ("tools", "turns", "questions")}
    _, rewards = make_train(world, settings)(arrays, params, jax.random.key(settings.seed))
    for agent, curve in zip(("Answer Agent", "Memory Manager"), rewards, strict=True):
        few = max(1, len(curve) // 6)
        parts = [float(curve[i : i + few].mean()) for i in range(0, len(curve), few)]
        print(f"{agent}: reward " + " ".join(f"{part:.2f}" for part in parts))
    print(f"{time.monotonic() - begun:.0f} seconds")
    return rewards


if __name__ == "__main__":
    main()

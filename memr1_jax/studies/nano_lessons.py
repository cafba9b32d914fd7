"""Lessons of the nano model: demonstrations of both agents as arrays, and how they are taught.

Axis letters: N demonstrations, P prompt length, R response length, B demonstrations in a batch.
"""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.demonstrations import (
    Demonstrations,
    answer_demonstrations,
    by_batches,
    manager_demonstrations,
)
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.data.batches import row_batches
from memr1_jax.data.encode import encode_final_banks
from memr1_jax.data.types import Conversation
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.sampler import generate as sample
from memr1_jax.models.sampler import greedy_sampling
from memr1_jax.rl.imitation import ImitationOptions, imitation_update
from memr1_jax.rl.policy import Experience
from memr1_jax.rl.update import TrainState, create_state
from memr1_jax.run.progress import progress_bar
from memr1_jax.training.step import demonstrate

Acting: TypeAlias = AnswerAgent | MemoryManager

_TURNS = ("answer", "manager", "answer")  # whose demonstrations the steps take, in rotation


class Lessons(NamedTuple):
    """Demonstrations as prompts `[N, P]` and responses `[N, R]`, with lengths `[N]` (NumPy)."""

    prompt: np.ndarray
    prompt_length: np.ndarray
    response: np.ndarray
    response_length: np.ndarray


def demonstrated(
    pair: AgentPair,
    models: Models,
    dialogues: list[Conversation],
    *,
    verbose: float = 0.0,
    corrupt: float = 0.0,
    seed: int = 0,
) -> dict[str, Lessons]:
    """Makes the demonstrations of both agents; banks hold what they should.

    The Answer Agent never sees a bank with facts that no longer hold, so that it depends on a
    manager that removes them.
    """
    tokenizer = models.manager.tokenizer
    answers, _ = answer_demonstrations(
        pair.answerer,
        pair.tools,
        pair.encoder,
        tokenizer,
        dialogues,
        encode_final_banks(pair.encoder, dialogues),
        verbose=verbose,
        seed=seed,
    )
    operations, _ = manager_demonstrations(
        pair.manager,
        pair.tools,
        pair.encoder,
        tokenizer,
        dialogues,
        corrupt=corrupt,
        seed=seed,
    )
    return {
        "answer": _lessons(pair.answerer, pair.tools, answers),
        "manager": _lessons(pair.manager, pair.tools, operations),
    }


def equal_share(acting: Acting, decoder: Decoder, params: dict, lessons: Lessons) -> float:
    """Returns the share of demonstrations that the greedy output equals, token by token."""
    write = jax.jit(functools.partial(_greedy, acting, decoder))
    right = 0
    for rows, valid in row_batches(len(lessons.prompt), 128):
        tokens, length = jax.device_get(
            write(params, lessons.prompt[rows], lessons.prompt_length[rows])
        )
        width = lessons.response.shape[-1]  # may be cropped; a longer output has another length
        mask = np.arange(width) < lessons.response_length[rows, None]
        same = (length == lessons.response_length[rows]) & np.all(
            (tokens[:, :width] == lessons.response[rows]) | ~mask, axis=-1
        )
        right += int(same[valid].sum())
    return right / len(lessons.prompt)


def teach(
    agents: Mapping[str, Acting],
    decoder: Decoder,
    params: dict,
    lessons: Mapping[str, Lessons],
    name: str,
    *,
    rate: optax.ScalarOrSchedule,
    steps: int,
    batch: int,
    seed: int,
) -> dict:
    """Trains float32 `params` on the lessons of both agents, which take turns."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=0.05)
    )
    step_of = {agent: _imitate(acting, decoder, optimizer) for agent, acting in agents.items()}
    state = create_state(params, optimizer, seed)
    order = np.random.default_rng([seed, steps])
    with progress_bar(steps, f"{name} demonstrations") as progress:
        for step in range(steps):
            agent = _TURNS[step % len(_TURNS)]
            rows = order.integers(0, len(lessons[agent].prompt), batch)
            state, loss = step_of[agent](state, *(part[rows] for part in lessons[agent]))
            if step % 25 == 24 or step + 1 == steps:
                progress.update(step + 1, loss=float(loss))
    return state.params


def _imitate(agent: Acting, decoder, optimizer) -> Callable:
    """Compiles `step(state, prompt, length, response, length) -> state, loss`."""

    def step(state: TrainState, prompt, prompt_length, response, response_length):
        batch = len(prompt)
        experience = Experience(
            prompt=Block(jnp.asarray(prompt, jnp.int32), prompt_length),
            response=Block(jnp.asarray(response, jnp.int32)[:, None], response_length[:, None]),
            logprobs=jnp.zeros((batch, 1, response.shape[-1])),
            rewards=jnp.ones((batch, 1)),
            stopped=jnp.ones((batch, 1), bool),
            valid=jnp.ones(batch, bool),
            shown=jnp.zeros(batch, jnp.int32),
        )
        instruction = agent.template.instruction_block
        state, metrics = imitation_update(
            ImitationOptions(), decoder, optimizer, state, None, instruction, experience
        )
        return state, metrics["loss"].sum / metrics["loss"].weight

    return jax.jit(step, donate_argnums=0)


def _greedy(agent, decoder, params, prompt, length):
    samples = sample(
        decoder,
        params,
        (agent.template.instruction_block, Block(jnp.asarray(prompt, jnp.int32), length)),
        *greedy_sampling(),
        group=1,
        max_tokens=agent.response_length,
        stop_tokens=agent.stop_tokens,
        active=jnp.ones((len(length), 1), bool),
    )
    return samples.tokens[:, 0], samples.length[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def _prompts(agent, tools, demonstrated):
    rollout = demonstrate(agent, tools, *demonstrated)
    return rollout.prompt.tokens, rollout.prompt.length


def _lessons(agent, tools, demonstrations: Demonstrations) -> Lessons:
    prompt, length = by_batches(functools.partial(_prompts, agent, tools), demonstrations)
    response, response_length = jax.device_get((demonstrations.tokens, demonstrations.length))
    return Lessons(prompt.astype(np.int16), length, response.astype(np.int16), response_length)

"""The identity of a run: what must be the same when it is resumed, and what need not."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.prompt_files import facts_prompt, read_prompt
from memr1_jax.data.dialogues import find_dialogues
from memr1_jax.errors import UserError
from memr1_jax.models.hf.folders import folder_digest
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.loading import compute_dtype
from memr1_jax.run.checksums import file_digest
from memr1_jax.run.run_folder import Input, RunFolder
from memr1_jax.training.build import warmup_steps
from memr1_jax.training.config import ExperimentConfig
from memr1_jax.training.loop import Stage, fingerprint
from memr1_jax.training.training_data import training_banks

# Where a run is and how it resumes.
_PLACE = {"output", "resume", "overwrite", "compilation_cache"}
# How the same numbers are computed: what is held at once, and where.
_MEANS = {
    *("micro_batches", "logit_chunk", "remat", "attention", "consult_batch", "eval_batch"),
    "draft_tokens",
    *("mesh", "distributed", "num_processes", "process_id"),
}
# Outputs, and how far training goes; it may continue from where it ended.
_EXTENT = {
    *("samples_every", "track", "keep", "export_dtype"),
    *("manager_steps", "answer_steps", "extractor_steps", "max_skipped", "patience"),
}
# Compared by what they name; see `inputs`.
_NAMES = {"model", "answer_model", "judge_model", "extractor_model", "data_path", "dtype"}
MAY_TURN_ON = frozenset({"evaluate", "export"})


def open_run(
    options: AgentConfig,
    job: str,
    *,
    resume: bool,
    check: Callable[[Path], None] = lambda folder: None,
) -> RunFolder:
    """Holds the folder of an experiment or an evaluation, and records what it is begun with.

    Generated dialogues are then in it. `check` is given the folder when they are there; what it
    refuses is refused before any model is looked for.

    Raises:
        UserError: see `RunFolder`, and where what the options name is not there.
    """
    if options.overwrite and getattr(options, "resume", False):
        raise UserError(
            "--resume continues the run in the folder and --overwrite moves it aside. Leave one of"
            " them out."
        )
    opened = RunFolder(
        options.output,
        job,
        options,
        resume=resume,
        overwrite=options.overwrite,
        free=may_change(options),
        may_turn_on=MAY_TURN_ON,
    )
    try:
        paths = find_dialogues(options, options.seed, opened.path, again=not opened.begun)
        check(opened.path)
        opened.record(inputs(options, paths))
    except BaseException:
        opened.close()
        raise
    return opened


def may_change(options: AgentConfig) -> frozenset[str]:
    """Returns the options that a resumed run may change; all others are part of its identity.

    Where checkpoints are compared with each other, what is compared depends on their interval.
    """
    free = _PLACE | _MEANS | _EXTENT | _NAMES
    if getattr(options, "select", "last") == "last":
        free |= {"checkpoint_every"}
    return frozenset(free)


def inputs(options: AgentConfig, dialogues: Mapping[str, Path]) -> dict[str, Input]:
    """Returns digests of models, data and prompts that the options name.

    Args:
        options: of an experiment or an evaluation.
        dialogues: the files of `find_dialogues`.

    Raises:
        UserError: one of them is not there.
    """

    @functools.cache
    def model(name: str) -> Input:
        return Input(name, folder_digest(resolve_model(name)))

    judged = isinstance(options, ExperimentConfig) and options.reward.judged
    named = {"model": options.model, "answer_model": options.answer_model or options.model}
    prompts = {"manager": options.manager_prompt, "answer": options.answer_prompt}
    if judged:
        named["judge_model"] = options.judge_model or options.model
        prompts["judge"] = options.judge_prompt
    extraction = options.extraction
    if extraction.facts == "extracted" or getattr(options, "agent", "") == "extractor":
        prompts["facts"] = extraction.prompt or facts_prompt(options.manager_prompt)
    if extraction.model:
        named["extractor_model"] = extraction.model
    own = {}
    if isinstance(options, ExperimentConfig) and options.reward.own:
        own = {"--reward": Input(options.reward.outcome, options.reward.digest())}
    found = {f"--{flag}": model(name) for flag, name in named.items()} | own
    dtype = str(jnp.dtype(compute_dtype(options.dtype)))
    found["--dtype"] = Input(dtype, dtype)
    what = "--data_path" if options.data_path else "data"
    for source, path in dialogues.items():
        name = what if len(dialogues) == 1 else f"{what} of {source}"
        found[name] = Input(str(path), file_digest(path))
    for kind, name in prompts.items():
        prompt = read_prompt(name, kind)
        found[f"prompt of the {kind}"] = Input(prompt.name, prompt.digest)
    return found


def stage_of(options: ExperimentConfig, agent: str, data: Any, oversample: int) -> Stage:
    """Says how an agent learns from its data, and what a resumed run must share."""
    return Stage(
        agent=agent,
        steps=getattr(options, f"{agent}_steps"),
        batch=options.batch,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        samples_every=options.samples_every,
        oversample=oversample,
        max_skipped=options.max_skipped,
        patience=options.patience,
        identity={
            "data": fingerprint(data),
            **_learned_before(options, agent),
            # In steps, as more --manager_steps of a resumed run must not change them.
            "warmup_steps": warmup_steps(options, agent),
            "critic_warmup_steps": warmup_steps(options, agent, critic=True),
        },
    )


def _learned_before(options: ExperimentConfig, agent: str) -> dict[str, int]:
    """Returns the steps of the agent that this one learns from, if it learned first."""
    other = "answer" if agent == "manager" else "manager"
    if options.agent != "both" or options.first == agent:
        return {}
    if other == "manager" and training_banks(options) != "manager":
        return {}  # the banks do not depend on it
    return {f"{other}_steps": getattr(options, f"{other}_steps")}

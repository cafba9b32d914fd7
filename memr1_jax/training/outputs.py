"""Writes a run's results for people: log, samples of rollouts, exported agents, curve, page."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from memr1_jax.agents.agent_folder import write_settings
from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.chat_examples import write_chat_examples
from memr1_jax.agents.rollout import Rollout
from memr1_jax.data.mixtures import parse_mixture
from memr1_jax.evals.evaluator import Evaluation
from memr1_jax.evals.report.report_page import write_report_page
from memr1_jax.evals.report.summary import COLUMNS, summary
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.hf.peft import export_adapters
from memr1_jax.models.lora import lora_of, merge
from memr1_jax.options import flag_values
from memr1_jax.parallel.distributed import fetch, is_main
from memr1_jax.run.metrics_log import MetricsLog, NoLog, read_metrics
from memr1_jax.run.plots import reward_curve
from memr1_jax.run.progress import table
from memr1_jax.run.trackers import parse_trackers
from memr1_jax.training.config import ExperimentConfig


def open_log(options: ExperimentConfig, folder: Path) -> MetricsLog | NoLog:
    """Opens the log of a run, with the trackers that it is copied to; the first process writes."""
    if not is_main():
        return NoLog()
    log = MetricsLog(folder, parse_trackers(options.track))
    log.configure(flag_values(options))
    return log


def describe(tokenizer: Any, rollout: Rollout) -> list[dict]:
    """Returns the first prompt of a rollout and all its responses, as text."""
    prompt, samples, rewards = jax.device_get((rollout.prompt, rollout.samples, rollout.rewards))
    return [
        {
            "prompt": tokenizer.decode(prompt.tokens[0, : prompt.length[0]]),
            "responses": [
                {
                    "text": tokenizer.decode(samples.tokens[0, g, : samples.length[0, g]]),
                    "reward": float(rewards[0, g]),
                    "stopped": bool(samples.stopped[0, g]),
                }
                for g in range(rewards.shape[1])
            ],
        }
    ]


def export_agent(
    options: ExperimentConfig,
    folder: Path,
    agent: str,
    params: dict,
    models: Models,
    pair: AgentPair,
) -> None:
    """Writes a trained agent as a Hugging Face folder with the options that it is used with.

    Adapters are merged, and written in PEFT's format next to it. All processes fetch what is
    spread over them; the first writes.
    """
    model, lora = models.of(agent), lora_of(options)
    params = fetch(params)
    whole = params
    if lora is not None:
        whole = merge(fetch(model.params), params, lora.scale)
    if not is_main():
        return
    if lora is not None:
        export_adapters(
            folder.with_name(f"{agent}_adapter"),
            params,
            lora,
            model.config,
            base_model_name=(getattr(options, f"{agent}_model", "") or options.model),
        )
    export_params(
        folder,
        whole,
        model.config,
        tokenizer_folder=model.folder,
        dtype=options.export_dtype,
    )
    extraction = options.extraction
    facts = extraction.facts
    if agent == "extractor":
        facts, extraction = "extracted", dataclasses.replace(extraction, model="")  # its own
    elif facts == "noted" and parse_mixture(options.data).keys() <= {"own", "msc"}:
        facts = "turns"
    embedder = jax.device_get(pair.tools.embedder)
    write_settings(folder, options, facts, embedder, extraction)
    write_chat_examples(folder, options, model.tokenizer, model.stop_tokens)


def report(
    options: ExperimentConfig, folder: Path, before: Evaluation | None, log: MetricsLog | NoLog
) -> None:
    """Prints what changed, and draws the curve and the page of a run."""
    records = read_metrics(folder / "metrics.jsonl")
    if not records and before is None:
        return  # no step and no evaluation: a run that only exports
    if any("reward" in record for record in records):
        title = f"Reward ({options.reward.outcome})"
        reward_curve(folder / "reward.png", records, title)
    table("Before and after", COLUMNS, summary(folder))
    log.attach(write_report_page(folder))
    print(f"Everything is in {folder}; report.html there shows it.")

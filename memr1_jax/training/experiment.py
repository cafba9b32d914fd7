"""A whole experiment: evaluate, train one agent or both, evaluate again, export."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memr1_jax.agents.ingest import Ingestion
from memr1_jax.agents.rollout import Rollout
from memr1_jax.evals.pipeline import Evaluation
from memr1_jax.evals.report.replay import write_replay
from memr1_jax.evals.report.report import read_evaluation, write_evaluation
from memr1_jax.evals.report.report_page import write_report_page
from memr1_jax.evals.report.watch import Seen, watch
from memr1_jax.models.hf.hf_weights import export_params
from memr1_jax.models.hf.peft import export_adapters
from memr1_jax.models.lora import merge
from memr1_jax.options import flag_values, flags_text
from memr1_jax.parallel.distributed import any_process, barrier, fetch, is_main, local_rows
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.parallel.rules import state_shardings
from memr1_jax.parallel.step import check_batch, place, shard_train_step
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.files import prepare_run_folder, write_text_atomic
from memr1_jax.run.metrics_log import (
    MetricsLog,
    NoLog,
    first_and_last,
    read_metrics,
    records_of,
)
from memr1_jax.run.plots import reward_curve
from memr1_jax.run.preemption import catch_termination
from memr1_jax.run.progress import table
from memr1_jax.training.algorithms import Learner, build_learner
from memr1_jax.training.assembly import (
    answer_data,
    gold_banks,
    lora_of,
    make_frozen,
    make_policy,
    manager_data,
    network,
    trainable,
    untrained,
)
from memr1_jax.training.bank_file import read_banks, write_banks
from memr1_jax.training.config import (
    DataConfig,
    EvalConfig,
    ExperimentConfig,
    ParallelConfig,
    RunConfig,
    check_options,
)
from memr1_jax.training.device_memory import print_memory
from memr1_jax.training.loading import Model, load_dialogues, load_models, read_params
from memr1_jax.training.loop import Stage, fingerprint, resume, train
from memr1_jax.training.step import Policy
from memr1_jax.training.validation import (
    make_validation,
    validation_dialogues,
    validation_options,
)
from memr1_jax.training.workbench import Pipeline, build_workbench


class Experiment:
    """The state of one run: its folder, models, data and agents; `run` is the whole of it.

    With several processes all of them run everything; the first alone writes and prints.
    """

    def __init__(self, options: ExperimentConfig):
        """Checks the folder first, then loads models and data; UserError for bad input."""
        check_options(options)
        self.options = options
        self.mesh = None
        if options.mesh:
            self.mesh = make_mesh(options.mesh)
            policy = options.policy
            check_batch(self.mesh, options.batch, policy.micro_batches, policy.mini_batches)
        self.folder = prepare_run_folder(options.output, options.resume or not is_main())
        self.learner = build_learner(options)
        self.models = load_models(options, self.mesh)
        self.train_dialogues, self.eval_dialogues = load_dialogues(
            options, options.seed, self.folder
        )
        self.bench = build_workbench(options, self.models, self.train_dialogues)
        self.pipeline = Pipeline(options, self.bench, self.models)
        # What is trained of each agent, in the form of `Frozen`.
        self.params = {
            agent: untrained(options, self.models.of(agent)) for agent in ("manager", "answer")
        }

    def run(self) -> dict[str, Evaluation | None]:
        """Evaluates, trains, evaluates, exports; returns the evaluations "before" and "after"."""
        options = self.options
        agents = (options.agent,)
        if options.agent == "both":
            agents = ("manager", "answer") if options.first == "manager" else ("answer", "manager")
        with contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh):
            before = self._evaluation("before")
            with MetricsLog(self.folder) if is_main() else NoLog() as log:
                for agent in agents:
                    self._train(agent, log)
            after = self._evaluation("after")
        if is_main():
            self._report(before, after, agents)
        return {"before": before, "after": after}

    def _train(self, agent: str, log: MetricsLog | NoLog) -> None:
        """Trains one agent, exports it and keeps what was trained."""
        options, model = self.options, self.models.of(agent)
        steps = options.manager_steps if agent == "manager" else options.answer_steps
        data = self._data(agent)
        stage = Stage(
            agent=agent,
            steps=steps,
            batch=options.batch,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
            samples_every=options.samples_every,
            identity={"data": fingerprint(data), "seed": options.seed, **_identity(options)},
        )
        policy = make_policy(options, self.bench, self.models, agent)
        frozen = make_frozen(options, self.models, agent, self.params["answer"])
        state = _initial_state(options, self.learner, model, self.mesh)
        if is_main():
            print_memory(options, self.learner, model, state, frozen)
        train_step, put = self.learner.make_step(policy), jnp.asarray
        arguments = (frozen, self.bench.tools, jax.tree.map(jnp.asarray, data))
        if self.mesh is not None:
            train_step = shard_train_step(train_step, self.mesh, state, *arguments)
            state, *arguments = place(self.mesh, state, *arguments)
            put = lambda rows: local_rows(self.mesh, rows)  # noqa: E731
        validate = None
        if options.select == "validation":
            validate = self._validation(agent, policy, state, arguments, put)
        folder = self.folder / "checkpoints" / agent
        with (
            Checkpoints(folder, options.keep) as checkpoints,
            catch_termination(any_process) as stop,
        ):
            if options.resume:
                state = resume(checkpoints, stage, state)
            if is_main():
                self._write_flags()  # only now: a refused resume changes nothing
            # Without a checkpoint the start is measured anew as well.
            begun = checkpoints.latest_step() is not None
            log.rewind(agent, int(state.step) if begun else -1)
            state = train(
                stage,
                train_step,
                state,
                tuple(arguments),
                data.rows,
                folder=self.folder,
                checkpoints=checkpoints,
                log=log,
                describe=self._describe,
                put=put,
                stop=lambda: stop.requested,
                validate=validate,
            )
            if options.select != "last":
                state, _ = checkpoints.restore(state, checkpoints.best_step())
        params = state.params
        del state  # the moments, of which nothing below has need
        if options.export:
            self._export(agent, params)
        dtype = jnp.float32 if options.lora_rank else model.decoder.dtype
        self.params[agent] = jax.tree.map(lambda x: x.astype(dtype), params)

    def _data(self, agent: str) -> Any:
        """What an agent learns from; banks, once built, are kept for a resumed run."""
        if agent == "manager":
            return manager_data(self.options, self.bench, self.models, self.train_dialogues)
        options, path = self.options, self.folder / "training_banks.safetensors"
        origin = f"{self._training_banks()} {options.manager_steps}"
        found = read_banks(path, origin) if options.resume else None
        barrier("training banks")  # all processes look before one writes
        if found is None:
            found = self._banks(self._training_banks(), self.train_dialogues, "for training")
            if is_main():
                write_banks(path, found, origin)
        return answer_data(options, self.bench, self.models, self.train_dialogues, found.banks)

    def _validation(
        self, agent: str, policy: Policy, state: Any, arguments: Any, put: Callable
    ) -> Callable[[dict], float]:
        """What measures the parameters of an agent that learns from `arguments`."""
        options, given = self.options, validation_options(self.options)
        dialogues = validation_dialogues(options, self.folder, self.eval_dialogues)
        if agent == "manager":
            data = manager_data(given, self.bench, self.models, dialogues)
        else:
            banks = self._banks(self._training_banks(), dialogues, "for validation").banks
            data = answer_data(given, self.bench, self.models, dialogues, banks)
        frozen, tools, _ = arguments
        data = jax.tree.map(jnp.asarray, data)
        if options.algorithm == "sft":  # which learns without rewards
            frozen = make_frozen(given, self.models, agent, self.params["answer"])
        if self.mesh is not None:
            _, frozen, tools, data = place(self.mesh, state, frozen, tools, data)
        return make_validation(
            policy,
            frozen,
            tools,
            data,
            rows=options.validation_rows,
            batch=options.batch,
            mesh=self.mesh,
            put=put,
        )

    def _training_banks(self) -> str:
        if self.options.training_banks:
            return self.options.training_banks
        # A demonstration shows what a right answer rests on.
        return "add_all" if self.options.algorithm == "sft" else self.options.bank_builder

    def _banks(self, builder: str, dialogues: list, what: str, *watched: Callable) -> Ingestion:
        """The banks of dialogues, filled by "manager", "add_all" or "gold"."""
        if builder == "gold":
            return gold_banks(self.bench, dialogues)
        params = None
        if builder == "manager":
            params = network(self.options, self.models.manager, self.params["manager"])
        return self.pipeline.banks(params, dialogues, what, *watched)

    def _write_flags(self) -> None:
        write_text_atomic(self.folder / "flags.txt", flags_text(self.options))

    def _describe(self, rollout: Rollout) -> list[dict]:
        """The first prompt of a rollout and all its responses, as text."""
        tokenizer = self.models.manager.tokenizer
        prompt, samples, rewards = jax.device_get(
            (rollout.prompt, rollout.samples, rollout.rewards)
        )
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

    def _evaluation(self, when: str) -> Evaluation | None:
        if not self.options.evaluate:
            return None
        # That of the base models stays true; training may have gone on since the other.
        if when == "before" and self.options.resume:
            if done := read_evaluation(self.folder, when):
                return done
        seen: list[Seen] = []
        watched = functools.partial(watch, dialogues=self.options.replay_dialogues, seen=seen)
        banks = self._banks(
            self.options.bank_builder, self.eval_dialogues, f"{when} training", watched
        )
        answerer = network(self.options, self.models.answerer, self.params["answer"])
        evaluation = self.pipeline.evaluate(
            answerer, self.eval_dialogues, banks, f"{when} training"
        )
        if is_main():
            turns = self.pipeline.replay(seen, self.eval_dialogues, evaluation)
            write_replay(self.folder, when, turns)
            write_evaluation(self.folder, when, evaluation, self.options.eval_split)
        barrier(f"evaluation {when}")  # the file decides what a resumed run does
        return evaluation

    def _export(self, agent: str, params: dict) -> None:
        options, model = self.options, self.models.of(agent)
        folder, lora = self.folder / "export" / agent, lora_of(options)
        params = fetch(params)
        whole = params
        if lora is not None:
            whole = merge(fetch(model.params), params, lora.scale)
        if not is_main():
            return
        if lora is not None:
            export_adapters(
                self.folder / "export" / f"{agent}_adapter",
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

    def _report(self, before, after, agents) -> None:
        records = read_metrics(self.folder / "metrics.jsonl")
        if not records and before is None:
            return  # no step and no evaluation: a run that only exports
        if any("reward" in record for record in records):
            title = f"Reward ({self.options.reward.outcome})"
            reward_curve(self.folder / "reward.png", records, title)
        rows = []
        for agent in agents:
            steps = records_of(records, agent, "train")
            if steps:
                what, few, first, last = first_and_last(steps)
                name = f"training {what} of the {agent} agent, {few} of {len(steps)} steps"
                rows.append((name, first, last))
            rewards = [r["reward"] for r in records_of(records, agent, "validation")]
            if rewards:
                name = f"validation reward of the {agent} agent, the best of {len(rewards)}"
                rows.append((name, rewards[0], max(rewards)))
        if before is not None:
            for metric in ("f1_set_of_words", "bleu1_method1", "exact_match"):
                name = f"{self.options.eval_split} {metric}, {len(before.predictions)} questions"
                rows.append((name, before.overall[metric], after.overall[metric]))
        table("Before and after", ("what", "before", "after"), rows)
        write_report_page(self.folder)
        print(f"Everything is in {self.folder}; report.html there shows it.")


def _initial_state(options: ExperimentConfig, learner: Learner, model: Model, mesh) -> Any:
    """The state before the first step, on a mesh where the rules put it.

    Weights are trained from their published precision, which the arithmetic's may be below.
    """
    params, whole = model.params, not options.lora_rank
    if whole and model.decoder.dtype != jnp.float32:
        params, _ = read_params(model.folder, mesh, jnp.float32)

    def create(params):
        model_of = dataclasses.replace(model, params=params)
        return learner.create_state(
            trainable(options, model_of), options.seed, model.config.model_width
        )

    shardings = None
    if mesh is not None:
        shardings = state_shardings(mesh, jax.eval_shape(create, params))
    return jax.jit(create, out_shardings=shardings)(params)


def _identity(options: ExperimentConfig) -> dict:
    """The options that a resumed run must share: all that change what is learned."""
    free = {"agent", "manager_steps", "answer_steps", "micro_batches", "logit_chunk", "remat"}
    free.add("consult_batch")
    for kind in (DataConfig, EvalConfig, ParallelConfig, RunConfig):
        free.update(flag_values(kind()))
    found = {flag: value for flag, value in flag_values(options).items() if flag not in free}
    if options.select == "validation":  # scores of checkpoints must be of one kind
        found |= {"select": options.select, "validation_rows": options.validation_rows}
    return found

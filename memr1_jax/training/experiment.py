"""A whole experiment: evaluate, train one agent or both, evaluate again, export."""

import dataclasses

import jax
import jax.numpy as jnp

from memr1_jax.agents.rollout import FrozenAnswerer, Rollout
from memr1_jax.data.encode import encode_answer_data, encode_manager_data, left_out
from memr1_jax.data.tuples import manager_tuples
from memr1_jax.evals.pipeline import Evaluation
from memr1_jax.evals.report import read_evaluation, write_evaluation
from memr1_jax.models.hf_weights import export_params
from memr1_jax.rl.update import GRPO, create_optimizer, create_state
from memr1_jax.training.checkpoints import Checkpoints
from memr1_jax.training.config import AgentConfig, ExperimentConfig, TrainConfig, check_options
from memr1_jax.training.files import prepare_run_folder, write_text_atomic
from memr1_jax.training.loop import Stage, fingerprint, resume, train
from memr1_jax.training.metrics_log import MetricsLog, read_metrics
from memr1_jax.training.plots import reward_curve
from memr1_jax.training.progress import table
from memr1_jax.training.step import Frozen, Policy, make_train_step
from memr1_jax.training.workbench import (
    Pipeline,
    build_workbench,
    load_dialogues,
    load_models,
)


def algorithm_of(options: ExperimentConfig) -> GRPO:
    """The algorithm's own options."""
    names = {field.name for field in dataclasses.fields(GRPO)}
    values = {name: value for name, value in dataclasses.asdict(options).items() if name in names}
    return GRPO(**values | {"dual_clip": options.dual_clip or None})


class Experiment:
    """The state of one run: its folder, models, data and agents; `run` is the whole of it."""

    def __init__(self, options: ExperimentConfig):
        """Checks the folder first, then loads models and data; UserError for bad input."""
        check_options(options)
        self.options = options
        self.folder = prepare_run_folder(options.output, options.resume)
        self.model, self.answer_model = load_models(options)
        self.train_dialogues, self.eval_dialogues = load_dialogues(
            options, options.seed, self.folder
        )
        self.bench = build_workbench(options, self.model, self.train_dialogues)
        self.pipeline = Pipeline(options, self.bench, self.model, self.answer_model)
        self.algorithm = algorithm_of(options)
        self.optimizer = create_optimizer(
            options.learning_rate,
            warmup_steps=options.warmup_steps,
            weight_decay=options.weight_decay,
            clip=options.gradient_clip,
        )

    def run(self) -> dict[str, Evaluation | None]:
        """Evaluates, trains, evaluates, exports; returns the evaluations "before" and "after"."""
        options = self.options
        params = {"manager": self.model.params, "answer": self.answer_model.params}
        agents = ("manager", "answer") if options.agent == "both" else (options.agent,)
        before = self._evaluation("before", params)
        with MetricsLog(self.folder) as log:
            for agent in agents:
                params[agent] = self._train(agent, params, log)
                if options.export:
                    self._export(agent, params[agent])
        after = self._evaluation("after", params)
        self._report(before, after, agents)
        return {"before": before, "after": after}

    def _train(self, agent: str, params: dict, log: MetricsLog) -> dict:
        options = self.options
        steps = options.manager_steps if agent == "manager" else options.answer_steps
        if agent == "manager":
            tuples = [
                item
                for dialogue in self.train_dialogues
                for item in manager_tuples(dialogue, options.window or None, options.link)
            ]
            if lost := [
                f"{n} {what}" for what, n in left_out(self.bench.encoder, tuples).items() if n
            ]:
                print(f"Of {len(tuples)} turns, left out: {', '.join(lost)}.")
            data = encode_manager_data(self.bench.encoder, self.train_dialogues, tuples)
            answerer = FrozenAnswerer(self.bench.answerer, self.answer_model.decoder)
            policy = Policy(self.bench.manager, self.model.decoder, answerer)
            base, frozen = self.model.params, Frozen(None, params["answer"])
        else:
            banks = self.pipeline.banks(params["manager"], self.train_dialogues, "for training")
            data = encode_answer_data(self.bench.encoder, self.train_dialogues, banks.banks)
            policy = Policy(self.bench.answerer, self.answer_model.decoder)
            base, frozen = self.answer_model.params, Frozen(None, None)
        if options.kl_weight:
            frozen = frozen.replace(reference=base)
        stage = Stage(
            agent=agent,
            steps=steps,
            batch=options.batch,
            seed=options.seed,
            checkpoint_every=options.checkpoint_every,
            samples_every=options.samples_every,
            identity={"data": fingerprint(data), "seed": options.seed, **_identity(options)},
        )
        # A copy: the state is donated to the step, the base model is needed again.
        state = create_state(jax.tree.map(jnp.copy, base), self.optimizer, options.seed)
        with Checkpoints(self.folder / "checkpoints" / agent, options.keep) as checkpoints:
            if options.resume:
                state = resume(checkpoints, stage, state)
            self._write_flags()  # only now: a refused resume changes nothing
            log.rewind(agent, int(state.step))
            train_step = make_train_step(
                policy, self.algorithm, self.optimizer, reward=options.reward
            )
            state = train(
                stage,
                train_step,
                state,
                frozen,
                self.bench.tools,
                data,
                folder=self.folder,
                checkpoints=checkpoints,
                log=log,
                describe=self._describe,
            )
        return state.params

    def _write_flags(self) -> None:
        options = dataclasses.asdict(self.options).items()
        text = "".join(f"--{name}={value}\n" for name, value in options)
        write_text_atomic(self.folder / "flags.txt", text)

    def _describe(self, rollout: Rollout) -> list[dict]:
        """The first prompt of a rollout and all its responses, as text."""
        tokenizer = self.model.tokenizer
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

    def _evaluation(self, when: str, params: dict) -> Evaluation | None:
        if not self.options.evaluate:
            return None
        # That of the base models stays true; training may have gone on since the other.
        if when == "before" and self.options.resume:
            if done := read_evaluation(self.folder, when):
                return done
        evaluation = self.pipeline.evaluate(
            params["manager"], params["answer"], self.eval_dialogues, f"{when} training"
        )
        write_evaluation(self.folder, when, evaluation, self.options.eval_split)
        return evaluation

    def _export(self, agent: str, params: dict) -> None:
        model = self.model if agent == "manager" else self.answer_model
        export_params(
            self.folder / "export" / agent,
            jax.device_get(params),
            model.config,
            tokenizer_folder=model.folder,
            dtype=self.options.export_dtype,
        )

    def _report(self, before, after, agents) -> None:
        records = read_metrics(self.folder / "metrics.jsonl")
        if records:
            reward_curve(self.folder / "reward.png", records, f"Reward ({self.options.reward})")
        rows = []
        for agent in agents:
            rewards = [record["reward"] for record in records if record["agent"] == agent]
            if rewards:
                few = max(1, len(rewards) // 5)
                first, last = sum(rewards[:few]) / few, sum(rewards[-few:]) / few
                rows.append(
                    (f"training reward of the {agent}, {few} of {len(rewards)} steps", first, last)
                )
        if before is not None:
            for metric in ("f1_set_of_words", "bleu1_method1", "exact_match"):
                name = f"{self.options.eval_split} {metric}, {len(before.predictions)} questions"
                rows.append((name, before.overall[metric], after.overall[metric]))
        table("Before and after", ("what", "before", "after"), rows)
        print(f"Everything is in {self.folder}")


def _identity(options: ExperimentConfig) -> dict:
    """The options that a resumed run must share: all of agents and training but length and cost."""
    free = {"agent", "manager_steps", "answer_steps", "micro_batches", "logit_chunk", "remat"}
    fields = (*dataclasses.fields(AgentConfig), *dataclasses.fields(TrainConfig))
    return {f.name: getattr(options, f.name) for f in fields if f.name not in free}

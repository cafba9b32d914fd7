"""A whole experiment: evaluate, train one agent or both, evaluate again, export."""

import contextlib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memr1_jax.agents.agent_pair import build_agent_pair, load_models
from memr1_jax.agents.bank_file import read_banks, write_banks
from memr1_jax.agents.ingest import Ingestion
from memr1_jax.agents.told_facts import with_told_facts
from memr1_jax.data.dialogues import load_dialogues
from memr1_jax.data.folds import hold_out
from memr1_jax.errors import UserError
from memr1_jax.evals.evaluator import Evaluation, Evaluator
from memr1_jax.evals.report.replay import write_replay
from memr1_jax.evals.report.report import read_evaluation, remove_evaluation, write_evaluation
from memr1_jax.models.finite import check_finite
from memr1_jax.models.precision import cast_weights
from memr1_jax.options import flags_text
from memr1_jax.parallel.distributed import any_process, barrier, is_main, local_rows
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.parallel.sharded_step import check_batch, place, shard_train_step
from memr1_jax.rl.update import weigh_prompts
from memr1_jax.run.ahead import AheadCompiler
from memr1_jax.run.checkpoints import Checkpoints
from memr1_jax.run.files import write_text_atomic
from memr1_jax.run.metrics_log import MetricsLog, NoLog
from memr1_jax.run.preemption import catch_termination
from memr1_jax.training.build import (
    build_learner,
    initial_state,
    make_frozen,
    make_policy,
    network,
    print_memory,
    state_shapes,
    untrained,
)
from memr1_jax.training.checks import check_options
from memr1_jax.training.config import ExperimentConfig, settled
from memr1_jax.training.identity import open_run, stage_of
from memr1_jax.training.loop import resume, train
from memr1_jax.training.outputs import describe, export_agent, open_log, report
from memr1_jax.training.step import Policy
from memr1_jax.training.training_data import (
    answer_data,
    check_dialogues,
    extractor_data,
    gold_banks,
    manager_data,
    parts_by_step,
    training_banks,
    with_demonstrations,
)
from memr1_jax.training.validation import (
    make_validation,
    validation_dialogues,
    validation_options,
)

AGENTS = ("manager", "answer", "extractor")


class Experiment:
    """The state of one run: its folder, models, data and agents; `run` is the whole of it.

    With several processes all of them run everything; the first alone writes and prints.
    """

    def __init__(self, options: ExperimentConfig):
        """Checks the folder first, then loads data and models; UserError for bad input."""
        self.options = options = settled(options)
        check_options(options)
        self.mesh = None
        if options.mesh:
            self.mesh = make_mesh(options.mesh)
            policy = options.policy
            check_batch(self.mesh, options.batch, policy.micro_batches, policy.mini_batches)
        self.learners = {agent: build_learner(options, agent) for agent in AGENTS}
        with contextlib.ExitStack() as held:
            held.enter_context(
                open_run(options, "training", resume=options.resume, check=self._load_dialogues)
            )
            self.models = load_models(options, self.mesh)
            self.pair = build_agent_pair(options, self.models, self.train_dialogues)
            self._noted = self.eval_dialogues
            if options.evaluate or options.select == "validation":
                self.eval_dialogues = self._told(self._noted, "for evaluation")
            if options.agent != "extractor":  # which learns from what is noted
                self.train_dialogues = self._told(self.train_dialogues, "for training")
            self.held_out = self._told(self.held_out, "held out")
            self._held = held.pop_all()  # until the run ends
        self.evaluator = Evaluator(options, self.pair, self.models)
        self._ahead = AheadCompiler()
        self._ready: dict[str, Any] = {}  # data of agents whose steps are compiled ahead
        # The trained parameters of each agent, in the form of `Frozen`.
        self.params = {agent: untrained(options, self.models.of(agent)) for agent in AGENTS}

    def _load_dialogues(self, folder: Path) -> None:
        self.folder = folder
        options, self.held_out = self.options, []
        learned, self.eval_dialogues = load_dialogues(options, options.seed, folder)
        if folds := options.validation_folds:
            learned, self.held_out = hold_out(learned, folds, options.validation_fold)
        self.train_dialogues = learned
        check_dialogues(options, learned, self.eval_dialogues, folder, self.held_out)

    def _told(self, dialogues: list, what: str, params: dict | None = None) -> list:
        options = self.options
        given = (options, options.extraction, self.pair, self.models)
        return with_told_facts(*given, dialogues, what, params)

    def run(self) -> dict[str, Evaluation | None]:
        """Trains and exports between two evaluations; returns those "before" and "after"."""
        options = self.options
        agents = (options.agent,)
        if options.agent == "both":
            agents = ("manager", "answer") if options.first == "manager" else ("answer", "manager")
        on_mesh = contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)
        with self._held, on_mesh, self._ahead:
            self._compile_ahead(agents)
            before = self._evaluation("before")
            with open_log(options, self.folder) as log:
                for agent in agents:
                    self._train(agent, log)
                after = self._evaluation("after")
                if is_main():
                    report(options, self.folder, before, log)
        return {"before": before, "after": after}

    def _compile_ahead(self, agents: tuple[str, ...]) -> None:
        """Begins to compile the steps of the agents whose data do not depend on the other's work.

        Not on a mesh, which threads do not inherit, nor where a resumed run may have no step left.
        """
        options = self.options
        if self.mesh is not None or options.resume:
            return
        for agent in agents:
            waits = agent == "answer" and training_banks(options) == "manager"
            # Adapters that the other has yet to learn are not among the frozen weights.
            waits |= bool(options.lora_rank) and agent != agents[0]
            if waits or not getattr(options, f"{agent}_steps"):
                continue
            learner, model = self.learners[agent], self.models.of(agent)
            if learner.flat_odds < 1:  # odds of prompts are part of the state
                continue
            data = self._ready[agent] = self._data(agent)
            rows = np.zeros(options.batch * learner.oversample, np.int32)
            self._ahead.start(
                agent,
                learner.make_step(make_policy(options, self.pair, self.models, agent)),
                state_shapes(options, learner, agent, model),
                make_frozen(options, self.models, agent, self.params["answer"]),
                *(self.pair.tools, data, rows, rows == 0),
            )

    def _train(self, agent: str, log: MetricsLog | NoLog) -> None:
        """Trains one agent, exports it and keeps what was trained."""
        options, model = self.options, self.models.of(agent)
        steps, learner = getattr(options, f"{agent}_steps"), self.learners[agent]
        data = self._ready.pop(agent) if agent in self._ready else self._data(agent)
        parts = parts_by_step(options, self.train_dialogues, data)
        stage = stage_of(options, agent, data, learner.oversample)
        policy = make_policy(options, self.pair, self.models, agent)
        frozen = make_frozen(options, self.models, agent, self.params["answer"])
        state = initial_state(options, learner, agent, model, self.mesh)
        if learner.flat_odds < 1:
            state = weigh_prompts(state, data.rows)
        if is_main():
            print_memory(options, learner, agent, model, state, frozen)
        train_step, put = self._ahead.take(agent, learner.make_step(policy)), jnp.asarray
        arguments = (frozen, self.pair.tools, jax.device_put(data))
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
                # Only now: a refused resume changes nothing.
                write_text_atomic(self.folder / "flags.txt", flags_text(options))
            # Without a checkpoint the start is measured again as well.
            begun = checkpoints.latest_step() is not None
            if is_main() and int(state.step) < steps:
                remove_evaluation(self.folder, "after")  # of an agent that learned less
            log.rewind(agent, int(state.step) if begun else -1)
            state = train(
                stage,
                train_step,
                state,
                tuple(arguments),
                data.rows,
                parts=parts,
                folder=self.folder,
                checkpoints=checkpoints,
                log=log,
                describe=functools.partial(describe, self.models.manager.tokenizer),
                put=put,
                stop=lambda: stop.requested,
                validate=validate,
            )
            if options.select != "last":
                state, _ = checkpoints.restore(state, checkpoints.best_step())
        params = state.params
        check_finite(
            params,
            f"The {agent} agent after step {int(state.step)}",
            "Nothing is exported or evaluated with them. Give another --output and a lower"
            " --learning_rate.",
        )
        del state  # nothing below needs the moments
        if options.export:
            folder = self.folder / "export" / agent
            export_agent(options, folder, agent, params, self.models, self.pair)
        dtype = jnp.float32 if options.lora_rank else model.decoder.dtype
        self.params[agent] = cast_weights(params, dtype)
        if agent == "extractor" and options.evaluate:
            whole = network(options, model, self.params[agent])
            self.eval_dialogues = self._told(self._noted, "after training", whole)

    def _data(self, agent: str) -> Any:
        """Makes the data that an agent learns from; banks, once built, are kept for resuming."""
        given = (self.pair, self.models, self.train_dialogues)
        if agent == "extractor":
            return self._made(lambda options: extractor_data(options, *given))
        if agent == "manager":
            return self._made(lambda options: manager_data(options, *given))
        options, path = self.options, self.folder / "training_banks.safetensors"
        builder = training_banks(options)
        origin = f"{builder} {options.manager_steps}"
        found = _kept(lambda: read_banks(path, origin)) if options.resume else None
        barrier("training banks")  # all processes look before one writes
        if found is None:
            found = self._banks(builder, self.train_dialogues, "for training")
            if is_main():
                write_banks(path, found, origin)
        return self._made(lambda options: answer_data(options, *given, found.banks))

    def _made(self, make: Callable) -> Any:
        """Makes data by the run's options, with demonstrations where these have a weight."""
        return with_demonstrations(self.options, make(self.options), make)

    def _validation(
        self, agent: str, policy: Policy, state: Any, arguments: Any, put: Callable
    ) -> Callable[[dict], float]:
        """Returns what measures the parameters of an agent that learns from `arguments`."""
        options, given = self.options, validation_options(self.options)
        found = validation_dialogues(options, self.folder, self.eval_dialogues, self.held_out)
        known = [*self.eval_dialogues, *self.held_out]
        new = self._told([d for d in found if d not in known], "for validation")
        dialogues = [d for d in found if d in known] + new
        if agent == "extractor":
            data = extractor_data(given, self.pair, self.models, dialogues)
        elif agent == "manager":
            data = manager_data(given, self.pair, self.models, dialogues)
        else:
            banks = self._banks(training_banks(options), dialogues, "for validation").banks
            data = answer_data(given, self.pair, self.models, dialogues, banks)
        frozen, tools, _ = arguments
        data = jax.device_put(data)
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

    def _banks(self, builder: str, dialogues: list, what: str) -> Ingestion:
        """Builds the banks of dialogues, filled by "manager", "add_all" or "gold"."""
        if builder == "gold":
            return gold_banks(self.pair, dialogues)
        params = None
        if builder == "manager":
            params = network(self.options, self.models.manager, self.params["manager"])
        return self.evaluator.banks(params, dialogues, what)

    def _evaluation(self, when: str) -> Evaluation | None:
        options = self.options
        if not options.evaluate:
            return None
        # That of the base models stays true; training may have continued since the other.
        if when == "before" and options.resume:
            if done := _kept(lambda: read_evaluation(self.folder, when)):
                return done
        evaluation, replayed = self.evaluator.measure(
            network(options, self.models.manager, self.params["manager"]),
            network(options, self.models.answerer, self.params["answer"]),
            self.eval_dialogues,
            f"{when} training",
        )
        if is_main():
            write_replay(self.folder, when, replayed)
            write_evaluation(self.folder, when, evaluation, options.eval_split)
        barrier(f"evaluation {when}")  # the file decides what a resumed run does
        return evaluation


def _kept(read: Callable[[], Any]) -> Any:
    """Returns what is read of an interrupted run; None, with a warning, where that is damaged."""
    try:
        return read()
    except UserError as error:
        warnings.warn(f"{error} It is made again now.", stacklevel=2)
        return None

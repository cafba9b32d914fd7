"""Model cards of a run's agents: what was trained, how, and what it scored, as Markdown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memr1_jax.evals.report.before_after import Cell, compare
from memr1_jax.evals.report.report import read_evaluation
from memr1_jax.models.hf.sources import FOUR_BIT, published_name
from memr1_jax.run.json_files import read_json_object
from memr1_jax.run.markdown import markdown_table
from memr1_jax.run.run_folder import RECORD

AGENTS = ("manager", "answer")
_TITLES = {"manager": "Memory Manager", "answer": "Answer Agent"}
_JOBS = {
    "manager": "compares new facts of a dialogue with a memory bank and writes ADD, UPDATE, DELETE"
    " or NONE",
    "answer": "picks from retrieved memories and answers a question briefly",
}
_METHODS = {"sft": "on demonstrations", "best_of_n": "on the best of its own samples"}
# Flags of the machine and its folders, which mean nothing to others.
_PRIVATE = {"output", "resume", "overwrite", "compilation_cache", "data_path", "model_settings"}


def model_card(
    run: Path,
    agent: str,
    name: str,
    pushed: Sequence[str] = AGENTS,
    license: str = "",
    adapters: bool = False,
) -> str:
    """Writes the card of one of the `AGENTS` that are `pushed` together as the pair `name`.

    Raises:
      UserError: the run's record or an evaluation is damaged.
    """
    record = _record(run)
    inputs, options = record.get("inputs") or {}, record.get("options") or {}
    base, algorithm = _base(inputs, agent), str(options.get("algorithm", "grpo"))
    parts = [
        _front(published_name(base), algorithm, license, adapters),
        f"# {name}-{agent}\n",
        f"The {_TITLES[agent]} of a pair of agents with an external memory: it {_JOBS[agent]}."
        f" Trained {_METHODS.get(algorithm) or f'by outcome, {algorithm.upper()}'}, with memr1_jax,"
        " after Memory-R1 (arXiv 2508.19828)."
        f" {_partner(inputs, agent, name, pushed)}\n",
        f"- Base model: {_described(base) or 'not recorded'}",
        f"- Weights: {_weights(options, adapters)}",
        f"- Licence: {license or 'that of the base model; see there'}\n",
        "## Use\n\n```python\nimport memr1_jax as m1\n\n"
        f"agents = {load_call(run, name, pushed)}\n"
        'bank = agents.remember([("Ana", "I moved to Bergen.")])\n'
        'print(agents.answer("Where does Ana live?", bank))\n```\n',
        "`chat_examples.json` shows the chats of both agents for other servers (vLLM,"
        " llama.cpp).\n",
        _figures(run),
        _prompts(inputs),
        _recipe(options),
    ]
    return "\n".join(part for part in parts if part)


def load_call(run: Path, name: str, pushed: Sequence[str] = AGENTS) -> str:
    """Returns the Python expression that loads what was pushed of a run as the pair `name`.

    Of an agent that the run did not train it names the model.
    """
    if len(pushed) == len(AGENTS):
        return f'm1.load("{name}")'
    inputs = _record(run).get("inputs") or {}
    named = {
        agent: f"{name}-{agent}" if agent in pushed else _public(_base(inputs, agent)) or "MODEL"
        for agent in AGENTS
    }
    return 'm1.load("{manager}", answer="{answer}")'.format(**named)


def _record(run: Path) -> dict[str, Any]:
    if not (run / RECORD).is_file():
        return {}
    return read_json_object(run / RECORD, "Put back a copy of it.")


def _base(inputs: dict[str, Any], agent: str) -> str:
    """Names the model that an agent began as; "" where the run does not say."""
    flags = ("model",) if agent == "manager" else ("answer_model", "model")
    models = (inputs.get(f"--{flag}") or {} for flag in flags)
    return next((str(model["name"]) for model in models if model.get("name")), "")


def _partner(inputs: dict[str, Any], agent: str, name: str, pushed: Sequence[str]) -> str:
    (other,) = set(AGENTS) - {agent}
    if other in pushed:
        return f"Its partner is `{name}-{other}`."
    model = _described(_base(inputs, other))
    return f"Its partner, the {_TITLES[other]}, was not trained{f': {model}' if model else ''}."


def _weights(options: dict[str, Any], adapters: bool) -> str:
    if adapters:
        return "LoRA adapters, for peft"
    return f"whole{', adapters merged in' if options.get('lora_rank') else ''}, for from_pretrained"


def _front(base, algorithm, license, adapters):
    lines = ["---"]
    if base:
        lines.append(f"base_model: {base}")
    lines += [f"library_name: {'peft' if adapters else 'transformers'}"]
    lines += ["pipeline_tag: text-generation"]
    lines += [f"license: {license}"] if license else []
    lines += ["tags:", "- memr1_jax", "- memory-r1"]
    lines += [] if algorithm in _METHODS else ["- reinforcement-learning"]
    return "\n".join([*lines, f"- {algorithm}", "---\n"])


def _public(name: str) -> str:
    """Names a model as others can load it, or at least without the folders of this machine."""
    return name if published_name(name) else Path(name).name


def _described(name: str) -> str:
    """Names a model, and says if its weights were not those that are published."""
    if name in FOUR_BIT:
        return f"{FOUR_BIT[name]}, its 4-bit weights dequantised (`{name}`)"
    return published_name(name) or _public(name)


def _figures(run: Path) -> str:
    made = ((when, read_evaluation(run, when)) for when in ("before", "after"))
    found = {when: evaluation for when, evaluation in made if evaluation is not None}
    if not found:
        return "## Figures\n\nThe run measured none.\n"
    compared = compare(found)
    split = read_json_object(run / f"evaluation_{list(found)[-1]}.json").get("split", "")
    rows = [
        [row.name, row.count, *(_cell(cell) for cell in row.cells)]
        for row in sorted(compared.rows, key=lambda row: not row.overall)
    ]
    text = f"## Figures\n\nBoth agents on whole dialogues of the run's split {split!r}, in percent"
    if len(found) == 2:
        text += ": before and after training, and the change with its 95 percent interval over the"
        text += " same questions"
    else:
        text += f", {next(iter(found))} training alone"
    table = markdown_table(["questions", "count", *compared.metrics], rows)
    return "\n\n".join(part for part in (f"{text}.", table, compared.note) if part) + "\n"


def _cell(cell: Cell) -> str:
    values = " → ".join("" if value is None else f"{value:.1f}" for value in cell.values)
    if cell.change is None:
        return values
    interval = ""
    if cell.interval is not None:
        interval = f" [{cell.interval[0]:+.1f}, {cell.interval[1]:+.1f}]"
    return f"{values} ({cell.change:+.1f}{interval})"


def _prompts(inputs: dict[str, Any]) -> str:
    rows = [
        [name.removeprefix("prompt of the "), found["name"], f"`{found['digest']}`"]
        for name, found in inputs.items()
        if name.startswith("prompt of the ")
    ]
    if not rows:
        return ""
    return f"## Prompts\n\n{markdown_table(['of the', 'file', 'digest'], rows, 3)}\n"


def _recipe(options: dict[str, Any]) -> str:
    from memr1_jax.options import as_flags, flag_values
    from memr1_jax.training.config import ExperimentConfig

    defaults = flag_values(ExperimentConfig())
    changed = {
        name: value
        for name, value in options.items()
        if name not in _PRIVATE and name in defaults and value != defaults[name]
    }
    for name in ("model", "answer_model", "judge_model"):
        if changed.get(name):
            changed[name] = _public(str(changed[name]))
    if not changed:
        return ""
    flags = "\n".join(as_flags(changed))
    return f"## Recipe\n\nFlags that differ from the defaults:\n\n```\n{flags}\n```\n"

"""Model cards of a run's agents: what was trained, how, and what it scored, as Markdown."""

from pathlib import Path
from typing import Any

from memr1_jax.evals.report.before_after import Cell, compare
from memr1_jax.evals.report.report import read_evaluation
from memr1_jax.models.hf.sources import published_name
from memr1_jax.run.json_files import read_json_object
from memr1_jax.run.markdown import markdown_table
from memr1_jax.run.run_folder import RECORD

_TITLES = {"manager": "Memory Manager", "answer": "Answer Agent"}
_JOBS = {
    "manager": "compares new facts of a dialogue with a memory bank and writes ADD, UPDATE, DELETE"
    " or NONE",
    "answer": "picks from retrieved memories and answers a question briefly",
}
# Flags of the machine and its folders, which mean nothing to others.
_PRIVATE = {"output", "resume", "overwrite", "compilation_cache", "data_path", "model_settings"}


def model_card(run: Path, agent: str, name: str, license: str = "", adapters: bool = False) -> str:
    """Writes the card of "manager" or "answer", to be published under `name`, owner/name.

    Raises:
      UserError: the run's record or an evaluation is damaged.
    """
    record = {}
    if (run / RECORD).is_file():
        record = read_json_object(run / RECORD, "Put back a copy of it.")
    inputs, options = record.get("inputs") or {}, record.get("options") or {}
    models = (inputs.get(f"--{flag}") or {} for flag in _flags(agent))
    base = next((str(model["name"]) for model in models if model.get("name")), "")
    algorithm = str(options.get("algorithm", "grpo"))
    other = {"manager": "answer", "answer": "manager"}[agent]
    pair = name.removesuffix(f"-{agent}")
    parts = [
        _front(published_name(base), algorithm, license, adapters),
        f"# {name}\n",
        f"The {_TITLES[agent]} of a pair of agents with an external memory: it {_JOBS[agent]}."
        f" Trained by outcome with memr1_jax ({algorithm.upper()}, after Memory-R1, arXiv"
        f" 2508.19828). Its partner is `{pair}-{other}`.\n",
        f"- Base model: {_public(base) or 'not recorded'}",
        f"- Weights: {'LoRA adapters, for peft' if adapters else 'merged, for from_pretrained'}",
        f"- Licence: {license or 'that of the base model; see there'}\n",
        f'## Use\n\n```python\nimport memr1_jax as m1\n\nagents = m1.load("{pair}")\n'
        'bank = agents.remember([("Ana", "I moved to Bergen.")])\n'
        'print(agents.answer("Where does Ana live?", bank))\n```\n',
        "`chat_examples.json` shows the chats of both agents for other servers (vLLM,"
        " llama.cpp).\n",
        _figures(run),
        _prompts(inputs),
        _recipe(options),
    ]
    return "\n".join(part for part in parts if part)


def _flags(agent):
    return ("model",) if agent == "manager" else ("answer_model", "model")


def _front(base, algorithm, license, adapters):
    lines = ["---"]
    if base:
        lines.append(f"base_model: {base}")
    lines += [f"library_name: {'peft' if adapters else 'transformers'}"]
    lines += ["pipeline_tag: text-generation"]
    lines += [f"license: {license}"] if license else []
    lines += ["tags:", "- memr1_jax", "- memory-r1", "- reinforcement-learning"]
    return "\n".join([*lines, f"- {algorithm}", "---\n"])


def _public(name: str) -> str:
    """Names a model without the folders of the machine."""
    return published_name(name) or Path(name).name


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

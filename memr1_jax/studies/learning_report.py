"""What RL taught, as tables, curves and figures.

Axis letters: S seeds, T steps.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from memr1_jax.evals.bank_health import COMPLAINTS
from memr1_jax.run.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from memr1_jax.run.plots import moving_mean
from memr1_jax.run.progress import table
from memr1_jax.run.seeds import interval_text, markdown

_AGENTS = {"answer": "Answer Agent", "manager": "Memory Manager"}
_ABILITIES = {
    "answer": "Answer Agent, exact match",
    "manager": "Memory Manager, exact match through the trained Answer Agent",
    "operations": "manager's operations equal to the gold ones (never rewarded)",
    "dialogue": "both, whole dialogues, banks from empty: exact match",
}


def write_report(
    folder: Path, options: Mapping[str, Any], runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """Prints the tables; writes `results.md`, `reward.png` and, last, `results.json`.

    Args:
      folder: where to.
      options: of the comparison, to be kept with its results.
      runs: for each algorithm what `comparison.run_to_its_end` returns of `learning`, one a seed.

    Returns:
      What `results.json` holds: options, and by algorithm the rewards `[S, T]` of each agent, what
      was measured at the start and at the end of each seed, and the seconds a step.
    """
    results = {
        name: {
            agent: {
                "rewards": _column(seeds, agent, "reward").tolist(),
                "seconds_per_step": float(np.median(_column(seeds, agent, "seconds"))),
            }
            for agent in _AGENTS
        }
        | {when: [run[when] for run in seeds] for when in ("start", "end")}
        for name, seeds in runs.items()
    }
    parts = [_abilities(results), _rewards(results), _events(results), _health(results)]
    for title, columns, rows in parts:
        table(title, columns, rows)
    write_text_atomic(folder / "results.md", "\n".join(markdown(*part) for part in parts))
    write_bytes_atomic(folder / "reward.png", draw(results))
    found = {"options": dict(options), "algorithms": results}
    write_json_atomic(folder / "results.json", found)
    print(f"Everything is in {folder}")
    return found


def fifths(rewards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean rewards `[S]` of the first and of the last fifth of the steps of `[S, T]`."""
    few = max(1, rewards.shape[1] // 5)
    return rewards[:, :few].mean(axis=1), rewards[:, -few:].mean(axis=1)


def draw(results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The curves as a PNG, a panel an agent: means over seeds of moving means, and their range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.0), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, (agent, title) in zip(figure.subplots(1, 2), _AGENTS.items(), strict=True):
        for name, found in results.items():
            values = np.array(found[agent]["rewards"])
            window = max(1, values.shape[1] // 10)
            smooth = np.stack([moving_mean(run, window) for run in values])
            place = np.arange(1, values.shape[1] + 1)
            (line,) = panel.plot(place, smooth.mean(axis=0), linewidth=2, label=name.upper())
            lowest, highest = smooth.min(axis=0), smooth.max(axis=0)
            panel.fill_between(
                place, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0
            )
        panel.set_title(f"{title}: means of {window} steps, bands: all seeds")
        panel.set_xlabel("training step")
        panel.set_ylabel("mean reward of a response (exact match)")
        panel.set_ylim(bottom=0.0)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _abilities(results):
    """The table of what was measured on held-out dialogues, in percent."""
    one = next(iter(results.values()))["start"]
    title = (
        f"Held-out dialogues ({one[0]['questions']} questions, {one[0]['turns']} turns with"
        f" facts), percent: mean and 95 percent interval over {len(one)} seeds"
    )
    columns = ["", *(f"{name.upper()}, {what}" for name in results for what in _WHEN)]
    rows = [
        [text, *(cell for found in results.values() for cell in _before_after(found, key))]
        for key, text in _ABILITIES.items()
    ]
    return title, columns, rows


_WHEN = ("start", "after RL", "gain")


def _before_after(found, key):
    start, end = (100 * np.array([run[key] for run in found[when]]) for when in ("start", "end"))
    return [interval_text(values, ".1f") for values in (start, end, end - start)]


def _rewards(results):
    columns = ("agent", "algorithm", "first fifth", "last fifth", "gain", "seconds a step")
    rows = []
    for agent, title in _AGENTS.items():
        for name, found in results.items():
            first, last = fifths(np.array(found[agent]["rewards"]))
            cells = [interval_text(values, ".3f") for values in (first, last, last - first)]
            rows.append([title, name.upper(), *cells, f"{found[agent]['seconds_per_step']:.2f}"])
    return "Reward in training (exact match)", columns, rows


def _events(results):
    columns = ["gold operation", "start", *(f"after {name.upper()}" for name in results)]
    first = next(iter(results.values()))
    rows = [
        [
            event,
            *(
                f"{100 * np.mean([run['by_event'][event] for run in runs]):.1f}"
                for runs in (first["start"], *(found["end"] for found in results.values()))
            ),
        ]
        for event in first["start"][0]["by_event"]
    ]
    return "Operations equal to the gold ones, percent by kind", columns, rows


def _health(results):
    columns = ["whole dialogues", "start", *(f"after {name.upper()}" for name in results)]
    first = next(iter(results.values()))
    runs_of = (first["start"], *(found["end"] for found in results.values()))
    rows = [
        [text, *(f"{np.mean([run['health'][key] for run in runs]):.1f}" for runs in runs_of)]
        for key, text in COMPLAINTS.items()
    ]
    facts = first["start"][0]["health"]["facts"]
    return f"Banks in the end, where {facts} facts hold: counts, means over seeds", columns, rows


def _column(seeds, agent, name) -> np.ndarray:
    """One metric `[S, T]` of an agent's steps."""
    return np.array([[step[name] for step in run["steps"][agent]] for run in seeds])

"""Times the same GRPO step in several libraries, in turn, and prints their ratios to memr1_jax.

python benchmarks/run.py --shapes=512+64:2x4
"""

import argparse
import dataclasses
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
SHAPES = "128+64:4x4,512+64:2x8,1024+64:1x8"
# What the backward pass may keep in each system, its default first.
REMAT = {"memr1_jax": ("dots", "full"), "tunix": ("NONE", "BLOCK"), "trl": ("none", "full")}
FIGURES = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_gib": "peak GiB"}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Prompt and response lengths, prompts of a batch, samples of each."""

    prompt_length: int
    response_length: int
    prompts: int
    group: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Reads a shape such as 512+64:2x8; ends the program where it is none."""
        found = re.fullmatch(r"(\d+)\+(\d+):(\d+)x(\d+)", text.strip())
        if not found or "0" in found.groups():
            sys.exit(f"--shapes: {text!r} is not of the form 512+64:2x8.")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        """Formats the shape as it is read."""
        return f"{self.prompt_length}+{self.response_length}:{self.prompts}x{self.group}"


def measure(system: str, shape: Shape, steps: int, options, **setting) -> dict:
    """Runs one system in its environment; returns its summary, or {"failed": why}."""
    python = Path(options.venvs) / system / "bin" / "python"
    if not python.exists():
        return {"failed": f"{python} is missing: run benchmarks/setup.sh"}
    given = dataclasses.asdict(shape) | {"steps": steps, "model": options.model} | setting
    flags = [f"--{name}={value}" for name, value in given.items()]
    try:
        done = subprocess.run(
            [python, HERE / f"{system}_grpo.py", *flags],
            capture_output=True,
            text=True,
            timeout=options.limit,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {options.limit} seconds"}
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"summary"')]
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])["summary"]
    return {"failed": _why(done)}


def _why(done: subprocess.CompletedProcess) -> str:
    """Says in a line why a system did not finish."""
    if done.returncode in (-9, 137) or re.search(r"RESOURCE_EXHAUSTED|MemoryError", done.stderr):
        return "out of memory"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else f"ended with status {done.returncode}"


def settings(system: str, shape: Shape) -> list[dict]:
    """Lists the settings that a system may be fastest with: micro-batches, then remat."""
    micro = sorted({shape.prompts, max(shape.prompts // 2, 1), 1}, reverse=True)
    micro = [size for size in micro if shape.prompts % size == 0]
    return [{"micro": size, "remat": remat} for remat in REMAT[system] for size in micro]


def best_setting(system: str, shape: Shape, options) -> tuple[dict, list[dict]]:
    """Tries the settings with two steps each; returns the fastest and all that was seen."""
    tried = []
    for setting in settings(system, shape):
        found = measure(system, shape, 2, options, **setting)
        what = found.get("failed") or f"{found['seconds']:.1f} s"
        print(f"  {system} {setting}: {what}", flush=True)
        tried.append(setting | {name: found.get(name) for name in ("seconds", "failed")})
    ran = [found for found in tried if found["seconds"] is not None]
    if not ran:
        return settings(system, shape)[0], tried
    fastest = min(ran, key=lambda found: found["seconds"])
    return {name: fastest[name] for name in ("micro", "remat")}, tried


def compare(shape: Shape, systems: list[str], options) -> dict:
    """Measures all systems on one shape, in turn."""
    print(f"\n{shape}", flush=True)
    chosen, tried = {}, {}
    for system in systems:
        chosen[system] = settings(system, shape)[0]
        if options.search:
            chosen[system], tried[system] = best_setting(system, shape, options)
    runs: dict[str, list[dict]] = {system: [] for system in systems}
    for _ in range(options.repeats):
        for system in systems:
            if any("failed" in run for run in runs[system]):
                continue
            run = measure(system, shape, options.steps, options, **chosen[system])
            what = run.get("failed") or f"{run['seconds']:.1f} s"
            print(f"  {system}: {what}", flush=True)
            runs[system].append(run)
    return {"shape": str(shape), "settings": chosen, "tried": tried, "runs": runs}


def rows(found: dict) -> list[list[str]]:
    """Makes the lines of a table: medians, each with its ratio to the first system's."""
    lines, first = [], None
    for system, runs in found["runs"].items():
        setting = ", ".join(f"{k} {v}" for k, v in found["settings"][system].items())
        failed = next((run["failed"] for run in runs if "failed" in run), None)
        if failed:
            lines.append([found["shape"], system, setting, f"cannot: {failed}", "", ""])
            continue
        medians = [statistics.median(run[name] for run in runs) for name in FIGURES]
        first = first or (medians if system == "memr1_jax" else None)
        cells = [
            f"{value:.2f}" + (f" ({value / base:.2f}x)" if base and system != "memr1_jax" else "")
            for value, base in zip(medians, first or [None] * 3, strict=True)
        ]
        lines.append([found["shape"], system, setting, *cells])
    return lines


def markdown(lines: list[list[str]]) -> str:
    """Lays lines out as a table in Markdown."""
    heads = ["shape", "system", "its best setting", *FIGURES.values()]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [heads, ["---"] * len(heads), *lines]
    )


def main() -> None:
    """Measures what the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=SHAPES, help="prompt+response:prompts x samples, ...")
    parser.add_argument("--systems", default=",".join(REMAT))
    parser.add_argument("--model", default="135m", help="135m or small")
    parser.add_argument("--steps", type=int, default=3, help="of a run; the first is not counted")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each system, in turn")
    parser.add_argument("--limit", type=int, default=3600, help="seconds of one run at most")
    parser.add_argument("--venvs", default=str(HERE / ".venvs"))
    parser.add_argument("--output", default="benchmarks.json")
    parser.add_argument("--search", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    systems = [name.strip() for name in options.systems.split(",")]
    if unknown := set(systems) - set(REMAT):
        sys.exit(f"--systems: {', '.join(sorted(unknown))} is none of {', '.join(REMAT)}.")
    shapes, lines, all_found = [Shape.parse(text) for text in options.shapes.split(",")], [], []
    for shape in shapes:
        all_found.append(compare(shape, systems, options))
        lines += rows(all_found[-1])
        Path(options.output).write_text(json.dumps(all_found, indent=1) + "\n")
    print(f"\n{markdown(lines)}\n\nAll figures are in {options.output}.")


if __name__ == "__main__":
    main()

"""Tells what the seconds of a compiled step are made of, from XLA's trace on a CPU."""

import collections
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from memr1_jax.errors import UserError

PHASES = ("forward", "computed again", "backward", "other")
# The first expression that is found in an operation's name says which part it belongs to.
_PARTS = (
    ("slices of stacked layers", r"dynamic_(update_)?(index_in_dim|slice)"),
    ("attention: projections", r"attention\.project/(query|key|value)/|/attention/output/"),
    ("feed-forward network", r"/mlp/"),
    ("norms and rotations", r"_norm/|attention\.project/|/(sin|cos)$"),
    ("attention: scores", r"/Layer/"),
    ("logits and loss", r"Decoder\.logits|jvp\(\)/while"),
    ("optimizer", r"/cond/"),
)
_REST = "everything else"
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%(\S+) = .*? ([a-z][\w-]*)\(", re.MULTILINE)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%(\S+) .*\{$")
_CALLED = re.compile(r"calls=%([^\s,]+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_BATCHED_PRODUCT = "/Layer/"  # XLA takes the names of such products away; all are attention's
_CONTAINERS = ("while", "conditional", "call")  # their bodies are counted


def part_of(name: str) -> tuple[str, str]:
    """Returns the part and the phase of an operation with this name, as JAX writes it."""
    part = next((part for part, found in _PARTS if re.search(found, name)), _REST)
    if "rematted_computation" in name:
        return part, "computed again"
    if "transpose(" in name:
        return part, "backward"
    return part, "forward" if "jvp(" in name else "other"


def parts_of(text: str) -> dict[str, tuple[str, str]]:
    """Maps each instruction of a compiled program's text to its part and phase.

    A fusion without a name of its own has that of what it computes. Instructions that only hold
    others, such as loops, are left out.
    """
    names, calls, inside, computation = {}, {}, {}, ""
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            computation = header[1]
        instruction, name = _INSTRUCTION.match(line), _NAME.search(line)
        if name:
            inside[computation] = name[1]  # in the end that of its root, or of one close to it
        elif "lhs_batch_dims" in line:
            inside.setdefault(computation, _BATCHED_PRODUCT)
        if instruction and instruction[2] not in _CONTAINERS:
            names[instruction[1]] = name[1] if name else ""
            if not name and (called := _CALLED.search(line)):
                calls[instruction[1]] = called[1]
    names |= {name: inside.get(called, "") for name, called in calls.items()}
    return {instruction: part_of(name) for instruction, name in names.items()}


def tally(
    events: Iterable[tuple[str, float]], parts: Mapping[str, tuple[str, str]]
) -> dict[str, dict[str, float]]:
    """Adds seconds of instructions up by part and phase; the largest part comes first."""
    found: dict[str, dict[str, float]] = collections.defaultdict(lambda: dict.fromkeys(PHASES, 0.0))
    for instruction, seconds in events:
        if instruction in parts:
            part, phase = parts[instruction]
            found[part][phase] += seconds
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def profile(program: Any, call: Callable[[], Any], calls: int = 1) -> dict[str, dict[str, float]]:
    """Runs a compiled program under JAX's profiler.

    Args:
      program: what `jax.jit(...).lower(...).compile()` returned.
      call: runs it once.
      calls: how many times it is run.

    Returns:
      Seconds of one call by part and phase. Those of work on several threads at once add up, so
      that the sum may exceed the wall time.

    Raises:
      UserError: this is not a CPU, or the trace holds nothing of the program.
    """
    if jax.default_backend() != "cpu":
        raise UserError("Parts of a step are read from the trace of a CPU; this is another device.")
    jax.block_until_ready(call())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                jax.block_until_ready(call())
        traces = Path(folder).rglob("*.xplane.pb")
        events = [event for path in traces for event in _events(path)]
    found = tally(
        ((name, seconds / calls) for name, seconds in events), parts_of(program.as_text())
    )
    if not found:
        raise UserError("JAX's profiler wrote no trace of this program.")
    return found


def _events(path: Path) -> Iterable[tuple[str, float]]:
    """Reads the instructions that were run, and the seconds of each."""
    trace = jax.profiler.ProfileData.from_file(str(path))
    for plane in trace.planes:
        for line in plane.lines:
            for event in line.events:
                if "hlo_op" in dict(event.stats) and not event.name.startswith("end: "):
                    yield event.name, event.duration_ns / 1e9

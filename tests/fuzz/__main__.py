"""Runs the targets for some minutes and prints what became of their inputs.

Ends with status 1 where there was a traceback, a wrong edit or forged structure.
"""

import argparse
import os
import sys

import quick_compile

quick_compile.use()
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from .driver import run_all, table  # noqa: E402
from .targets import all_targets  # noqa: E402


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="names of targets, with commas between them")
    parser.add_argument("--start", type=int, default=0, help="number of the first input")
    parser.add_argument("--count", type=int, default=0, help="inputs of a target, whatever time")
    given = parser.parse_args()
    wanted = [name for name in given.only.split(",") if name]
    with all_targets(wanted) as targets:
        tallies = run_all(targets, given.seed, given.minutes, given.start, given.count)
    for tally in tallies.values():
        print(*tally.faults, sep="\n\n", end="\n\n" if tally.faults else "")
    print(table(tallies))
    return int(any(tally.failed for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())

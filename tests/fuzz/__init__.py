"""Feeds damaged and hostile inputs to whatever reads some: `python -m tests.fuzz --minutes=10`.

An input is made by its target's name, a seed and a number alone, so that every fault that is
reported can be made again with `--only=TARGET --start=NUMBER --count=1`.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # the helpers of the tests

"""The tiny model, for tests of this folder."""

import sys
from pathlib import Path

# The helpers here and above, in every import mode of pytest.
sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from tiny_model import tiny  # noqa: E402, F401

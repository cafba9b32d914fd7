"""The tiny model, for tests of this folder."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # in every import mode of pytest

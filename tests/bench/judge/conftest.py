"""The chat endpoint of these tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # in every import mode of pytest

from chat_server import server  # noqa: E402, F401

"""The chat template of a model, rendered within limits of time, memory and length.

A template is a program that comes with a model from anywhere. It runs in Jinja's sandbox, and that
in a process of its own (`chat_process.py`), which can be ended: here, a product of large numbers
could not even be interrupted.
"""

import atexit
import datetime
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from memr1_jax.models.hf.chat_process import MEMORY, SECONDS

_SCRIPT = Path(__file__).with_name("chat_process.py")
_KEPT = ("LD_LIBRARY_PATH", "TZ")  # of the environment, whose other variables may be secrets


def render_messages(
    tokenizer,
    messages: Sequence[tuple[str, str]],
    add_generation_prompt: bool = True,
    today: datetime.date | None = None,
    **variables,
) -> str:
    """Renders messages `(role, text)` with the chat template of a `transformers` tokenizer.

    `today` is what the template takes for the date, by default that of the day.

    Raises:
      ValueError: there is no template, or it fails, refuses the messages or exceeds the limits; the
        message is a reason in words.
    """
    template = tokenizer.get_chat_template()
    if not isinstance(template, str):
        raise ValueError("it is no text")
    special = {name: _plain(value) for name, value in tokenizer.special_tokens_map.items()}
    chat = [{"role": role, "content": text} for role, text in messages]
    variables = {"messages": chat, "tools": None, "documents": None} | special | variables
    variables["add_generation_prompt"] = add_generation_prompt
    day = today.isoformat() if today else None
    reply = _PROCESS.ask({"template": template, "variables": variables, "today": day})
    if "error" in reply:
        raise ValueError(reply["error"])
    return reply["text"]


class _Process:
    """Starts the process that renders when it is first needed, and after each time it ended."""

    def __init__(self):
        self._lock, self._child = threading.Lock(), None

    def ask(self, request: dict[str, Any]) -> dict[str, str]:
        """Sends one request and returns the reply."""
        line = json.dumps(request) + "\n"
        with self._lock:
            child = self._running() or self._start()
            try:
                child.stdin.write(line)
                child.stdin.flush()
                reply = child.stdout.readline()
            except BaseException as error:  # an interrupt too: what is read next is not its reply
                self.stop()
                if not isinstance(error, BrokenPipeError):
                    raise
                reply = ""
            if reply:
                return json.loads(reply)
            self.stop()
        limits = f"{SECONDS} seconds of computing or {MEMORY >> 20} MiB of memory"
        return {"error": f"it was ended as it needs more than {limits}"}

    def stop(self) -> None:
        """Ends the process."""
        if child := self._child:
            self._child = None
            child.kill()
            child.communicate()

    def _running(self) -> subprocess.Popen | None:
        if self._child and self._child.poll() is not None:
            self.stop()
        return self._child

    def _start(self) -> subprocess.Popen:
        self._child = child = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            encoding="utf-8",
            start_new_session=True,  # so that an interrupt at the keyboard does not end it
        )
        if not child.stdout.readline():
            self.stop()
            raise RuntimeError(f"{sys.executable} could not run {_SCRIPT}; see its output above.")
        return child


def _plain(value: Any) -> Any:
    """Returns a special token, or a list of them, as text."""
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


_PROCESS = _Process()
atexit.register(_PROCESS.stop)

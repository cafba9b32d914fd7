"""Drives a headless Chromium over its own protocol, by a pipe; nothing else is needed.

https://chromedevtools.github.io/devtools-protocol/ names the methods.
"""

import contextlib
import json
import os
import shutil
import subprocess
import time
from base64 import b64decode
from pathlib import Path

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 30


def find_chromium():
    """Returns the program; skips the test where there is none."""
    found = os.environ.get("MEMR1_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium: install one, or set MEMR1_CHROMIUM to its path")
    return found


class Page:
    """A page; `errors` are the exceptions and messages of its console, `requests` its addresses."""

    def __init__(self, commands, replies):
        self._commands, self._replies = commands, replies
        self._number, self._session, self._left = 0, None, b""
        self.errors, self.requests = [], []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, address):
        self._call("Page.navigate", url=address)
        there = f"location.href.startsWith({address!r})"
        self.until(f"document.readyState == 'complete' && {there}")

    def run(self, script):
        """Returns what an expression comes to; a promise is waited for."""
        more = {"returnByValue": True, "awaitPromise": True}
        reply = self._call("Runtime.evaluate", expression=script, **more)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def until(self, script):
        """Waits until an expression is true, and returns it."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(AssertionError):
                if found := self.run(script):
                    return found
            time.sleep(0.05)
        raise AssertionError(
            f"never true: {script}; {self.errors}; {self.run('document.body.innerText')}"
        )

    def type(self, selector, text):
        self.until(f"!!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).focus()")
        self._call("Input.insertText", text=text)

    def click(self, selector):
        self.until(f"!!document.querySelector({selector!r})")
        self.run(f"document.querySelector({selector!r}).click()")

    def picture(self, path, width=1100, height=1000):
        """Writes a picture of the page."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        Path(path).write_bytes(b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]
            self._note(reply)

    def _note(self, event):
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Log.entryAdded":
                self.errors.append(event["params"])
            case "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])

    def _next(self):
        while b"\0" not in self._left:
            chunk = os.read(self._replies, 1 << 16)
            assert chunk, "Chromium has ended"
            self._left += chunk
        message, _, self._left = self._left.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def chromium(folder):
    """Opens a page of a browser whose profile is in `folder`."""
    program = find_chromium()
    (read_end, commands), (replies, write_end) = os.pipe(), os.pipe()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={folder}"]

    def place():  # the browser reads from 3 and writes to 4
        os.dup2(read_end, 103)
        os.dup2(write_end, 104)
        os.dup2(103, 3)
        os.dup2(104, 4)

    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(
            [program, *flags], preexec_fn=place, close_fds=False, stdout=nowhere, stderr=nowhere
        )
    os.close(read_end)
    os.close(write_end)
    try:
        yield Page(commands, replies)
    finally:
        process.kill()
        process.wait()
        os.close(commands)
        os.close(replies)

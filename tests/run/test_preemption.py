"""Signals as a wish to end, in this process and in one of its own."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from memr1_jax.run.preemption import catch_termination


def _send(number):
    os.kill(os.getpid(), number)
    time.sleep(0)  # a Python handler runs between two instructions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_wish_until_it_is_read(number):
    with catch_termination() as stop:
        assert not stop.requested
        _send(number)
        assert stop.requested and stop.requested
    with catch_termination() as stop:
        assert not stop.requested


def test_only_a_second_ctrl_c_interrupts(capfd):
    with catch_termination() as stop:
        _send(signal.SIGTERM)
        _send(signal.SIGTERM)
        assert stop.requested and not capfd.readouterr().err
    with catch_termination() as stop:
        _send(signal.SIGINT)
        assert capfd.readouterr().err.count("Press Ctrl-C again to stop at once") == 1
        _send(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            _send(signal.SIGINT)
        assert stop.requested


@pytest.mark.parametrize("end", [None, RuntimeError])
def test_previous_handlers_return(end):
    seen = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    original = {number: signal.signal(number, lambda n, _: seen.append(n)) for number in numbers}
    try:
        try:
            with catch_termination():
                _send(signal.SIGTERM)
                if end:
                    raise end
        except RuntimeError:
            pass
        assert seen == []
        for number in numbers:
            _send(number)
        assert seen == list(numbers)
    finally:
        for number, handler in original.items():
            signal.signal(number, handler)


def test_all_processes_end_where_any_was_asked():
    others = iter([False, True, False])
    seen = []

    def agree(asked):
        seen.append(asked)
        return asked or next(others)

    with catch_termination(agree) as stop:
        assert not stop.requested
        assert stop.requested  # another process was asked
        _send(signal.SIGTERM)
        assert stop.requested
    assert seen == [False, False, True]


def test_other_threads_catch_nothing():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def run():
        with catch_termination() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(False, before)]


_CHILD = """
import sys, time
from memr1_jax.run.preemption import catch_termination

with catch_termination() as stop:
    for step in range(1000):
        print(step, flush=True)
        time.sleep(0.2)
        print("whole", step, flush=True)
        if stop.requested:
            print("saved", step, flush=True)
            sys.exit(0)
"""


def test_a_signalled_process_finishes_its_step_and_exits_0():
    child = subprocess.Popen([sys.executable, "-c", _CHILD], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "0\n"
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert out.splitlines() == ["whole 0", "saved 0"]
    assert child.returncode == 0


def test_a_process_that_is_interrupted_twice_ends_at_once():
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD.replace("time.sleep(0.2)", "time.sleep(300)")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "0\n"
        child.send_signal(signal.SIGINT)
        assert "again" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert out == "" and "KeyboardInterrupt" in err and child.returncode != 0

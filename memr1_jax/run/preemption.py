"""A run that is asked to end: signals set a flag that the loop reads after each step.

A preempted TPU gets SIGTERM and some thirty seconds. The signal changes nothing but a flag, so the
step under way ends as it would have, and the run can save what it has:

    with catch_termination() as stop:
        for step in range(start, steps):
            ...
            if stop.requested:
                save(...)
                raise Preempted(f"Saved step {step + 1} in {folder}. ... --resume ...")
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

_SECOND = "Stopping after this step. Press Ctrl-C again to stop at once, without saving.\n"


class Preempted(Exception):
    """The run was asked to end and has saved its state; the message says how to resume.

    Nothing is wrong: a command line prints the message and ends with status 0.
    """


class Termination:
    """Tells whether the run was asked to end; see `catch_termination`."""

    def __init__(self, agree: Callable[[bool], bool] | None):
        """Begins with nothing asked."""
        self._asked = False
        self._agree = agree

    @property
    def requested(self) -> bool:
        """Tells all processes, which must read it at the same step, whether to end now."""
        asked = self._asked
        return asked if self._agree is None else self._agree(asked)

    def _handle(self, number: int, _frame) -> None:
        again, self._asked = self._asked, True
        if number == signal.SIGINT:
            if again:
                raise KeyboardInterrupt
            os.write(2, _SECOND.encode())  # print might be interrupted by itself


@contextlib.contextmanager
def catch_termination(agree: Callable[[bool], bool] | None = None) -> Iterator[Termination]:
    """Turns SIGTERM, and the first SIGINT, into `requested`; a second SIGINT interrupts at once.

    Previous handlers return at the end. Outside of the main thread, where Python forbids handlers,
    nothing is caught. Enter it after `jax.distributed.initialize`, which has a handler of its own.

    Args:
      agree: with several processes, a function that all of them call at the same step and that
        says whether any was asked, since not all get the signal at the same step.
    """
    stop = Termination(agree)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            previous[number] = signal.signal(number, stop._handle)
        yield stop
    finally:
        for number, handler in previous.items():
            # None: the handler was not made by Python and cannot be had again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

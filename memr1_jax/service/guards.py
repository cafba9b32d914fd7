"""Limits who may ask a server, and how often: key, addresses, rate."""

import hmac
import math
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from memr1_jax.errors import UserError

MOST_BYTES = 4_000_000  # of a request
RATE = 100.0  # requests a second of one client
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BURST = 2.0  # seconds of the rate that a client may use at once
_MOST_CLIENTS = 10_000


def check_address(host: str, key: str) -> None:
    """Refuses an address that others can reach where no key guards it.

    Raises:
      UserError: it is such an address.
    """
    if host not in LOOPBACK and not key:
        raise UserError(
            f"--host={host} can be reached from other machines, so a key is needed: set"
            " MEMR1_API_KEY, or serve on 127.0.0.1."
        )


def has_key(headers: Any, key: str) -> bool:
    """Tells whether a request brings the key, where one is asked for."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() in ("bearer", "token") else ""
    given = headers.get("x-api-key") or bearer
    return not key or hmac.compare_digest(given.encode(), key.encode())


def from_elsewhere(headers: Any, key: str) -> bool:
    """Tells whether a page of another site sent a request through a browser of this machine.

    A browser names the site in `Origin`. Without a key the server's own name must be a loopback
    one too, as a name of another site may have been pointed at this machine.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    try:
        if origin is not None and urlsplit(origin).netloc != host:
            return True
        return not key and urlsplit(f"//{host}").hostname not in LOOPBACK
    except ValueError:  # no name of a host
        return True


class RateLimit:
    """Admits so many requests a second from each client, and short bursts above that."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic):
        """Begins to count; a rate of 0 admits everything."""
        self._rate, self._clock = rate, clock
        self._spent: dict[str, tuple[float, float]] = {}  # requests by client, as of a time

    def seconds_to_wait(self, client: str) -> int:
        """Counts a request of a client; returns 0 where it is admitted."""
        if not self._rate:
            return 0
        now, burst = self._clock(), max(1.0, _BURST * self._rate)
        spent, since = self._spent.pop(client, (0.0, now))
        spent = max(0.0, spent - self._rate * (now - since))
        admitted = spent + 1 <= burst
        self._spent[client] = spent + admitted, now
        if len(self._spent) > _MOST_CLIENTS:
            del self._spent[next(iter(self._spent))]  # the one that has been silent longest
        return 0 if admitted else math.ceil((spent + 1 - burst) / self._rate)

"""Sends one HTTP request: returns a status and a body, or what went wrong; never raises."""

import dataclasses
import email.utils
import logging
import time

import httpx2

_LARGEST_BODY = 1 << 22  # bytes; a verdict is short

# Their lines hold addresses, whose queries may be secret, and headers, in which a server may echo
# the key.
for _name in ("httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclasses.dataclass(frozen=True)
class Response:
    """A reply; `status` is 0 where none came, and `error` then says why.

    `retry_after` is in seconds, 0 where the server did not ask for a pause.
    """

    status: int
    body: bytes = b""
    error: str = ""
    retry_after: float = 0.0


def make_client(connections: int) -> httpx2.Client:
    """Returns a client that keeps `connections` connections open for further requests.

    It follows no redirection, so that a key reaches only the address it is meant for.
    """
    return httpx2.Client(
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},  # a small body stays small
        limits=httpx2.Limits(max_connections=connections),
    )


def post(
    client: httpx2.Client, address: str, data: bytes, headers: dict[str, str], timeout: float
) -> Response:
    """Sends one POST request and reads the reply within `timeout` seconds in all."""
    deadline = time.monotonic() + timeout
    options = {"content": data, "headers": headers, "timeout": timeout}
    try:
        with client.stream("POST", address, **options) as reply:
            status, pause = reply.status_code, retry_after(reply.headers)
            try:
                return Response(status, _read(reply, deadline), "", pause)
            except (httpx2.TransportError, TimeoutError):
                if status == 200:
                    raise
                return Response(status, b"", "", pause)  # the status says enough
    except (httpx2.TimeoutException, TimeoutError):
        return Response(0, error=f"no reply within {timeout:g} s")
    except httpx2.ConnectError as error:
        return Response(0, error=f"no connection ({error})")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return Response(0, error=f"the connection broke ({type(error).__name__})")


def _read(reply: httpx2.Response, deadline: float) -> bytes:
    """Reads the body; TimeoutError once the deadline has passed."""
    body = bytearray()
    for piece in reply.iter_raw():
        body += piece
        if time.monotonic() > deadline:  # httpx2 limits the time of each read alone
            raise TimeoutError
        if len(body) > _LARGEST_BODY:
            break
    return bytes(body)


def retry_after(headers) -> float:
    """Returns the seconds that a `Retry-After` header asks for, given as a number or as a date."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0

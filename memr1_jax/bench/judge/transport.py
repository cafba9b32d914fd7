"""One HTTP request: a status and a body, or in words what went wrong; never an exception."""

import dataclasses
import email.utils
import http.client
import time
import urllib.error
import urllib.request

_LARGEST_BODY = 1 << 22  # bytes; a verdict is short


@dataclasses.dataclass(frozen=True)
class Response:
    """What came back; `status` is 0 where nothing did, and `error` then says why.

    `retry_after` is in seconds, 0 where the server did not ask for a pause.
    """

    status: int
    body: bytes = b""
    error: str = ""
    retry_after: float = 0.0


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, so that a key reaches only the address it is meant for."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        return None


def post(address: str, data: bytes, headers: dict[str, str], timeout: float) -> Response:
    """Sends one POST request and reads the reply within `timeout` seconds in all."""
    deadline = time.monotonic() + timeout
    request = urllib.request.Request(address, data, headers, method="POST")
    opener = urllib.request.build_opener(_StayHere)
    try:
        with opener.open(request, timeout=timeout) as reply:
            return Response(reply.status, _read(reply, deadline))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, _read_rest(error, deadline), "", retry_after(error.headers))
    except TimeoutError:
        return Response(0, error=f"no reply within {timeout:g} s")
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            return Response(0, error=f"no reply within {timeout:g} s")
        return Response(0, error=f"no connection ({error.reason})")
    except (OSError, http.client.HTTPException) as error:
        return Response(0, error=f"the connection broke ({type(error).__name__})")


def _read(reply, deadline: float) -> bytes:
    """The body; TimeoutError where it comes so slowly that the time is over."""
    pieces, size = [], 0
    while piece := reply.read1(1 << 16):
        pieces.append(piece)
        size += len(piece)
        if time.monotonic() > deadline:
            raise TimeoutError
        if size > _LARGEST_BODY:
            break
    if getattr(reply, "length", None) and size <= _LARGEST_BODY:
        raise http.client.IncompleteRead(b"".join(pieces), reply.length)
    return b"".join(pieces)


def _read_rest(error, deadline: float) -> bytes:
    try:
        return _read(error.fp, deadline)
    except (OSError, http.client.HTTPException):
        return b""  # the status says enough


def retry_after(headers) -> float:
    """Seconds that a `Retry-After` header asks for, given as a number or as a date."""
    value = (headers.get("Retry-After") or "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0

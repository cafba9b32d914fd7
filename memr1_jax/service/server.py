"""The HTTP server: key, limits and counters around the routes."""

import hmac
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.json_files import loads
from memr1_jax.service.errors import Unknown
from memr1_jax.service.memory import Memory
from memr1_jax.service.routes import ROUTES, Handler, openapi

MOST_BYTES = 4_000_000  # of a request
LOOPBACK = ("127.0.0.1", "::1", "localhost")


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


def create_app(memory: Memory, key: str = "", most_bytes: int = MOST_BYTES) -> Any:
    """Makes the ASGI application.

    Args:
      memory: what it serves.
      key: what a request brings as `X-API-Key`, or as a bearer in `Authorization`; with an empty
        one none is asked for.
      most_bytes: of the body of a request.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
    from starlette.routing import Route

    counters = _Counters()

    def guarded(method: str, path: str, handler: Handler) -> Route:
        async def endpoint(request):
            start, status = time.perf_counter(), 500
            try:
                reply, status = await _reply(memory, key, most_bytes, handler, request)
                return JSONResponse(reply, status)
            finally:
                counters.count(f"{method} {path}", status, time.perf_counter() - start)

        return Route(path, endpoint, methods=[method])

    async def metrics(request):
        if not _allowed(request, key):
            return JSONResponse(*_NO_KEY)
        return PlainTextResponse(counters.text())

    async def health(_):
        return JSONResponse({"status": "ok"})

    async def document(_):
        return JSONResponse(openapi())

    async def index(_):
        return RedirectResponse("/openapi.json")

    open_to_all = {"/": index, "/docs": index, "/openapi.json": document, "/health": health}
    routes = [Route(path, endpoint) for path, endpoint in open_to_all.items()]
    routes += [Route("/metrics", metrics)]
    return Starlette(routes=[*routes, *(guarded(*route) for route in ROUTES)])


_NO_KEY = ({"detail": "Give the API key as X-API-Key or Authorization: Bearer KEY."}, 401)


def _allowed(request: Any, key: str) -> bool:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() in ("bearer", "token") else ""
    given = request.headers.get("x-api-key") or bearer
    return not key or hmac.compare_digest(given.encode(), key.encode())


async def _reply(
    memory: Memory, key: str, most_bytes: int, handler: Handler, request: Any
) -> tuple[Any, int]:
    """Returns a reply and its status."""
    from starlette.concurrency import run_in_threadpool

    if not _allowed(request, key):
        return _NO_KEY
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > most_bytes:
            return {"detail": f"A request has {most_bytes:,} bytes at most. Divide it."}, 413
    try:
        body = loads(bytes(received)) if received else {}
        if not isinstance(body, dict):
            raise ValueError("it is no object")
    except ValueError as error:
        return {"detail": f"The body must be a JSON object ({error})."}, 400
    call: Callable[[], Any] = lambda: handler(  # noqa: E731
        memory, dict(request.query_params), body, **request.path_params
    )
    try:
        return await run_in_threadpool(call), 200
    except Unknown as error:
        return {"detail": str(error)}, 404
    except UserError as error:
        return {"detail": str(error)}, 400


class _Counters:
    """Requests by route and status, and their seconds, as Prometheus reads them."""

    def __init__(self):
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: Counter[str] = Counter()

    def count(self, route: str, status: int, seconds: float) -> None:
        self._requests[route, status] += 1
        self._seconds[route] += seconds

    def text(self) -> str:
        lines = ["# TYPE memr1_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'memr1_requests_total{{route="{route}",status="{status}"}} {count}')
        lines.append("# TYPE memr1_request_seconds_total counter")
        for route, seconds in sorted(self._seconds.items()):
            lines.append(f'memr1_request_seconds_total{{route="{route}"}} {seconds:.6f}')
        return "\n".join(lines) + "\n"

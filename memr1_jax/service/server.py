"""The HTTP server: key, limits and counters around the routes."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from memr1_jax.errors import UserError
from memr1_jax.run.json_files import loads
from memr1_jax.service.errors import Unknown
from memr1_jax.service.guards import MOST_BYTES, RATE, RateLimit, from_elsewhere, has_key
from memr1_jax.service.inspector import page
from memr1_jax.service.memory import Memory
from memr1_jax.service.routes import ROUTES, Handler, openapi


def create_app(
    memory: Memory, key: str = "", most_bytes: int = MOST_BYTES, rate: float = RATE
) -> Any:
    """Makes the ASGI application.

    Args:
      memory: what it serves.
      key: what a request brings as `X-API-Key`, or as a bearer in `Authorization`; with an empty
        one none is asked for.
      most_bytes: of the body of a request.
      rate: requests a second that one client may make; 0 for any number.
    """
    from starlette.applications import Starlette
    from starlette.responses import (
        HTMLResponse,
        JSONResponse,
        PlainTextResponse,
        RedirectResponse,
    )
    from starlette.routing import Route

    counters, limit = _Counters(), RateLimit(rate)
    html, policy = page()

    def guarded(method: str, path: str, handler: Handler) -> Route:
        async def endpoint(request):
            start, status = time.perf_counter(), 500
            try:
                if refusal := _refusal(request, key, limit):
                    reply, status, headers = refusal
                    return JSONResponse(reply, status, headers)
                reply, status = await _reply(memory, most_bytes, handler, request)
                return JSONResponse(reply, status)
            finally:
                counters.count(f"{method} {path}", status, time.perf_counter() - start)

        return Route(path, endpoint, methods=[method])

    async def metrics(request):
        if refusal := _refusal(request, key, limit):
            return JSONResponse(*refusal)
        return PlainTextResponse(counters.text())

    async def health(_):
        return JSONResponse({"status": "ok"})

    async def document(_):
        return JSONResponse(openapi())

    async def docs(_):
        return RedirectResponse("/openapi.json")

    async def index(_):
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    open_to_all = {"/": index, "/docs": docs, "/openapi.json": document, "/health": health}
    routes = [Route(path, endpoint) for path, endpoint in open_to_all.items()]
    routes += [Route("/metrics", metrics)]
    return Starlette(routes=[*routes, *(guarded(*route) for route in ROUTES)])


def _refusal(request: Any, key: str, limit: RateLimit) -> tuple[dict, int, dict] | None:
    """Returns the reply, its status and headers, to a request that is not admitted."""
    client = request.client.host if request.client else ""
    if seconds := limit.seconds_to_wait(client):
        detail = f"Too many requests; try again in {seconds} s."
        return {"detail": detail}, 429, {"Retry-After": str(seconds)}
    if from_elsewhere(request.headers, key):
        detail = "This came by another site's page or name. Ask 127.0.0.1, or set MEMR1_API_KEY."
        return {"detail": detail}, 403, {}
    if not has_key(request.headers, key):
        detail = "Give the API key as X-API-Key or Authorization: Bearer KEY."
        return {"detail": detail}, 401, {}
    return None


async def _reply(
    memory: Memory, most_bytes: int, handler: Handler, request: Any
) -> tuple[Any, int]:
    """Returns a reply and its status."""
    from starlette.concurrency import run_in_threadpool

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

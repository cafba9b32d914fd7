"""Handlers of the HTTP routes: mem0's own and those that its hosted client calls.

A handler takes the memory, the query's parameters and the body, and returns what becomes JSON.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from memr1_jax.service.errors import Refused, Unknown
from memr1_jax.service.memory import Memory
from memr1_jax.service.scope import IDS, Scope
from memr1_jax.service.time_line import told

Handler = Callable[..., Any]
_PAGE = 100  # entries of a list
_MOST_EVENTS = 10_000


def _call(method: Callable[..., Any], given: Mapping[str, Any], **more: Any) -> Any:
    """Calls a method of `Memory` with what it knows of a body; the rest is mem0's own business."""
    parameters = inspect.signature(method).parameters
    known = {name for name, part in parameters.items() if part.kind != part.VAR_KEYWORD}
    if len(known) < len(parameters):
        known |= set(IDS)
    return method(**{name: value for name, value in given.items() if name in known} | more)


def add(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Adds messages."""
    if "messages" not in body:
        raise Refused("The body needs messages.")
    return _call(memory.add, body)


def add_hosted(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Adds messages for the hosted client, which may name the ids in filters."""
    filters = body.get("filters") or {}
    if not isinstance(filters, dict):
        raise Refused("filters must be an object.")
    return add(memory, query, {**{name: filters.get(name) for name in IDS}, **body})


def search(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Searches memories."""
    if "query" not in body:
        raise Refused("The body needs a query.")
    return _call(memory.search, body)


def list_all(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Lists memories by the parameters of the query."""
    given = dict(query)
    if "top_k" in given:
        given["top_k"] = _whole(given["top_k"], "top_k")
    if "show_expired" in given:
        given["show_expired"] = given["show_expired"].lower() in ("1", "true", "yes")
    return _call(memory.get_all, given)


def list_page(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Lists a page of memories, for the hosted client."""
    page = _whole(query.get("page", body.get("page", 1)), "page")
    size = _whole(query.get("page_size", body.get("page_size", _PAGE)), "page_size")
    if page < 1 or not 1 <= size <= 1000:
        raise Refused("page must be 1 or more, page_size from 1 to 1000.")
    found = _call(memory.get_all, body, top_k=page * size + 1)["results"]
    more = len(found) > page * size
    return {
        "count": len(found[: page * size]),
        "next": f"?page={page + 1}&page_size={size}" if more else None,
        "previous": f"?page={page - 1}&page_size={size}" if page > 1 else None,
        "results": found[(page - 1) * size : page * size],
    }


def get(memory: Memory, query: Mapping, body: Mapping, memory_id: str) -> Any:
    """Returns one memory."""
    found = memory.get(memory_id)
    if found is None:
        raise Unknown(f"There is no memory with the id {memory_id!r}.")
    return found


def update(memory: Memory, query: Mapping, body: Mapping, memory_id: str) -> Any:
    """Changes one memory."""
    return _call(memory.update, body, memory_id=memory_id)


def delete(memory: Memory, query: Mapping, body: Mapping, memory_id: str) -> Any:
    """Deletes one memory."""
    return memory.delete(memory_id)


def history(memory: Memory, query: Mapping, body: Mapping, memory_id: str) -> Any:
    """Lists the events of one memory."""
    return memory.history(memory_id)


def delete_all(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Deletes all memories under some ids."""
    return _call(memory.delete_all, query)


def reset(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Deletes everything."""
    memory.reset()
    return {"message": "All memories reset"}


def answer(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Answers a question."""
    if "query" not in body:
        raise Refused("The body needs a query.")
    return _call(memory.answer, body)


def undo(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Takes back an event, the last one of a memory, or a whole call of add."""
    return _call(memory.undo, body)


def retry(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Works again through what could not be read."""
    return _call(memory.retry, body)


def diff(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Compares two moments."""
    if "before" not in body:
        raise Refused("The body needs before, a moment.")
    return _call(memory.diff, body)


def stats(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Counts what the database holds."""
    return memory.stats()


def time_line(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Lists what was said and what became of it, oldest first; `top_k` are the latest events."""
    most = _whole(query.get("top_k", _PAGE), "top_k")
    if not 1 <= most <= _MOST_EVENTS:
        raise Refused(f"top_k={most} must be from 1 to {_MOST_EVENTS:,}.")
    scope = Scope.of(**{name: query.get(name) for name in IDS})
    return {"results": told(memory.store, scope, most)}


def ping(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Tells the hosted client that its key is right; it wants an organisation and a project."""
    return {"status": "ok", "org_id": "memr1", "project_id": "memr1", "user_email": None}


def entities(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Lists users, agents and runs with the number of their memories."""
    counts: dict[tuple[str, str], int] = {}
    for scope, count in memory.store.scopes():
        for name, value in scope.given.items():
            key = name.removesuffix("_id"), value
            counts[key] = counts.get(key, 0) + count
    found = [
        {"id": value, "name": value, "type": kind, "total_memories": count}
        for (kind, value), count in sorted(counts.items())
    ]
    return {"count": len(found), "next": None, "previous": None, "results": found}


def delete_entity(memory: Memory, query: Mapping, body: Mapping, kind: str, name: str) -> Any:
    """Deletes all memories of a user, an agent or a run."""
    if f"{kind}_id" not in IDS:
        raise Unknown(f"There are no entities of the type {kind!r}.")
    return memory.delete_all(**{f"{kind}_id": name})


def batch_update(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Changes several memories."""
    for item in _batch(body):
        _call(memory.update, item)
    return {"message": f"Successfully updated {len(_batch(body))} memories"}


def batch_delete(memory: Memory, query: Mapping, body: Mapping) -> Any:
    """Deletes several memories."""
    for item in _batch(body):
        memory.delete(item["memory_id"])
    return {"message": f"Successfully deleted {len(_batch(body))} memories"}


def _batch(body: Mapping) -> list[Mapping]:
    items = body.get("memories")
    if not isinstance(items, list) or not all(
        isinstance(item, dict) and isinstance(item.get("memory_id"), str) for item in items
    ):
        raise Refused('The body needs memories, a list of {"memory_id": ...}.')
    return items


def _whole(value: Any, name: str) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise Refused(f"{name}={value!r} must be a whole number.") from error


_OWN = (
    ("POST", "/memories", add),
    ("GET", "/memories", list_all),
    ("DELETE", "/memories", delete_all),
    ("GET", "/memories/{memory_id}", get),
    ("PUT", "/memories/{memory_id}", update),
    ("DELETE", "/memories/{memory_id}", delete),
    ("GET", "/memories/{memory_id}/history", history),
    ("POST", "/search", search),
    ("POST", "/answer", answer),
    ("POST", "/undo", undo),
    ("POST", "/retry", retry),
    ("POST", "/diff", diff),
    ("GET", "/stats", stats),
    ("GET", "/timeline", time_line),
    ("POST", "/reset", reset),
)
_HOSTED = (
    ("GET", "/v1/ping/", ping),
    ("POST", "/v3/memories/add/", add_hosted),
    ("POST", "/v3/memories/search/", search),
    ("POST", "/v3/memories/", list_page),
    ("DELETE", "/v1/memories/", delete_all),
    ("GET", "/v1/memories/{memory_id}/", get),
    ("PUT", "/v1/memories/{memory_id}/", update),
    ("DELETE", "/v1/memories/{memory_id}/", delete),
    ("GET", "/v1/memories/{memory_id}/history/", history),
    ("GET", "/v1/entities/", entities),
    ("DELETE", "/v2/entities/{kind}/{name}/", delete_entity),
    ("PUT", "/v1/batch/", batch_update),
    ("DELETE", "/v1/batch/", batch_delete),
)
ROUTES: tuple[tuple[str, str, Handler], ...] = (*_OWN, *_HOSTED)


def openapi() -> dict[str, Any]:
    """Describes the routes as an OpenAPI document."""
    from memr1_jax import __version__

    paths: dict[str, Any] = {}
    for method, path, handler in ROUTES:
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        operation: dict[str, Any] = {
            "summary": handler.__doc__.splitlines()[0],
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in names
            ],
            "responses": {"200": {"description": "The reply, as JSON."}},
        }
        if method in ("POST", "PUT"):
            content = {"application/json": {"schema": {"type": "object"}}}
            operation["requestBody"] = {"content": content}
        paths.setdefault(path, {})[method.lower()] = operation
    info = {"title": "memr1 memory", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths}

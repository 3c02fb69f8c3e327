"""What the holder of a key may ask for, by the key's role.

An admin may do everything. A client submits, reads and changes runs and definitions. A worker does
what a worker does, in the name of the workers that its key is for, and sees the runs that these
hold or held.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, cast

from fastapi import HTTPException
from starlette.datastructures import QueryParams
from starlette.types import Scope

from gyoza.server.keyring import Key, Role
from gyoza.server.plain_json import JsonBody

ALLOWED: dict[Role, tuple[tuple[str, str], ...]] = {
    Role.CLIENT: (
        ("GET", r"/(runs|definitions|workers)(/[^/]+)?"),
        ("GET", r"/runs/[^/]+/(attempts|logs)"),
        ("GET", r"/events"),
        ("POST", r"/(runs|definitions)"),
        ("POST", r"/definitions/[^/]+/runs"),
        ("POST", r"/runs/[^/]+/(cancel|retry|events)"),
        ("PATCH", r"/runs/[^/]+"),
        ("DELETE", r"/definitions/[^/]+"),
    ),
    Role.WORKER: (
        ("POST", r"/workers/heartbeat"),
        ("POST", r"/workers/(?P<worker>[^/]+)/claim"),
        ("GET", r"/workers/(?P<worker>[^/]+)/changes"),
        ("GET", r"/workers(/[^/]+)?"),
        ("POST", r"/runs/[^/]+/(events|events/batch|logs|release)"),
        ("PUT", r"/runs/[^/]+/logs"),
        ("GET", r"/runs/(?P<run>[^/]+)"),
    ),
}

WorkersOf = Callable[[str], Awaitable[set[str] | None]]
"""Returns the ids of the workers that hold or held a run; None for a run that there is not."""


async def refusal(key: Key, scope: Scope, body: JsonBody, workers_of: WorkersOf) -> str | None:
    """Return why the holder of the key may not have this request, or None if he may."""
    if key.role == Role.ADMIN:
        return None
    method, path = scope["method"], scope["path"]
    match = next(
        (
            found
            for allowed, pattern in ALLOWED[key.role]
            if allowed == method and (found := re.fullmatch(pattern, path))
        ),
        None,
    )
    if match is None:
        return f"A key of role {key.role} may not {method} {path[:80]!a}; use one of another role."
    if key.role == Role.CLIENT:
        reports = path.endswith("/events") and method == "POST"
        named = reports and await _field(body, "worker_id")
        return "Only a worker's key may report for a worker." if named else None
    return await _worker_refusal(key, scope, match, body, workers_of)


async def _worker_refusal(
    key: Key, scope: Scope, match: re.Match[str], body: JsonBody, workers_of: WorkersOf
) -> str | None:
    parts = match.groupdict()
    if scope["method"] in ("POST", "PUT"):
        worker = parts.get("worker") or await _named(scope, body)
        if not key.is_for(worker):
            return f"This key is for workers {key.worker!a}, not for {str(worker)[:80]!a}."
    elif "worker" in parts and not key.is_for(parts["worker"]):
        return f"This key is for workers {key.worker!a}, not for {parts['worker'][:80]!a}."
    elif "run" in parts:
        workers = await workers_of(parts["run"])
        if workers is not None and not any(map(key.is_for, workers)):
            return f"The run is none of workers {key.worker!a}, which this key is for."
    return None


async def _named(scope: Scope, body: JsonBody) -> Any:
    """Return the worker in whose name something is sent."""
    if scope["method"] == "PUT":
        return QueryParams(scope["query_string"]).get("worker_id")
    return await _field(body, "worker_id")


async def _field(body: JsonBody, name: str) -> Any:
    """Return a field of a JSON object, or None: the route says what is wrong with the body."""
    try:
        data = await body.value()
    except (ValueError, HTTPException):
        return None
    return cast("dict[str, Any]", data).get(name) if isinstance(data, dict) else None

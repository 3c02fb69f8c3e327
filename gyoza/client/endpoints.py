"""Every endpoint of the server but that of log streams, described once for both clients.

Each function turns its arguments into a `Call`; a client sends it. Results are the server's JSON,
as `gyoza.models` types read it with `from_dict`.
"""

import uuid
from typing import Any
from urllib.parse import quote

from gyoza.client.call import SMALL, Call
from gyoza.client.parse import (
    Json,
    Page,
    a_list,
    a_page,
    an_object,
    claimed_runs,
    news,
    nothing,
    taken,
)
from gyoza.client.retry import CONNECT, NEVER, REPORT

PLAIN = {"Content-Type": "text/plain; charset=utf-8"}
MINIMAL = {"Prefer": "return=minimal"}


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value is not None}


def _path(*parts: str) -> str:
    return "/" + "/".join(quote(part, safe="") for part in parts)


def health() -> Call[Json]:
    """Return the server's health; the one call without an API key."""
    return Call("GET", "/health", an_object, max_bytes=SMALL)


def upsert_definition(op_dict: Json) -> Call[Json]:
    """Create or replace a definition; takes `OpDefinition.to_dict()`."""
    return Call("POST", "/definitions", an_object, body=op_dict)


def get_definition(name: str, version: str | None = None) -> Call[Json]:
    """Return a definition, the latest version unless one is named."""
    return Call("GET", _path("definitions", name), an_object, params=_given(version=version))


def list_definitions(*, starting_after: str | None = None) -> Call[Page]:
    """Return all versions of all definitions; pages are put together by the client."""
    params = _given(starting_after=starting_after)
    return Call("GET", "/definitions", a_page, params=params)


def delete_definition(name: str, version: str | None = None) -> Call[None]:
    """Delete a version of a definition, or all of them; runs that were made of it stay."""
    params = _given(version=version)
    path = _path("definitions", name)
    return Call("DELETE", path, nothing, params=params, retry=CONNECT, max_bytes=SMALL)


def create_run(
    image: str,
    inputs: Json,
    *,
    priority: int = 5,
    constraints: Json | None = None,
    retry_policy: Json | None = None,
    event_delivery: Json | None = None,
    command: list[str] | None = None,
    env_vars: dict[str, str] | None = None,
    secrets: list[str] | None = None,
    tags: list[str] | None = None,
    timeout_s: float | None = None,
    grace_s: float | None = None,
    idempotency_key: str | None = None,
) -> Call[Json]:
    """Create an ad-hoc run; a repeated `idempotency_key` answers with the same run.

    `secrets` names those of `env_vars` whose values no answer shows and no log holds.
    `timeout_s` and `grace_s` are seconds: how long the container may run, and how long it has
    between the stop signal and SIGKILL, its worker's own setting unless given.
    """
    body = _given(
        image=image,
        inputs=inputs,
        priority=priority,
        constraints=constraints,
        retry_policy=retry_policy,
        event_delivery=event_delivery,
        command=command,
        env_vars=env_vars,
        secrets=secrets,
        tags=tags,
        timeout_s=timeout_s,
        grace_s=grace_s,
    )
    return Call("POST", "/runs", an_object, body=body, headers=_idempotent(idempotency_key))


def create_run_from_definition(
    name: str,
    inputs: Json,
    *,
    version: str | None = None,
    priority: int = 5,
    event_delivery: Json | None = None,
    idempotency_key: str | None = None,
) -> Call[Json]:
    """Create a run of a definition; 404 if there is none, 400 if the inputs do not fit.

    `event_delivery` takes the place of the definition's.
    """
    body = _given(inputs=inputs, priority=priority, version=version, event_delivery=event_delivery)
    path = _path("definitions", name, "runs")
    return Call("POST", path, an_object, body=body, headers=_idempotent(idempotency_key))


def _idempotent(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key or uuid.uuid4().hex}


def list_runs(
    *,
    limit: int | None = None,
    starting_after: str | None = None,
    ending_before: str | None = None,
    state: str | None = None,
    op_definition: str | None = None,
    image: str | None = None,
    topic: str | None = None,
    id_prefix: str | None = None,
) -> Call[Json]:
    """Return `{"data": [run], "has_more": bool}`, newest first, or those whose ids begin so."""
    params = _given(
        limit=limit,
        starting_after=starting_after,
        ending_before=ending_before,
        state=state,
        op_definition=op_definition,
        image=image,
        topic=topic,
        id_prefix=id_prefix,
    )
    return Call("GET", "/runs", an_object, params=params)


def get_run(
    run_id: str, *, after_event: int | None = None, until_end: bool = False, wait_s: float = 0.0
) -> Call[Json]:
    """Return a run, at the latest after `wait_s`.

    With `until_end` it comes once the run has ended, with `after_event` once it has a later event:
    then without earlier events and inputs, and with outputs only once it has ended.
    """
    params = _given(after_event=after_event, until_end=until_end or None, wait_s=wait_s or None)
    return Call("GET", _path("runs", run_id), an_object, params=params, wait_s=wait_s)


def get_attempts(run_id: str) -> Call[list[Json]]:
    """Return the run's attempts, oldest first; their `inputs`, `outputs`, `events` are empty."""
    return Call("GET", _path("runs", run_id, "attempts"), a_list)


def update_run(
    run_id: str,
    *,
    state: str | None = None,
    outputs: Json | None = None,
    priority: int | None = None,
) -> Call[Json]:
    """Change some fields of a run; 400 for a transition that does not exist."""
    body = _given(state=state, outputs=outputs, priority=priority)
    return Call("PATCH", _path("runs", run_id), an_object, body=body, retry=CONNECT)


def cancel_run(run_id: str) -> Call[Json]:
    """Cancel a run that has not ended; again is harmless."""
    return Call("POST", _path("runs", run_id, "cancel"), an_object)


def retry_run(run_id: str) -> Call[Json]:
    """Queue a failed or cancelled run once more."""
    return Call("POST", _path("runs", run_id, "retry"), an_object, retry=CONNECT)


def add_event(
    run_id: str,
    event_type: str,
    msg: str | int,
    payload: Json | None = None,
    *,
    worker_id: str | None = None,
    attempt: int | None = None,
    seq: int | None = None,
    summary: Json | None = None,
    minimal: bool = False,
) -> Call[Json]:
    """Append an event to the current attempt and return the run.

    STARTED, COMPLETED, FAILED and CANCELLED move the run's state. With `seq`, which counts up
    within the attempt, repeats are harmless and the call is retried. `summary` goes with the events
    that end an attempt: the known fields of an `ExecutionSummary`. With `minimal` the answer need
    hold no more of the run than its id, state and attempt.
    """
    body = _given(
        type=event_type,
        msg=msg,
        payload=payload,
        worker_id=worker_id,
        attempt=attempt,
        seq=seq,
        summary=summary,
    )
    retry = CONNECT if seq is None else REPORT
    headers = MINIMAL if minimal else {}
    path = _path("runs", run_id, "events")
    return Call("POST", path, taken, body=body, headers=headers, retry=retry)


def add_events(run_id: str, events: list[Json], *, worker_id: str, attempt: int) -> Call[Json]:
    """Append INFO, ERROR and PROGRESS of an attempt, all of them or none; repeats are harmless.

    Each is `{"type", "msg", "payload", "seq"}`, as of `add_event`, and `seq` counts up.
    """
    body: Json = {"worker_id": worker_id, "attempt": attempt, "events": events}
    return Call("POST", _path("runs", run_id, "events", "batch"), taken, body=body, retry=REPORT)


def append_logs(
    run_id: str,
    offset: int,
    data: str,
    *,
    worker_id: str | None = None,
    attempt: int | None = None,
    final: bool = False,
) -> Call[Json]:
    """Append log text at `offset`, counted in UTF-8 bytes; repeats are harmless.

    With `final` the attempt's log is whole after this text, which may be empty.
    """
    final_or_none = final or None  # a small server need not know the word
    body = _given(
        offset=offset, data=data, worker_id=worker_id, attempt=attempt, final=final_or_none
    )
    return Call("POST", _path("runs", run_id, "logs"), taken, body=body, retry=REPORT)


def put_logs(
    run_id: str,
    offset: int,
    text: str,
    *,
    worker_id: str | None = None,
    attempt: int | None = None,
    final: bool = False,
) -> Call[Json]:
    """Do the same as `append_logs`, in fewer steps for much text."""
    params = _given(offset=offset, worker_id=worker_id, attempt=attempt, final=final or None)
    path = _path("runs", run_id, "logs")
    return Call("PUT", path, taken, text=text, params=params, headers=PLAIN, retry=REPORT)


def get_events(
    topic: str, *, after: str | None = None, wait_s: float = 0.0, limit: int | None = None
) -> Call[Json]:
    """Return `{"data": [event], "cursor"}` of a topic's feed, in order and without gaps."""
    params = _given(topic=topic, after=after, wait_s=wait_s or None, limit=limit)
    return Call("GET", "/events", an_object, params=params, wait_s=wait_s)


def heartbeat(
    worker_id: str,
    resources: Json,
    tags: list[str] | None = None,
    running_ops: list[Json] | None = None,
    **more: Any,
) -> Call[Json]:
    """Register or renew a worker; takes `**WorkerContext.to_heartbeat_payload()`.

    `more` are fields for servers that know them: `draining`, `engine` ("ok", "unavailable"), `disk`
    ("ok", "low") and others. The answer is `{"lease_s", "states": {run id: state}, "drain"}`, or
    less from a small server.
    """
    body = {
        "worker_id": worker_id,
        "resources": resources,
        "tags": tags or [],
        "running_ops": running_ops or [],
        **more,
    }
    return Call("POST", "/workers/heartbeat", news, body=body, retry=NEVER, max_bytes=SMALL)


def claim(
    worker_id: str, *, max_runs: int = 1, wait_s: float = 0.0, holding: list[str] | None = None
) -> Call[list[Json]]:
    """Claim up to `max_runs`; waits up to `wait_s` for one.

    `holding` names the runs the worker has; others ASSIGNED to it come back in the answer.
    """
    body = _given(max_runs=max_runs, wait_s=wait_s, holding=holding)
    path = _path("workers", worker_id, "claim")
    return Call(
        "POST",
        path,
        claimed_runs,
        body=body,
        retry=NEVER,
        wait_s=wait_s,
    )


def get_changes(worker_id: str, *, after: str | None = None, wait_s: float = 0.0) -> Call[Json]:
    """Return `{"states": {run id: state}, "cursor"}` once others changed a run the worker holds."""
    params = _given(after=after, wait_s=wait_s or None)
    path = _path("workers", worker_id, "changes")
    return Call("GET", path, news, params=params, retry=NEVER, wait_s=wait_s, max_bytes=SMALL)


def release_run(
    run_id: str, *, worker_id: str, attempt: int, reason: str, minimal: bool = False
) -> Call[Json]:
    """Give a run back, to be claimed by another worker; again is harmless.

    With `minimal` the answer need hold no more of the run than its id, state and attempt.
    """
    body = {"worker_id": worker_id, "attempt": attempt, "reason": reason}
    headers = MINIMAL if minimal else {}
    path = _path("runs", run_id, "release")
    return Call("POST", path, taken, body=body, headers=headers, retry=REPORT)


def list_workers(*, starting_after: str | None = None) -> Call[Page]:
    """Return all workers the server knows; pages are put together by the client."""
    params = _given(starting_after=starting_after)
    return Call("GET", "/workers", a_page, params=params)


def get_worker(worker_id: str) -> Call[Json]:
    """Return one worker."""
    return Call("GET", _path("workers", worker_id), an_object)


def forget_worker(worker_id: str) -> Call[None]:
    """Forget a worker that has ended or is lost; 409 for another one."""
    return Call("DELETE", _path("workers", worker_id), nothing, retry=CONNECT)


def drain_worker(worker_id: str) -> Call[Json]:
    """Give the worker no more runs; those it has go on."""
    return Call("POST", _path("workers", worker_id, "drain"), an_object)


def resume_worker(worker_id: str) -> Call[Json]:
    """End a drain."""
    return Call("POST", _path("workers", worker_id, "resume"), an_object)


def create_key(
    name: str,
    role: str,
    *,
    worker: str | None = None,
    tags: list[str] | None = None,
    max_runs: int | None = None,
    ttl_s: float | None = None,
) -> Call[Json]:
    """Make a key of role admin, client or worker; the answer alone holds the `key` itself.

    For role worker, `worker` is the pattern of the ids of the workers it is for, as `gpu-*`; `tags`
    are the tags that they may have, as patterns, and `max_runs` is how many runs they may have at a
    time, together. After `ttl_s` seconds the key expires.
    """
    body = _given(name=name, role=role, worker=worker, tags=tags, max_runs=max_runs, ttl_s=ttl_s)
    return Call("POST", "/keys", an_object, body=body, retry=CONNECT)


def list_keys() -> Call[list[Json]]:
    """Return all keys but the server's own, without the keys themselves."""
    return Call("GET", "/keys", a_list)


def revoke_key(key_id: str) -> Call[list[Json]]:
    """Revoke a key; return those that are left."""
    return Call("DELETE", _path("keys", key_id), a_list, retry=CONNECT)

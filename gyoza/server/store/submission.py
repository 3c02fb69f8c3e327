"""Submitting runs, each request once."""

import uuid
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from gyoza.models import OpRun, OpRunState
from gyoza.models.limits import MIB, SPEC_BYTES
from gyoza.server.errors import Conflict, Full
from gyoza.server.json_text import write_text
from gyoza.server.store.database import Tx
from gyoza.server.store.kinds import kind_of, refresh
from gyoza.server.store.runs import Json, RunRow, find_row
from gyoza.server.store.schema import deliveries, run_data, runs
from gyoza.server.store.texts import Stored, give_to_run
from gyoza.server.wakeups import CLAIMS

KEPT = (
    "command",
    "env_vars",
    "secrets",
    "timeout_s",
    "grace_s",
    "retry_policy",
    "event_delivery",
)
"""What of a run goes into `run_data.spec`."""


# Statements of every request are made once: to make one costs as much as to execute it.
_INSERT, _INSERT_DATA, _INSERT_DELIVERY = insert(runs), insert(run_data), insert(deliveries)


@dataclass(frozen=True)
class Once:
    """A request that is to be done once, however often it is made.

    Attributes:
        name: Its Idempotency-Key, behind the id of the API key and the operation: each has names
            of its own.
        digest: SHA-256 of what it asks for.
    """

    name: str
    digest: bytes


def create_run(
    tx: Tx,
    asked: OpRun,
    inputs: Stored,
    once: Once | None = None,
) -> RunRow:
    """Store a new run and return it; for a request that was done before, return its run.

    Args:
        tx: The transaction.
        asked: The run, without its inputs.
        inputs: Its inputs.
        once: Names the request, so that it is done once only.

    Raises:
        Conflict: If another request has the same name.
        Full: If what it is made with, its inputs aside, is too large.
    """
    if once and (known := find_made(tx.conn, once)):
        return known
    run_id = uuid.uuid4().hex
    all_of_it = asked.to_dict()
    spec = write_text({name: all_of_it[name] for name in KEPT})
    spec_bytes = len(spec.encode())
    if spec_bytes > SPEC_BYTES:
        raise Full(f"A run is made with {SPEC_BYTES // MIB} MiB at most, its inputs aside.")
    row: Json = {
        "id": run_id,
        "idempotency_key": once.name if once else None,
        "request_digest": once.digest if once else None,
        "created_by": tx.author,
        "state": OpRunState.PENDING,
        "priority": asked.priority,
        "image": asked.image,
        "op_definition": asked.op_definition,
        "topic": asked.event_delivery.topic,
        "constraints": all_of_it["constraints"],
        "tags": asked.tags,
        "kind_id": kind_of(tx, asked.constraints, asked.tags),
        "max_attempts": asked.retry_policy.max_attempts,
        "backoff_s": asked.retry_policy.backoff_s,
        "spec_bytes": spec_bytes,
        "inputs_bytes": inputs.size,
        "summary": {},
        "created_at": tx.now,
        "updated_at": tx.now,
    }
    tx.conn.execute(_INSERT, row)
    data: Json = {"run_id": run_id, "spec": spec, "inputs": inputs.column, "outputs": {}}
    tx.conn.execute(_INSERT_DATA, data)
    give_to_run(tx, inputs.column, run_id)
    if asked.event_delivery.topic:
        attributes = asked.event_delivery.attributes
        tx.conn.execute(_INSERT_DELIVERY, {"run_id": run_id, "attributes": attributes})
    refresh(tx, row["kind_id"])
    tx.wake.add(CLAIMS)
    return find_row(tx.conn, run_id)


def find_made(conn: Connection, once: Once) -> RunRow | None:
    """Return the run that a request has made, if it was done before.

    Raises:
        Conflict: If another request has the same name.
    """
    row = conn.execute(select(runs).where(runs.c.idempotency_key == once.name)).one_or_none()
    if row and row.request_digest not in (once.digest, None):
        raise Conflict(
            "This Idempotency-Key was used for another request; use a new one for a new run."
        )
    return row

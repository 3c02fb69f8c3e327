"""The API keys besides the server's own: what is kept of them is no key."""

from collections.abc import Mapping

from sqlalchemy import Connection, insert, select, update

from gyoza.server.errors import NotFound
from gyoza.server.keyring import Key, Role
from gyoza.server.store.database import Tx
from gyoza.server.store.schema import api_keys, attempts, runs


def add_key(tx: Tx, key: Key) -> None:
    """Store a new key."""
    tx.conn.execute(
        insert(api_keys).values(
            id=key.id,
            name=key.name,
            role=key.role,
            worker=key.worker,
            digest=key.digest,
            created_at=key.created_at,
            tags=key.tags,
            max_runs=key.max_runs,
            expires_at=key.expires_at,
        )
    )


def revoke_key(tx: Tx, key_id: str, now: float) -> None:
    """Make a key good no more.

    Raises:
        NotFound: If there is no good key of this id.
    """
    good = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
    if tx.conn.execute(update(api_keys).where(good).values(revoked_at=now)).rowcount == 0:
        raise NotFound(f"There is no key {key_id}; `gyoza keys list` shows all.")


def note_use(tx: Tx, used: Mapping[str, float]) -> None:
    """Store when keys were last used, by their ids."""
    for key_id, moment in used.items():
        mine = update(api_keys).where(api_keys.c.id == key_id)
        tx.conn.execute(mine.values(last_used_at=moment))


def good_keys(conn: Connection) -> list[Key]:
    """Return the keys that are not revoked, oldest first, also those that have expired."""
    found = conn.execute(
        select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.created_at)
    )
    return [
        Key(
            id=row.id,
            name=row.name,
            role=Role(row.role),
            worker=row.worker,
            digest=row.digest,
            created_at=row.created_at,
            tags=None if row.tags is None else tuple(row.tags),
            max_runs=row.max_runs,
            expires_at=row.expires_at,
            last_used_at=row.last_used_at,
        )
        for row in found
    ]


def workers_of_run(conn: Connection, run_id: str) -> set[str] | None:
    """Return the workers that hold or held a run; None if there is no such run."""
    if conn.scalar(select(runs.c.seq).where(runs.c.id == run_id)) is None:
        return None
    found = conn.execute(select(attempts.c.worker_id).where(attempts.c.run_id == run_id))
    return {row.worker_id for row in found if row.worker_id is not None}

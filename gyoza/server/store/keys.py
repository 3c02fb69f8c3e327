"""The API keys besides the server's own: what is kept of them is no key."""

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


def good_keys(conn: Connection) -> list[Key]:
    """Return the keys that are not revoked, oldest first."""
    found = conn.execute(
        select(api_keys).where(api_keys.c.revoked_at.is_(None)).order_by(api_keys.c.created_at)
    )
    return [
        Key(row.id, row.name, Role(row.role), row.worker, row.digest, row.created_at)
        for row in found
    ]


def workers_of_run(conn: Connection, run_id: str) -> set[str] | None:
    """Return the workers that hold or held a run; None if there is no such run."""
    if conn.scalar(select(runs.c.seq).where(runs.c.id == run_id)) is None:
        return None
    found = conn.execute(select(attempts.c.worker_id).where(attempts.c.run_id == run_id))
    return {row.worker_id for row in found if row.worker_id is not None}

"""Shell completion of ids that the server knows: best effort, silent when it does not answer."""

from collections.abc import Callable
from typing import Any


def _ids(fetch: Callable[[Any], list[dict[str, Any]]], incomplete: str) -> list[str]:
    from gyoza.client import ApiError, ClientError, GyozaClient

    try:
        with GyozaClient(None, timeout=1.0) as client:
            ids = [str(item.get("id") or item.get("worker_id")) for item in fetch(client)]
    except (ApiError, ClientError):
        return []
    return sorted({name for name in ids if name.startswith(incomplete)})


def run_ids(incomplete: str) -> list[str]:
    """Return ids of the newest runs."""
    return _ids(lambda client: client.list_runs(limit=100).get("data", []), incomplete)


def worker_ids(incomplete: str) -> list[str]:
    """Return ids of the workers."""
    return _ids(lambda client: client.list_workers(), incomplete)


def definition_names(incomplete: str) -> list[str]:
    """Return names of the definitions."""
    return _ids(lambda client: client.list_definitions(), incomplete)


OF: dict[str, Callable[[str], list[str]]] = {
    "run id": run_ids,
    "worker id": worker_ids,
    "definition name": definition_names,
}
"""By what is to be completed."""

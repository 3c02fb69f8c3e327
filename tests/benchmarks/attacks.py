"""Requests with a good key that cost a server the most: `python -m tests.benchmarks.attacks`.

A process of its own, so that the one that measures has the interpreter to itself.
"""

import json
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import httpx

MB = 1024 * 1024
AT_ONCE = 4

Request = tuple[str, str, bytes]
"""Method, path and body."""


def _many(value: bytes, count: int = 990_000) -> bytes:
    return b'{"image":"a","inputs":{"a":[%b]}}' % b",".join([value] * count)


def _names(count: int) -> dict[str, int]:
    return {f"name{number}": number for number in range(count)}


def _submit(body: Any) -> Callable[[httpx.Client], Request]:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return lambda _client: ("POST", "/runs", data)


def _outputs(client: httpx.Client) -> Request:
    run = _started(client)
    return "PATCH", f"/runs/{run}", json.dumps({"outputs": _names(400_000)}).encode()


def _large_run(client: httpx.Client) -> Request:
    run = client.post("/runs", content=_many(b"[]")).json()["id"]
    return "GET", f"/runs/{run}", b""


def _large_list(client: httpx.Client) -> Request:
    variables = {f"V{number}": "v" * 900 for number in range(900)}
    body = {"image": "a", "env_vars": variables, "secrets": list(variables)}
    for _ in range(60):
        client.post("/runs", json=body)
    return "GET", "/runs?limit=500", b""


def _log(client: httpx.Client) -> Request:
    run = _started(client)
    body = {"offset": 0, "data": "é," * (5 * MB)}
    return "POST", f"/runs/{run}/logs", json.dumps(body, ensure_ascii=False).encode()


def _heartbeat(_client: httpx.Client) -> Request:
    ops = [{"id": f"{number:032}", "image": "a"} for number in range(1_000)]
    return "POST", "/workers/heartbeat", json.dumps({"worker_id": "b", "running_ops": ops}).encode()


def _feed(client: httpx.Client) -> Request:
    run = _started(client, event_delivery={"topic": "t", "attributes": {"a": "x" * 16_000}})
    for _ in range(1_000):
        client.post(f"/runs/{run}/events", json={"type": "INFO"})
    return "GET", "/events?topic=t&limit=1000", b""


def _started(client: httpx.Client, **more: Any) -> str:
    run: str = client.post("/runs", json={"image": "a", **more}).json()["id"]
    client.post(f"/runs/{run}/events", json={"type": "STARTED"})
    return run


ATTACKS: dict[str, Callable[[httpx.Client], Request]] = {
    "a million values": _submit(_many(b"[]")),
    "too many values": _submit(_many(b"[]", 5 * MB)),
    "15 MiB of text": _submit({"image": "a", "inputs": {"a": "é" * (15 * MB // 2)}}),
    "15 MiB of escapes": _submit({"image": "a", "inputs": {"a": "\n" * (15 * MB // 2)}}),
    "15 MiB of brackets": _submit(b"[" * (15 * MB)),
    "many fields": _submit({"image": "a", **_names(400_000)}),
    "many variables": _submit({"image": "a", "env_vars": _names(400_000)}),
    "many outputs": _outputs,
    "a large run": _large_run,
    "a list of large runs": _large_list,
    "a long log": _log,
    "a worker of 1000 runs": _heartbeat,
    "a feed with attributes": _feed,
}


def main() -> None:
    """Prepare one of the attacks, say so, and play it for some seconds."""
    name, url, key, seconds = sys.argv[1:]
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        method, path, body = ATTACKS[name](client)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        end = time.monotonic() + float(seconds)

        def play() -> None:
            while time.monotonic() < end:
                client.request(method, path, content=body)

        threads = [Thread(target=play) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()

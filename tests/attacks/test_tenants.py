"""Holders of good keys who want what belongs to the holders of others."""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.server.limits import Limits
from tests.server.api import KEY, Api, Json, serving, settings_in

MIB = 1024 * 1024
PROD = {"image": "a", "tags": ["prod"], "env_vars": {"T": "secret"}, "secrets": ["T"]}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[Api]:
    async with serving(settings_in(tmp_path)) as api:
        yield api


async def made(api: Api, role: str = "client", **more: Any) -> Json:
    return await api.post("/keys", {"name": f"a {role}", "role": role, **more}, 201)


async def ask(
    api: Api, key: Json, method: str, path: str, body: Any = None, **headers: str
) -> httpx.Response:
    with trio.fail_after(200):
        return await api.client.request(
            method, path, json=body, headers={"X-API-Key": key["key"], **headers}
        )


async def upload(api: Api, key: str, path: str, size: int, begin: bytes) -> trio.SocketStream:
    """Begin a request with a body of which no more than the beginning comes."""
    port = int(api.url.rpartition(":")[2])
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Length: {size}\r\n"
    await stream.send_all(f"{head}Content-Type: application/json\r\n\r\n".encode() + begin)
    return stream


async def test_a_key_that_is_revoked_while_its_request_comes(api: Api) -> None:
    key = await made(api, "admin")
    body = json.dumps({"name": "back door", "role": "admin"}).encode()
    async with await upload(api, key["key"], "/keys", len(body), body[:9]) as stream:
        await wait_all_tasks_blocked(0.1)
        await api.ask("DELETE", f"/keys/{key['id']}")
        await stream.send_all(body[9:])
        with trio.fail_after(200):
            assert b" 401 " in await stream.receive_some()
    assert await api.get("/keys") == []


async def test_a_key_that_has_expired(tmp_path: Path) -> None:
    now = 1_000_000.0
    async with serving(settings_in(tmp_path), clock=lambda: now) as api:
        key = await made(api, ttl_s=60)
        assert (await ask(api, key, "GET", "/runs")).status_code == 200
        now += 61
        assert (await ask(api, key, "GET", "/runs")).status_code == 401
        [listed] = await api.get("/keys")
        assert listed["expires_at"] < listed["created_at"].replace("T13:46", "T13:48")
        assert listed["last_used_at"] == listed["created_at"]


async def test_a_wait_ends_when_its_key_expires(api: Api) -> None:
    key, run = await made(api, ttl_s=0.5), await api.submit()
    answer = await ask(api, key, "GET", f"/runs/{run}?after_event=0&wait_s=60")
    assert answer.status_code == 401


ENDINGS: list[Callable[[str], tuple[str, str, Json]]] = [
    lambda run: ("POST", f"/runs/{run}/events", {"type": "COMPLETED", "payload": {"forged": 1}}),
    lambda run: ("POST", f"/runs/{run}/events", {"type": "FAILED"}),
    lambda run: ("POST", f"/runs/{run}/events", {"type": "PROGRESS", "msg": 99}),
    lambda run: ("PATCH", f"/runs/{run}", {"state": "COMPLETED"}),
    lambda run: ("PATCH", f"/runs/{run}", {"state": "FAILED"}),
    lambda run: ("PATCH", f"/runs/{run}", {"outputs": {"forged": 1}}),
]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_client_that_reports_for_a_run_which_a_worker_holds(
    api: Api, ending: Callable[[str], tuple[str, str, Json]]
) -> None:
    client, admin, run = await made(api), await made(api, "admin"), await api.running()
    answer = await ask(api, client, *ending(run))
    assert answer.status_code == 409
    assert "w1" in answer.json()["detail"]
    found = await api.run(run)
    assert (found["state"], found["outputs"], found["progress"]) == ("RUNNING", {}, 0)
    assert (await ask(api, admin, *ending(run))).status_code == 200


@pytest.mark.parametrize("how", ["event", "cancel", "patch"])
async def test_a_client_may_cancel_a_run_which_a_worker_holds(api: Api, how: str) -> None:
    client, run = await made(api), await api.running()
    calls: dict[str, tuple[str, str, Json | None]] = {
        "event": ("POST", f"/runs/{run}/events", {"type": "CANCELLED"}),
        "cancel": ("POST", f"/runs/{run}/cancel", None),
        "patch": ("PATCH", f"/runs/{run}", {"state": "CANCELLED"}),
    }
    assert (await ask(api, client, *calls[how])).json()["state"] == "CANCELLED"


async def test_a_client_may_report_for_a_run_which_no_worker_holds(api: Api) -> None:
    client, run = await made(api), await api.submit()
    for kind in ("STARTED", "PROGRESS", "COMPLETED"):
        msg = 50 if kind == "PROGRESS" else ""
        answer = await ask(api, client, "POST", f"/runs/{run}/events", {"type": kind, "msg": msg})
        assert answer.status_code == 200
    assert (await api.run(run))["events"][-1]["created_by"] == {
        "id": client["id"],
        "name": "a client",
    }


async def test_an_idempotency_key_is_of_its_api_key_and_of_its_request(api: Api) -> None:
    one, other = await made(api), await made(api)
    name = {"Idempotency-Key": "nightly"}
    asked: Json = {"image": "good", "inputs": {"x": 1, "y": 2}}
    first = await ask(api, one, "POST", "/runs", asked, **name)
    same: Json = {"inputs": {"y": 2, "x": 1}, "image": "good"}
    assert (await ask(api, one, "POST", "/runs", same, **name)).json()["id"] == first.json()["id"]
    refused = await ask(api, one, "POST", "/runs", asked | {"image": "evil"}, **name)
    assert refused.status_code == 409
    assert "Idempotency-Key" in refused.json()["detail"]
    theirs = await ask(api, other, "POST", "/runs", asked, **name)
    assert theirs.status_code == 201
    assert theirs.json()["id"] != first.json()["id"]
    await api.post("/definitions", {"id": "d", "image": "good"}, 201)
    await api.post("/definitions", {"id": "e", "image": "good"}, 201)
    body: Json = {"inputs": {}}
    of_d = await ask(api, one, "POST", "/definitions/d/runs", body, **name)
    assert of_d.json()["id"] != first.json()["id"]  # another operation has names of its own
    again = await ask(api, one, "POST", "/definitions/d/runs", body, **name)
    assert again.json()["id"] == of_d.json()["id"]
    assert (await ask(api, one, "POST", "/definitions/e/runs", body, **name)).status_code == 409


async def test_an_idempotency_key_of_a_large_request(api: Api) -> None:
    asked: Json = {"image": "a", "inputs": {"text": "x" * MIB}}
    headers = {"Idempotency-Key": "large"}
    first = await api.post("/runs", asked, 201, headers=headers)
    assert (await api.post("/runs", asked, 201, headers=headers))["id"] == first["id"]
    asked["inputs"]["text"] += "y"
    await api.detail("POST", "/runs", 409, json=asked, headers=headers)


async def test_a_worker_with_tags_beyond_its_key(api: Api) -> None:
    key = await made(api, "worker", worker="red-*", tags=["low", "gpu-*"])
    await api.post("/runs", PROD, 201)
    beat: Json = {"worker_id": "red-1", "resources": {}, "tags": ["low", "prod"]}
    refused = await ask(api, key, "POST", "/workers/heartbeat", beat)
    assert refused.status_code == 403
    assert "'prod'" in refused.json()["detail"]
    beat["tags"] = ["low", "gpu-a"]
    beat["resources"] = {"gpus": [{"id": 0, "vram_mb": 9, "tags": ["prod"]}]}
    assert (await ask(api, key, "POST", "/workers/heartbeat", beat)).status_code == 200
    claim = await ask(api, key, "POST", "/workers/red-1/claim", {"max_runs": 9})
    assert claim.json()["runs"] == []
    low = await api.submit(tags=["low"])
    claim = await ask(api, key, "POST", "/workers/red-1/claim", {"max_runs": 9})
    assert [run["id"] for run in claim.json()["runs"]] == [low]


async def test_a_worker_that_asks_anew_for_what_another_key_was_given(api: Api) -> None:
    key = await made(api, "worker", worker="w*", tags=["low"])
    run = (await api.post("/runs", PROD, 201))["id"]
    await api.beat(tags=["prod"])
    assert [claimed["id"] for claimed in await api.claim()] == [run]
    claim = await ask(api, key, "POST", "/workers/w1/claim", {"max_runs": 9, "holding": []})
    assert claim.json()["runs"] == []


async def test_workers_that_together_claim_more_runs_than_their_key_allows(api: Api) -> None:
    key = await made(api, "worker", worker="red-*", max_runs=2)
    runs = [await api.submit() for _ in range(4)]
    got: list[str] = []
    for worker in ("red-1", "red-2", "red-3"):
        beat: Json = {"worker_id": worker, "resources": {}}
        assert (await ask(api, key, "POST", "/workers/heartbeat", beat)).status_code == 200
        claim = await ask(api, key, "POST", f"/workers/{worker}/claim", {"max_runs": 9})
        got += [run["id"] for run in claim.json()["runs"]]
    assert got == runs[:2]
    await api.beat("blue")
    assert len(await api.claim("blue", max_runs=9)) == 2


@pytest.mark.parametrize(
    "more", [{"tags": ["a"]}, {"max_runs": 1}, {"worker": "*", "tags": ["a"], "max_runs": 1}]
)
async def test_only_keys_of_workers_have_tags_and_runs(api: Api, more: Json) -> None:
    await api.detail("POST", "/keys", 422, json={"name": "x", "role": "client", **more})


async def test_the_holder_of_one_key_who_sends_slow_bodies_over_many_connections(
    api: Api,
) -> None:
    other = await made(api)
    async with AsyncExitStack() as stack:
        for _ in range(40):
            begun = await upload(api, KEY, "/runs", 15 * MIB, b" " * 1_200_000)
            await stack.enter_async_context(begun)
        large: Json = {"image": "a", "inputs": {"text": "x" * 2 * MIB}}
        assert (await ask(api, other, "POST", "/runs", large)).status_code == 201
        assert await api.submit(inputs=large["inputs"])


async def test_of_bodies_beyond_the_memory_those_of_the_greedy_give_way(tmp_path: Path) -> None:
    limits = Limits(bodies_bytes=3 * MIB)
    async with serving(settings_in(tmp_path), limits=limits) as api:
        modest, body = await made(api), b'{"image": "a"}'
        async with (
            await upload(api, modest["key"], "/runs", MIB + len(body), body) as kept,
            await upload(api, KEY, "/runs", 2 * MIB, b" " * (MIB + MIB // 2)) as greedy,
        ):
            await kept.send_all(b" " * (MIB - 1))
            await wait_all_tasks_blocked(0.2)
            large: Json = {"image": "a", "inputs": {"text": "x" * MIB}}
            assert (await ask(api, modest, "POST", "/runs", large)).status_code == 201
            with trio.fail_after(200):
                answer = await greedy.receive_some()
                assert b" 503 " in answer
                assert b"retry-after" in answer.lower()
                await kept.send_all(b" ")
                assert b" 201 " in await kept.receive_some()


async def test_a_second_process_with_the_id_of_a_worker_that_is_there(api: Api) -> None:
    await api.beat(instance="one")
    run = await api.running()
    beat: Json = {"worker_id": "w1", "resources": {}, "instance": "two"}
    told = await api.detail("POST", "/workers/heartbeat", 409, json=beat)
    assert "Another process is worker w1" in told
    await api.beat(running=(run,), instance="one")
    await api.beat(instance="two", previous_instance="one")  # it has its work directory
    await api.beat(instance="two", leaving=True)
    await api.beat(instance="three")

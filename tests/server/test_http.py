"""The door: key, sizes, malformed bodies, unknown addresses, failures of the server itself."""

import logging
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gyoza.server.store import runs

from .api import Api, Json, serving, settings_in

JSON = {"Content-Type": "application/json"}


async def test_health_needs_no_key(api: Api) -> None:
    response = await httpx_get(api, "/health")
    assert response.status_code == 200
    assert response.json()["status"] == "ok"


async def httpx_get(api: Api, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=api.url) as client:
        return await client.get(path, headers=headers)


async def test_the_documentation_needs_no_key_and_describes_every_address(api: Api) -> None:
    assert (await httpx_get(api, "/docs")).status_code == 200
    paths = (await httpx_get(api, "/openapi.json")).json()["paths"]
    operations = [op for methods in paths.values() for op in methods.values()]
    assert len(operations) == 32
    assert all(op["summary"] for op in operations)


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}])
@pytest.mark.parametrize("path", ["/runs", "/workers", "/nope", "/health/"])
async def test_a_missing_or_wrong_key_is_401(api: Api, path: str, headers: dict[str, str]) -> None:
    response = await httpx_get(api, path, **headers)
    assert response.status_code == 401
    assert "API key" in response.json()["detail"]


async def test_an_unknown_address_is_404_and_a_wrong_method_405(api: Api) -> None:
    assert "/docs" in await api.detail("GET", "/nope", 404)
    assert "/docs" in await api.detail("DELETE", "/runs", 405)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b'{"image": "a", "inputs": {"x": NaN}}',
        b'{"image": "a", "inputs": {"x": -Infinity}}',
        b'{"image": "a", "inputs": {"x": 1e999}}',
        b'{"image": "a", "inputs": {"x": "\\ud800"}}',
        b'{"image": "a", "inputs": {"\\ud800": 1}}',
        b'{"image": "\xff"}',
        b'{"image": "a", "inputs": {"x": ' + b"9" * 5000 + b"}}",
        b'{"image": "a", "inputs": {"x": ' + b"[" * 101 + b"]" * 101 + b"}}",
        b'{"image": "a", "inputs": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
)
async def test_a_body_that_is_no_plain_json_object_is_422(api: Api, body: bytes) -> None:
    assert await api.detail("POST", "/runs", 422, content=body, headers=JSON)


async def test_a_body_sent_as_something_else_is_told_how_to_be_sent(api: Api) -> None:
    detail = await api.detail(
        "POST", "/runs", 422, content=b'{"image": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert "Content-Type: application/json" in detail


async def test_deep_and_large_inputs_come_back_as_they_were(api: Api) -> None:
    deep: Json = {}
    for _ in range(90):
        deep = {"x": [deep]} if _ % 2 else {"y": deep}
    inputs: Json = {"large": "ü" * 400_000, "number": 10**200, "float": 0.1}
    run = await api.submit(inputs=inputs)
    assert (await api.run(run))["inputs"] == inputs


BIG = 17 * 1024 * 1024


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(BIG // 65536):
        yield b" " * 65536


async def test_a_body_over_the_cap_is_413_declared_or_chunked(api: Api) -> None:
    assert "16 MiB" in await api.detail("POST", "/runs", 413, content=b" " * BIG, headers=JSON)
    assert "16 MiB" in await api.detail("POST", "/runs", 413, content=chunks(), headers=JSON)
    assert (await api.get("/runs"))["data"] == []


async def test_a_large_body_without_the_key_is_401(api: Api) -> None:
    headers = {**JSON, "X-API-Key": "wrong"}
    await api.detail("POST", "/runs", 401, content=b" " * BIG, headers=headers)


async def test_a_failure_of_the_server_tells_no_internals(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(runs, "list_runs", fail)
    detail = await api.detail("GET", "/runs", 500)
    assert "secret" not in detail
    with trio.fail_after(200):
        while "secret" not in caplog.text:  # the log tells
            await wait_all_tasks_blocked(0.01)
    caplog.clear()


async def test_a_database_that_is_locked_is_503_so_that_clients_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gyoza.server.store.database.BUSY_TIMEOUT_MS", 1)
    async with serving(settings_in(tmp_path)) as api:
        other = sqlite3.connect(tmp_path / "server.sqlite3", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert "try again" in await api.detail("POST", "/runs", 503, json={"image": "a"})
        other.execute("ROLLBACK")
        other.close()
        assert await api.submit()
    assert "locked" in caplog.text
    caplog.clear()


async def test_shutting_down_answers_every_long_poll_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "gyoza")
    answers: dict[str, httpx.Response] = {}

    async def ask(api: Api, method: str, path: str, body: Json | None = None) -> None:
        answers[path] = await api.client.request(method, path, json=body)

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery, serving(settings_in(tmp_path)) as api:
            run = await api.running(tags=[])
            for method, path, body in (
                ("POST", "/workers/w1/claim", {"wait_s": 60, "holding": [run]}),
                ("GET", "/workers/w1/changes?after=0&wait_s=60", None),
                ("GET", "/events?topic=t&wait_s=60", None),
                ("GET", f"/runs/{run}?after_event=1&wait_s=60", None),
            ):
                nursery.start_soon(ask, api, method, path, body)
            await wait_all_tasks_blocked(0.1)
            assert answers == {}
            api.stop.cancel()
            with trio.CancelScope(shield=True):
                while len(answers) < 4:
                    await wait_all_tasks_blocked(0.01)
    assert [answer.status_code for answer in answers.values()] == [200] * 4
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("place", "wrong", "known"),
    [
        ("constraints", {"cpus": 1}, "cpu, ram_mb, vram_mb"),
        ("retry_policy", {"attempts": 3}, "max_attempts, backoff_s"),
        ("event_delivery", {"feed": "t"}, "topic, attributes"),
    ],
)
async def test_an_unknown_field_is_refused_wherever_a_person_may_have_slipped(
    api: Api, place: str, wrong: dict[str, Any], known: str
) -> None:
    [name] = wrong
    told = f"{place}: there is no field '{name}'; known are {known}."
    run = {"image": "a", "inputs": {}, place: wrong}
    assert await api.detail("POST", "/runs", 422, json=run) == told
    definition = {"id": "op", "image": "a", place: wrong}
    assert await api.detail("POST", "/definitions", 422, json=definition) == told


async def test_an_unknown_field_of_an_input_is_refused(api: Api) -> None:
    definition = {"id": "op", "image": "a", "input_specs": {"n": {"type": "int", "requird": False}}}
    told = "input_specs.n: there is no field 'requird'; known are type, required, default."
    assert await api.detail("POST", "/definitions", 422, json=definition) == told


async def test_a_field_that_is_not_there_at_the_top_is_told_with_those_that_are(api: Api) -> None:
    detail = await api.detail("POST", "/runs", 422, json={"imge": "a"})
    assert detail.startswith("There is no field 'imge'; known are image, command,")


async def test_workers_may_tell_what_this_server_does_not_know(api: Api) -> None:
    told = {"worker_id": "w1", "weather": "fine", "resources": {"cpu_cores": 1, "fans": 2}}
    running = [{"id": "r", "image": "a", "inputs": {}, "constraints": {"cpus": 1}, "more": 1}]
    await api.post("/workers/heartbeat", {**told, "running_ops": running})

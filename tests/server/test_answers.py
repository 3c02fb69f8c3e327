"""What all answers have in common, and that describing them keeps nobody waiting."""

from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI

from gyoza.server.errors import SettingsError
from gyoza.server.settings import API_PATHS, ServerSettings

from .api import Api, raw_request, serving, settings_in

LIMIT_S = 200


async def test_no_answer_may_be_kept_by_anybody_on_the_way(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        run = await api.running()
        answers: list[httpx.Response] = [
            await api.client.request(method, path, headers=headers)
            for method, path, headers in (
                ("GET", "/health", {}),
                ("GET", "/runs", {}),
                ("GET", f"/runs/{run}", {}),
                ("GET", f"/runs/{run}/logs", {}),
                ("GET", "/docs", {}),
                ("GET", "/openapi.json", {}),
                ("GET", "/runs", {"X-API-Key": "wrong"}),  # the gate's
                ("POST", "/runs", {}),
                ("GET", "/nowhere", {}),
                ("DELETE", "/runs", {}),
            )
        ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 200, 200, 200, 200, 401, 422, 404, 405]
    for answer in answers:
        assert answer.headers.get_list("Cache-Control") == ["no-store"], answer.request.url


async def test_neither_may_the_answer_to_what_is_no_request(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        async with await raw_request(api, "CONNECT", "example.org:443") as stream:
            answer = b"".join([part async for part in stream]).lower()
    assert answer.startswith(b"http/1.1 405 ")
    assert answer.count(b"\r\ncache-control: no-store\r\n") == 1


async def test_others_are_answered_while_the_openapi_document_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = Event(), Event()
    made = 0
    openapi = FastAPI.openapi

    def slow(app: FastAPI) -> dict[str, Any]:
        nonlocal made
        if app.openapi_schema is None:
            made += 1
            begun.set()
            assert may_go_on.wait(LIMIT_S)
        return openapi(app)

    monkeypatch.setattr(FastAPI, "openapi", slow)
    documents: list[Any] = []
    with trio.fail_after(LIMIT_S):
        async with serving(settings_in(tmp_path)) as api:

            async def read() -> None:
                documents.append(await api.get("/openapi.json"))

            try:
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(read)
                    assert await trio.to_thread.run_sync(begun.wait, LIMIT_S)
                    assert "openapi.json" in (await api.client.get("/docs")).text
                    await api.submit()
                    assert not documents
                    may_go_on.set()
            finally:
                may_go_on.set()
    assert made == 1
    assert len(documents) == 3
    assert all("/runs" in document["paths"] for document in documents)


@pytest.mark.parametrize("below", ["", "/gyoza"])
@pytest.mark.parametrize("path", API_PATHS)
def test_a_prefix_that_begins_as_the_api_does_is_refused(path: str, below: str) -> None:
    with pytest.raises(SettingsError, match=f"must not begin with {path}, which is a path of the"):
        ServerSettings(root_path=path + below)


@pytest.mark.parametrize("path", ["/gyoza", "/gyoza/runs", "/runs2", "/my-runs", "/doc"])
def test_a_prefix_that_only_looks_like_the_api_is_taken(path: str) -> None:
    assert ServerSettings(root_path=path).root_path == path


async def test_every_path_of_the_api_is_known_to_the_settings(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        paths = (await api.get("/openapi.json"))["paths"]
    begins = {"/" + path.split("/")[1] for path in paths}
    assert begins | {"/docs", "/openapi.json"} == set(API_PATHS)

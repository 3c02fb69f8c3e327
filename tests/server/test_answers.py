"""What all answers have in common, and that describing them keeps nobody waiting."""

import re
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI

from gyoza.server.errors import SettingsError
from gyoza.server.settings import API_PATHS, ServerSettings

from .api import Api, linked, raw_request, serving, settings_in

LIMIT_S = 200


async def test_no_answer_may_be_kept_on_the_way_framed_or_guessed_at(api: Api) -> None:
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
                ("GET", "/docs/swagger-ui-bundle.js", {}),
                ("GET", "/openapi.json", {}),
                ("GET", "/runs", {"X-API-Key": "wrong"}),  # the gate's
                ("POST", "/runs", {}),
                ("GET", "/nowhere", {}),
                ("DELETE", "/runs", {}),
            )
        ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 200, 200, 200, 200, 200, 401, 422, 404, 405]
    for answer in answers:
        for name, values in (
            ("Cache-Control", ["no-store"]),
            ("X-Content-Type-Options", ["nosniff"]),
            ("X-Frame-Options", ["DENY"]),
            ("Referrer-Policy", ["no-referrer"]),
            ("Server", []),
        ):
            assert answer.headers.get_list(name) == values, answer.request.url
        [policy] = answer.headers.get_list("Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy


async def test_the_page_of_the_documentation_loads_nothing_from_elsewhere(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        async with httpx.AsyncClient(base_url=api.url, follow_redirects=True) as browser:
            page = await browser.get("/")
            assert page.url.path == "/docs"
            paths = linked(page.text)
            programs = [await browser.get(page.url.join(path)) for path in paths]
    assert len(paths) == 4
    assert not [path for path in paths if "//" in path]
    assert {answer.status_code for answer in programs} == {200}
    assert all(answer.content for answer in programs)
    policy = page.headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert not re.search(
        r"<script>|\son\w+=", page.text
    )  # nothing that the policy would not let run


async def test_head_is_answered_as_get_is_but_for_the_body(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        run = await api.running()
        paths = (
            "/health",
            "/readyz",
            "/docs",
            "/openapi.json",
            "/runs",
            f"/runs/{run}",
            "/nowhere",
        )
        for path in (*paths, "/"):
            head, get = await api.client.head(path), await api.client.get(path)
            assert head.status_code == get.status_code, path
            assert head.content == b""
            assert head.headers["Content-Length"] == get.headers["Content-Length"]
        # One without an end; the connection is good for another request after it.
        log = await api.client.head(f"/runs/{run}/logs", params={"follow": "true"})
        assert log.status_code == 200
        assert await api.get("/health")
        async with httpx.AsyncClient(base_url=api.url) as stranger:
            assert (await stranger.head("/runs")).status_code == 401
            assert (await stranger.head("/health")).status_code == 200


async def test_an_address_with_a_slash_too_many_is_not_there(api: Api) -> None:
    with trio.fail_after(LIMIT_S):
        for method, path in (("POST", "/runs/"), ("GET", "/health/"), ("GET", "/docs/")):
            assert "see /docs" in await api.detail(method, path, 404)


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
                    assert (await api.client.get("/docs")).status_code == 200
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

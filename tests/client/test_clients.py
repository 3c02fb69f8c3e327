import inspect
from collections.abc import Callable
from typing import Any, get_args

import httpx
import pytest

from gyoza.client import (
    ApiError,
    AsyncGyozaClient,
    GyozaClient,
    ServerUnreachable,
    endpoints,
)

from .conftest import Send
from .scripted import Answer, Scripted

ENDPOINTS: dict[str, Callable[..., Any]] = {
    name: function
    for name, function in inspect.getmembers(endpoints, inspect.isfunction)
    if function.__module__ == endpoints.__name__ and not name.startswith("_")
}


@pytest.mark.parametrize("client", [GyozaClient, AsyncGyozaClient])
def test_both_clients_have_a_documented_method_for_every_endpoint(client: type[Any]) -> None:
    for name, describe in ENDPOINTS.items():
        assert inspect.getdoc(getattr(client, name)) == inspect.getdoc(describe)


@pytest.mark.parametrize("client", [GyozaClient, AsyncGyozaClient])
def test_a_method_tells_its_arguments_as_it_takes_them(client: type[Any]) -> None:
    for name, describe in ENDPOINTS.items():
        of_class = inspect.signature(getattr(client, name))
        of_object = inspect.signature(getattr(client("http://localhost"), name))
        described = inspect.signature(describe).parameters
        assert list(of_class.parameters) == ["self", *described]
        assert dict(of_object.parameters) == dict(described)
        answer = of_class.return_annotation
        if name in ("list_definitions", "list_workers"):  # described a page at a time
            assert answer == list[dict[str, Any]]
        else:
            assert answer in get_args(describe.__annotations__["return"])


@pytest.mark.parametrize(
    ("method", "kwargs", "line", "body"),
    [
        ("health", {}, "GET /health", None),
        ("upsert_definition", {"op_dict": {"id": "op"}}, "POST /definitions", {"id": "op"}),
        ("get_definition", {"name": "op"}, "GET /definitions/op", None),
        ("get_definition", {"name": "o", "version": "1"}, "GET /definitions/o?version=1", None),
        (
            "create_run",
            {"image": "i", "inputs": {"n": 1}, "priority": 7, "tags": ["gpu"], "grace_s": 0.0},
            "POST /runs",
            {"image": "i", "inputs": {"n": 1}, "priority": 7, "tags": ["gpu"], "grace_s": 0.0},
        ),
        (
            "create_run_from_definition",
            {"name": "op", "inputs": {}, "version": "2"},
            "POST /definitions/op/runs",
            {"inputs": {}, "priority": 5, "version": "2"},
        ),
        (
            "list_runs",
            {"limit": 2, "state": "FAILED", "topic": "t"},
            "GET /runs?limit=2&state=FAILED&topic=t",
            None,
        ),
        ("get_run", {"run_id": "r"}, "GET /runs/r", None),
        (
            "get_run",
            {"run_id": "r", "after_event": 0, "wait_s": 0.5},
            "GET /runs/r?after_event=0&wait_s=0.5",
            None,
        ),
        ("get_run", {"run_id": "../x"}, "GET /runs/..%2Fx", None),
        ("update_run", {"run_id": "r", "outputs": {}}, "PATCH /runs/r", {"outputs": {}}),
        ("cancel_run", {"run_id": "r"}, "POST /runs/r/cancel", None),
        ("retry_run", {"run_id": "r"}, "POST /runs/r/retry", None),
        (
            "add_event",
            {"run_id": "r", "event_type": "PROGRESS", "msg": 0, "worker_id": "w", "attempt": 1},
            "POST /runs/r/events",
            {"type": "PROGRESS", "msg": 0, "worker_id": "w", "attempt": 1},
        ),
        (
            "append_logs",
            {"run_id": "r", "offset": 0, "data": "", "worker_id": "w", "attempt": 2},
            "POST /runs/r/logs",
            {"offset": 0, "data": "", "worker_id": "w", "attempt": 2},
        ),
        (
            "put_logs",
            {"run_id": "r", "offset": 0, "text": "grüße\n", "worker_id": "w", "attempt": 2},
            "PUT /runs/r/logs?offset=0&worker_id=w&attempt=2",
            "grüße\n",
        ),
        (
            "get_events",
            {"topic": "t", "after": "c", "limit": 5},
            "GET /events?topic=t&after=c&limit=5",
            None,
        ),
        (
            "heartbeat",
            {"worker_id": "w", "resources": {"cpu_cores": 2}, "draining": True},
            "POST /workers/heartbeat",
            {
                "worker_id": "w",
                "resources": {"cpu_cores": 2},
                "tags": [],
                "running_ops": [],
                "draining": True,
            },
        ),
        ("get_changes", {"worker_id": "w", "after": "3"}, "GET /workers/w/changes?after=3", None),
        (
            "release_run",
            {"run_id": "r", "worker_id": "w", "attempt": 1, "reason": "drain"},
            "POST /runs/r/release",
            {"worker_id": "w", "attempt": 1, "reason": "drain"},
        ),
        ("get_worker", {"worker_id": "w"}, "GET /workers/w", None),
        ("drain_worker", {"worker_id": "w"}, "POST /workers/w/drain", None),
        ("resume_worker", {"worker_id": "w"}, "POST /workers/w/resume", None),
    ],
)
async def test_a_call_becomes_this_request_and_its_answer_comes_back(
    send: Send, server: Scripted, method: str, kwargs: dict[str, Any], line: str, body: Any
) -> None:
    server.answers[:] = [Answer({"said": "ö"})]
    assert await send(method, **kwargs) == {"said": "ö"}
    (request,) = server.requests
    assert (f"{request.method} {request.path}", request.body) == (line, body)
    assert request.headers["X-API-Key"] == "secret"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("list_definitions", "/definitions"),
        ("get_attempts", "/runs/r/attempts"),
        ("list_workers", "/workers"),
    ],
)
async def test_lists_come_back_as_lists(
    send: Send, server: Scripted, method: str, path: str
) -> None:
    server.answers[:] = [Answer([{"id": "a"}])]
    assert await send(method, *(["r"] if method == "get_attempts" else [])) == [{"id": "a"}]
    assert server.requests[0].path == path


async def test_a_claim_returns_its_runs_and_none_if_the_answer_has_none(
    send: Send, server: Scripted
) -> None:
    server.answers[:] = [Answer({"runs": [{"id": "r"}]}), Answer({})]
    assert await send("claim", "w", max_runs=2, wait_s=1.0, holding=["a"]) == [{"id": "r"}]
    assert await send("claim", "w") == []
    assert server.requests[0].body == {"max_runs": 2, "wait_s": 1.0, "holding": ["a"]}


async def test_an_error_says_the_servers_sentence_and_is_httpxs_own_type(
    send: Send, server: Scripted
) -> None:
    server.answers[:] = [Answer({"detail": "Run 'r' is unknown."}, 404)]
    with pytest.raises(httpx.HTTPStatusError) as caught:
        await send("get_run", "r")
    error = caught.value
    assert isinstance(error, ApiError)
    assert (str(error), error.detail, error.status) == (
        "Run 'r' is unknown.",
        "Run 'r' is unknown.",
        404,
    )
    assert error.response.status_code == 404
    assert error.request.url == f"{server.url}/runs/r"


async def test_no_server_is_one_sentence_with_what_to_do(impatient: None) -> None:
    async with AsyncGyozaClient("http://127.0.0.1:9") as client:
        with pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9 .*`gyoza up`"):
            await client.health()


def test_a_long_poll_may_take_its_wait() -> None:
    with GyozaClient("http://localhost", timeout=3.0) as client:
        request = client.connection.request
        assert request(endpoints.get_run("r"))["timeout"] == httpx.Timeout(3.0)
        assert request(endpoints.claim("w", wait_s=20))["timeout"].read == 23.0

"""Requests whose answer is lost on the way back: repeated where that is harmless, and only there.

Each call is made twice: with its answer cut off at one server, undisturbed at another. Afterwards
both servers must tell the same.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from gyoza.client import AsyncGyozaClient, GyozaClient, ServerUnreachable
from gyoza.client.call import Call
from gyoza.client.retry import READ, REPORT
from tests.server.api import KEY, Api, serving, settings_in

from .relay import Relay, relaying
from .test_clients import ENDPOINTS

Json = dict[str, Any]
ME: Json = {"worker_id": "w1", "attempt": 1}
RUN = "the id of the run"
EVENT: Json = {"run_id": RUN, "msg": "x", "seq": 3, **ME}
DEFINITION: Json = {"id": "other", "image": "i"}

REPEATED: list[tuple[str, Json]] = [
    ("health", {}),
    ("upsert_definition", {"op_dict": DEFINITION}),
    ("get_definition", {"name": "op"}),
    ("list_definitions", {}),
    ("create_run", {"image": "i", "inputs": {}}),
    ("create_run_from_definition", {"name": "op", "inputs": {}}),
    ("list_runs", {}),
    ("get_run", {"run_id": RUN}),
    ("get_attempts", {"run_id": RUN}),
    ("cancel_run", {"run_id": RUN}),
    ("add_event", {"event_type": "STARTED", **EVENT}),
    ("add_event", {"event_type": "INFO", **EVENT}),
    ("add_event", {"event_type": "PROGRESS", **EVENT, "msg": 50}),
    ("add_event", {"event_type": "COMPLETED", **EVENT, "payload": {"n": 1}}),
    ("add_event", {"event_type": "FAILED", **EVENT, "payload": {"reason": "EXIT_CODE"}}),
    ("add_events", {"run_id": RUN, "events": [{"type": "INFO", "seq": 3}], **ME}),
    ("append_logs", {"run_id": RUN, "offset": 0, "data": "text", **ME}),
    ("put_logs", {"run_id": RUN, "offset": 0, "text": "text", **ME}),
    ("get_logs", {"run_id": RUN}),
    ("get_events", {"topic": "t"}),
    ("release_run", {"run_id": RUN, "reason": "SHUTDOWN", **ME}),
    ("list_workers", {}),
    ("get_worker", {"worker_id": "w1"}),
    ("drain_worker", {"worker_id": "w1"}),
    ("resume_worker", {"worker_id": "w1"}),
    ("list_keys", {}),
]
MADE_ONCE: list[tuple[str, Json]] = [
    ("update_run", {"run_id": RUN, "priority": 9}),
    ("retry_run", {"run_id": RUN}),
    ("add_event", {"event_type": "INFO", "run_id": RUN, "msg": "x", **ME}),
    ("heartbeat", {"worker_id": "w1", "resources": {}}),
    ("claim", {"worker_id": "w1"}),
    ("get_changes", {"worker_id": "w1"}),
    ("create_key", {"name": "n", "role": "client"}),
]


def describe(method: str, kwargs: Json) -> Call[Any]:
    return ENDPOINTS[method](**kwargs)


def test_the_lists_of_this_file_hold_every_endpoint_as_its_row_says() -> None:
    described = [call for call in REPEATED if call[0] != "get_logs"]  # a stream, read in parts
    assert all(describe(*call).retry in (READ, REPORT) for call in described)
    assert not any(describe(*call).retry in (READ, REPORT) for call in MADE_ONCE)
    named = {method for method, _ in REPEATED + MADE_ONCE}
    deleting = {"revoke_key", "delete_definition", "forget_worker"}
    assert named | deleting == {
        *ENDPOINTS,
        "get_logs",
    }  # no two servers have a key of the same id


@pytest.fixture(params=[GyozaClient, AsyncGyozaClient])
def kind(request: pytest.FixtureRequest) -> type[GyozaClient | AsyncGyozaClient]:
    return request.param


@asynccontextmanager
async def prepared(directory: Path, method: str) -> AsyncGenerator[tuple[Api, str]]:
    """A server with a definition, and a run that the calls of this file find as they need it."""
    async with serving(settings_in(directory)) as api:
        await api.post("/definitions", {"id": "op", "image": "i"}, 201)
        policy = {"max_attempts": 2}
        run = await api.running(retry_policy=policy, event_delivery={"topic": "t"})
        if method == "retry_run":
            await api.post(f"/runs/{run}/cancel")
        if method == "claim":
            await api.submit()
        yield api, run


async def call(
    kind: type[GyozaClient | AsyncGyozaClient], url: str, run: str, method: str, kwargs: Json
) -> Any:
    arguments = {name: run if value == RUN else value for name, value in kwargs.items()}
    if kind is AsyncGyozaClient:
        async with AsyncGyozaClient(url, KEY) as client:
            return await getattr(client, method)(**arguments)
    with GyozaClient(url, KEY) as client:
        return await trio.to_thread.run_sync(lambda: getattr(client, method)(**arguments))


UNLIKE = (
    *("id", "op_run_id", "t", "duration_ms", "created_at", "updated_at"),
    *("started_at", "finished_at", "first_seen", "last_seen"),
)


def timeless(value: Any, run: str) -> Any:
    """Return an answer without what two servers can never have in common."""
    if isinstance(value, dict):
        told = cast("Json", value)
        return {k.replace(run, RUN): timeless(v, run) for k, v in told.items() if k not in UNLIKE}
    if isinstance(value, list):
        return [timeless(item, run) for item in cast("list[Any]", value)]
    return value.replace(run, RUN) if isinstance(value, str) else value


async def all_of(api: Api, run: str) -> Any:
    """Return everything that a server tells."""
    listed = (await api.get("/runs"))["data"]
    told = [
        *[await api.run(one["id"]) for one in listed],
        *[await api.get(f"/runs/{one['id']}/attempts") for one in listed],
        [(await api.client.get(f"/runs/{one['id']}/logs")).text for one in listed],
        *[await api.get(path) for path in ("/definitions", "/workers")],
        await api.get("/events", topic="t"),
    ]
    return timeless(told, run)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("method", "kwargs"), REPEATED)
async def test_a_call_whose_answer_was_lost_comes_to_the_same_as_one_that_was_answered(
    kind: type[GyozaClient | AsyncGyozaClient], tmp_path: Path, method: str, kwargs: Json
) -> None:
    async with (
        prepared(tmp_path / "cut", method) as (cut, run),
        prepared(tmp_path / "whole", method) as (whole, same),
        relaying(cut.url) as relay,
    ):
        relay.cuts = 2
        with trio.fail_after(200):
            answer: Any = await call(kind, relay.url, run, method, kwargs)
            expected: Any = await call(kind, whole.url, same, method, kwargs)
        assert relay.cuts == 0
        if method in ("add_event", "release_run"):  # tells which events this very request added
            answer["events"] = expected["events"] = []
        assert timeless(answer, run) == timeless(expected, same)
        assert await all_of(cut, run) == await all_of(whole, same)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("method", "kwargs"), MADE_ONCE)
async def test_a_call_that_might_count_twice_is_left_to_its_caller(
    kind: type[GyozaClient | AsyncGyozaClient], tmp_path: Path, method: str, kwargs: Json
) -> None:
    async with (
        prepared(tmp_path / "cut", method) as (cut, run),
        prepared(tmp_path / "whole", method) as (whole, same),
        relaying(cut.url) as relay,
    ):
        relay.cuts = 1
        with trio.fail_after(200):
            with pytest.raises(ServerUnreachable):
                await call(kind, relay.url, run, method, kwargs)
            await call(kind, whole.url, same, method, kwargs)
        assert relay.cuts == 0
        assert await all_of(cut, run) == await all_of(whole, same)


async def lost_claim(relay: Relay, client: AsyncGyozaClient) -> None:
    relay.cuts = 1
    with pytest.raises(ServerUnreachable):
        await client.claim("w1", holding=[])


async def test_a_claim_made_again_brings_the_run_whose_answer_was_lost(tmp_path: Path) -> None:
    async with (
        serving(settings_in(tmp_path)) as api,
        relaying(api.url) as relay,
        AsyncGyozaClient(relay.url, KEY) as client,
    ):
        await api.beat()
        first, second = await api.submit(), await api.submit()
        with trio.fail_after(200):
            await lost_claim(relay, client)
            await lost_claim(relay, client)
            for holding, expected in (([], first), ([first], second)):
                (run,) = await client.claim("w1", holding=holding)
                assert (run["id"], run["current_attempt"]) == (expected, 1)
            assert await client.claim("w1", holding=[first, second]) == []

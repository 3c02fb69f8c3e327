"""Creating, reading, listing and changing runs."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from .api import Api, Json


async def test_a_new_run_has_every_field_of_the_contract(api: Api) -> None:
    asked: dict[str, Any] = {
        "image": "alpine:3",
        "inputs": {"text": "ü", "deep": [1, {"x": None}]},
        "command": ["echo", "hi"],
        "env_vars": {"A": "1"},
        "secrets": [],
        "tags": ["cuda"],
        "timeout_s": 2.5,
        "grace_s": 0.0,
        "priority": 9,
        "constraints": {"cpu": 2, "ram_mb": 100, "vram_mb": 50},
        "retry_policy": {"max_attempts": 3, "backoff_s": 1.5},
        "event_delivery": {"topic": "t", "attributes": {"who": "me"}},
    }
    run = await api.post("/runs", asked, 201)
    assert {name: run[name] for name in asked} == asked
    assert run["created_at"] == run["updated_at"]
    assert run["created_at"].endswith("Z")
    rest = {name: value for name, value in run.items() if name not in asked}
    assert {k: v for k, v in rest.items() if k not in ("id", "created_at", "updated_at")} == {
        "state": "PENDING",
        "progress": 0,
        "current_attempt": 0,
        "outputs": {},
        "op_definition": None,
        "worker_id": None,
        "events": [],
        "execution_summary": {
            "duration_ms": None,
            "worker_id": None,
            "error_message": None,
            "exit_code": None,
            "reason": None,
            "gpu_ids": [],
        },
        "created_by": {"id": "server", "name": "the server's own"},
    }
    assert await api.run(run["id"]) == run


async def test_optional_fields_may_be_null(api: Api) -> None:
    body = dict.fromkeys(["constraints", "retry_policy", "event_delivery", "tags", "env_vars"])
    run = await api.post("/runs", {"image": "a", "inputs": None, **body}, 201)
    assert run["inputs"] == {}
    assert run["retry_policy"] == {"max_attempts": 1, "backoff_s": 0.0}
    assert run["priority"] == 5
    assert run["grace_s"] is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"image": ""}, "image"),
        ({"image": "-v"}, "image"),
        ({"image": "a b"}, "image"),
        ({"image": "Me/op"}, "only its tag may have capital letters"),
        ({"image": "op@sha256:12"}, "there must be a digest"),
        ({"constraints": {"ram_mb": 5}}, "constraints.ram_mb"),
        ({"image": None}, "image"),
        ({"imagee": "x"}, "imagee"),
        ({"inputs": [1]}, "inputs"),
        ({"command": ["a\0b"]}, "command"),
        ({"env_vars": {"A=B": "1"}}, "env_vars"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"grace_s": -1}, "grace_s"),
        ({"grace_s": 3601}, "grace_s"),
        ({"priority": 2**60}, "priority"),
        ({"constraints": {"cpu": -1}}, "constraints.cpu"),
        ({"retry_policy": {"max_attempts": 0}}, "retry_policy.max_attempts"),
        ({"event_delivery": {"topic": "../x"}}, "topic"),
    ],
)
async def test_a_body_that_makes_no_run_is_refused_with_its_field(
    api: Api, change: dict[str, Any], word: str
) -> None:
    body: dict[str, Any] = {"image": "alpine", "inputs": {}, **change}
    assert word in await api.detail("POST", "/runs", 422, json=body)
    assert (await api.get("/runs"))["data"] == []


async def test_the_same_idempotency_key_answers_with_the_same_run(api: Api) -> None:
    header = {"Idempotency-Key": "k1"}
    first = await api.post("/runs", {"image": "a"}, 201, headers=header)
    again = await api.post("/runs", {"image": "a"}, 201, headers=header)
    other = await api.post("/runs", {"image": "a"}, 201, headers={"Idempotency-Key": "k2"})
    assert again == first
    assert other["id"] != first["id"]
    assert len((await api.get("/runs"))["data"]) == 2


@pytest.mark.parametrize(
    ("path", "status"),
    [("nope", 404), ("..%2Fx", 404), ("%00", 422), ("a%20b", 422), ("%FF", 422), ("a" * 64, 422)],
)
async def test_what_is_no_run_is_404_and_what_is_no_id_422(
    api: Api, path: str, status: int
) -> None:
    for method, rest in (("GET", ""), ("GET", "/attempts"), ("POST", "/cancel"), ("GET", "/logs")):
        assert await api.detail(method, f"/runs/{path}{rest}", status)


async def test_lists_page_in_both_directions_newest_first(api: Api) -> None:
    ids = [await api.submit() for _ in range(5)][::-1]

    async def page(**params: Any) -> tuple[list[str], bool]:
        answer = await api.get("/runs", **params)
        return [run["id"] for run in answer["data"]], answer["has_more"]

    assert await page() == (ids, False)
    assert await page(limit=2) == (ids[:2], True)
    assert await page(limit=2, starting_after=ids[1]) == (ids[2:4], True)
    assert await page(limit=2, starting_after=ids[3]) == (ids[4:], False)
    assert await page(limit=2, ending_before=ids[4]) == (ids[2:4], True)
    assert await page(limit=2, ending_before=ids[2]) == (ids[:2], False)
    assert await page(limit=5, ending_before=ids[0]) == ([], False)


async def test_lists_filter_by_state_definition_image_and_topic(api: Api) -> None:
    await api.post("/definitions", {"id": "op", "image": "opimage"}, 201)
    of_op = (await api.post("/definitions/op/runs", {}, 201))["id"]
    on_topic = await api.submit(event_delivery={"topic": "t"})
    cancelled = await api.submit(image="other")
    await api.post(f"/runs/{cancelled}/cancel")
    for params, run in (
        ("op_definition=op", of_op),
        ("image=opimage", of_op),
        ("topic=t", on_topic),
        ("state=CANCELLED", cancelled),
    ):
        data = (await api.get(f"/runs?{params}"))["data"]
        assert [r["id"] for r in data] == [run]
        assert data[0]["events"] == []  # lists leave them out


async def test_a_page_cannot_start_at_an_unknown_run(api: Api) -> None:
    for cursor in ("starting_after", "ending_before"):
        detail = await api.detail("GET", "/runs", 400, params={cursor: "nope"})
        assert "'nope' is not the id of a run" in detail
    assert "limit" in await api.detail("GET", "/runs", 422, params={"limit": 501})
    assert "state" in await api.detail("GET", "/runs", 422, params={"state": "DONE"})


async def test_cancelling_twice_is_harmless(api: Api) -> None:
    run = await api.submit()
    first = await api.post(f"/runs/{run}/cancel")
    assert first["state"] == "CANCELLED"
    assert [e["type"] for e in first["events"]] == ["CANCELLED"]
    assert await api.post(f"/runs/{run}/cancel") == first


async def test_a_run_that_completed_can_be_neither_cancelled_nor_retried(api: Api) -> None:
    run = await api.running()
    await api.event(run, "COMPLETED", worker_id="w1", attempt=1)
    assert "COMPLETED" in await api.detail("POST", f"/runs/{run}/cancel", 409)
    assert "COMPLETED" in await api.detail("POST", f"/runs/{run}/retry", 409)


async def test_a_cancelled_run_can_be_retried_and_run_again(api: Api) -> None:
    run = await api.running()
    assert "RUNNING" in await api.detail("POST", f"/runs/{run}/retry", 409)
    await api.post(f"/runs/{run}/cancel")
    retried = await api.post(f"/runs/{run}/retry")
    assert (retried["state"], retried["current_attempt"]) == ("PENDING", 1)
    assert retried["events"][-1]["type"] == "RETRIED"
    assert [r["current_attempt"] for r in await api.claim()] == [2]


async def test_patch_changes_priority_and_moves_states_by_the_table(api: Api) -> None:
    run = await api.running()
    patched = await api.ask("PATCH", f"/runs/{run}", json={"priority": 8, "outputs": {"half": 1}})
    assert (patched["priority"], patched["outputs"]) == (8, {"half": 1})
    done = await api.ask(
        "PATCH", f"/runs/{run}", json={"state": "COMPLETED", "outputs": {"all": 2}}
    )
    assert (done["state"], done["outputs"], done["progress"]) == ("COMPLETED", {"all": 2}, 100)
    same = await api.ask("PATCH", f"/runs/{run}", json={"state": "COMPLETED"})
    assert same == done
    refused: list[dict[str, Any]] = [
        {"state": "PENDING"},
        {"state": "CANCELLED"},
        {"outputs": {}},
    ]
    for body in refused:
        await api.detail("PATCH", f"/runs/{run}", 400, json=body)
    assert await api.run(run) == done
    await api.detail("PATCH", f"/runs/{run}", 422, json={"image": "other"})


async def test_patch_cancels_retries_starts_fails_and_takes_back(api: Api) -> None:
    run = await api.submit(retry_policy={"max_attempts": 5})

    async def patch(state: str) -> str:
        return (await api.ask("PATCH", f"/runs/{run}", json={"state": state}))["state"]

    assert await patch("CANCELLED") == "CANCELLED"
    assert await patch("PENDING") == "PENDING"
    assert "cannot be made" in await api.detail(
        "PATCH", f"/runs/{run}", 400, json={"state": "ASSIGNED"}
    )
    await api.beat()
    await api.claim()
    assert await patch("RUNNING") == "RUNNING"
    assert await patch("PENDING") == "PENDING"  # taken from its worker
    await api.claim()
    assert await patch("FAILED") == "FAILED"  # by hand: the retry policy does not undo it
    summary = (await api.run(run))["execution_summary"]
    assert summary["reason"] == "INTERNAL"


async def test_a_run_can_be_waited_for(api: Api) -> None:
    run = await api.submit()
    answers: list[dict[str, Any]] = []

    async def wait() -> None:
        answers.append(await api.run(run, after_event=-1, wait_s=60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.05)
        assert answers == []
        await api.post(f"/runs/{run}/cancel")
    assert answers[0]["state"] == "CANCELLED"
    assert await api.run(run, after_event=-1, wait_s=60) == answers[0]  # news already: at once
    none = await api.run(run, after_event=0, wait_s=0.01)
    assert none == answers[0] | {"events": []}


async def test_news_of_a_run_is_what_is_new(api: Api) -> None:
    run = await api.running()
    news = await api.run(run, after_event=0)
    assert [event["type"] for event in news["events"]] == ["STARTED"]
    assert news["inputs"] == {}
    await api.event(run, "COMPLETED", payload={"n": 2})
    news = await api.run(run, after_event=1)
    assert [event["type"] for event in news["events"]] == ["COMPLETED"]
    assert news["outputs"] == {"n": 2}
    assert (await api.run(run))["inputs"] == {"n": 1}


async def test_attempts_have_their_own_states_and_nothing_that_may_be_large(api: Api) -> None:
    run = await api.running(retry_policy={"max_attempts": 2})
    await api.event(run, "PROGRESS", 30, worker_id="w1", attempt=1)
    await api.event(run, "FAILED", worker_id="w1", attempt=1, payload={"exit_code": 7})
    await api.claim()
    await api.event(run, "STARTED", worker_id="w1", attempt=2)
    await api.event(run, "COMPLETED", worker_id="w1", attempt=2, payload={"answer": 42})
    first, second = await api.get(f"/runs/{run}/attempts")
    assert (first["attempt"], first["state"], first["progress"]) == (1, "FAILED", 30)
    assert first["execution_summary"]["exit_code"] == 7
    assert second["state"] == "COMPLETED"
    for attempt in (first, second):
        assert (attempt["inputs"], attempt["outputs"], attempt["events"]) == ({}, {}, [])
    assert second["started_at"] <= second["finished_at"]
    ids = [e["id"] for e in (await api.run(run))["events"]]
    assert ids == list(range(len(ids)))


async def test_who_waits_for_the_end_of_a_run_hears_of_nothing_else(api: Api) -> None:
    run = await api.running(retry_policy={"max_attempts": 2})
    assert (await api.run(run, until_end=True))["state"] == "RUNNING"
    ended: list[Json] = []

    async def wait() -> None:
        ended.append(await api.run(run, until_end=True, wait_s=60))

    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await api.event(run, "PROGRESS", 10, worker_id="w1", attempt=1)
            await api.event(run, "FAILED", worker_id="w1", attempt=1)
            assert [r["id"] for r in await api.claim()] == [run]
            await api.event(run, "STARTED", worker_id="w1", attempt=2)
            assert ended == []
            await api.event(run, "COMPLETED", worker_id="w1", attempt=2)
    assert [run["state"] for run in ended] == ["COMPLETED"]
    assert (await api.run(run, until_end=True, wait_s=60))["state"] == "COMPLETED"

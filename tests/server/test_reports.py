"""What workers report: events, repeats, stale writes, releases."""

import pytest

from .api import Api, Json

ME: Json = {"worker_id": "w1", "attempt": 1}


async def test_a_run_goes_from_claim_to_outputs(api: Api) -> None:
    run = await api.running()
    assert (await api.event(run, "PROGRESS", 40, **ME))["progress"] == 40
    await api.event(run, "INFO", "half way", **ME, payload={"x": [1]})
    done = await api.event(
        run, "COMPLETED", "done", **ME, payload={"n": 2}, summary={"gpu_ids": [1], "exit_code": 0}
    )
    assert [e["type"] for e in done["events"]] == ["COMPLETED"]  # what this report added
    told = await api.run(run)
    assert (told["state"], told["progress"], told["outputs"]) == ("COMPLETED", 100, {"n": 2})
    assert [(e["id"], e["type"], e["msg"], e["state"]) for e in told["events"][1:]] == [
        (1, "STARTED", "said", "RUNNING"),
        (2, "PROGRESS", 40, "RUNNING"),
        (3, "INFO", "half way", "RUNNING"),
        (4, "COMPLETED", "done", "COMPLETED"),
    ]
    assert told["events"][3]["payload"] == {"x": [1]}
    summary = told["execution_summary"]
    assert (summary["worker_id"], summary["exit_code"], summary["gpu_ids"]) == ("w1", 0, [1])
    assert summary["duration_ms"] >= 0


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (
            {"reason": "EXIT_CODE", "error_message": "It ended with 3.", "exit_code": 3},
            {"reason": "EXIT_CODE", "error_message": "It ended with 3.", "exit_code": 3},
        ),
        ({"reason": "SUNSPOTS"}, {"reason": "INTERNAL", "error_message": "sorry"}),
        (
            {"reason": ["x"], "error_message": 5, "exit_code": "x"},
            {"reason": "INTERNAL", "error_message": "sorry", "exit_code": None},
        ),
        ({}, {"reason": "INTERNAL", "error_message": "sorry", "exit_code": None}),
    ],
)
async def test_a_failure_says_why(api: Api, payload: Json, expected: Json) -> None:
    run = await api.running()
    failed = await api.event(run, "FAILED", "sorry", **ME, payload=payload)
    assert failed["state"] == "FAILED"
    summary = failed["execution_summary"]
    assert {name: summary[name] for name in expected} == expected


async def test_a_run_may_fail_before_it_starts(api: Api) -> None:
    run = await api.submit()
    await api.beat()
    await api.claim()
    payload = {"reason": "IMAGE_PULL"}
    failed = await api.event(run, "FAILED", "no such image", **ME, payload=payload)
    assert failed["execution_summary"]["reason"] == "IMAGE_PULL"
    assert failed["execution_summary"]["duration_ms"] is None


async def test_a_run_cannot_complete_before_it_starts(api: Api) -> None:
    run = await api.submit()
    await api.beat()
    await api.claim()
    await api.event(run, "COMPLETED", **ME, status=409)


@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_the_same_end_twice_is_200_and_another_one_409(api: Api, kind: str) -> None:
    run = await api.running()
    payload = {"a": 1}
    await api.event(run, kind, **ME, payload=payload)
    before = await api.run(run)
    again = await api.event(run, kind, **ME, payload=payload)
    assert (again["state"], again["events"]) == (kind, [])
    for other in {"COMPLETED", "FAILED", "CANCELLED"} - {kind}:
        assert "already" in (await api.event(run, other, **ME, status=409))["detail"]
    assert await api.run(run) == before


async def test_the_same_kind_of_end_with_other_outputs_is_409(api: Api) -> None:
    run = await api.running()
    await api.event(run, "COMPLETED", **ME, payload={"a": 1})
    await api.event(run, "COMPLETED", **ME, payload={"a": 2}, status=409)
    assert (await api.run(run))["outputs"] == {"a": 1}


async def test_a_repeated_seq_adds_nothing(api: Api) -> None:
    run = await api.running()
    for seq in (0, 1, 0, 1, 5, 4, 5):
        await api.event(run, "INFO", f"line {seq}", **ME, seq=seq)
    lines = [e["msg"] for e in (await api.run(run))["events"] if e["type"] == "INFO"]
    assert lines == ["line 0", "line 1", "line 5"]
    await api.event(run, "COMPLETED", **ME, seq=6)
    await api.event(run, "INFO", "line 5", **ME, seq=5)  # late repeat: harmless
    await api.event(run, "INFO", "line 7", **ME, seq=7, status=409)  # news: too late


async def test_started_twice_by_the_same_worker_is_a_repeat(api: Api) -> None:
    run = await api.running()
    assert (await api.event(run, "STARTED", **ME))["events"] == []


@pytest.mark.parametrize(
    "who", [{"worker_id": "w2", "attempt": 1}, {"worker_id": "w1", "attempt": 2}, {"attempt": 2}]
)
@pytest.mark.parametrize("kind", ["INFO", "COMPLETED", "STARTED"])
async def test_a_write_of_another_worker_or_attempt_is_409(api: Api, who: Json, kind: str) -> None:
    run = await api.running()
    before = await api.run(run)
    assert (await api.event(run, kind, **who, status=409))["detail"]
    assert await api.run(run) == before


async def test_a_stale_attempt_is_refused_with_409(api: Api) -> None:
    run = await api.running()
    await api.post(f"/runs/{run}/release", {**ME, "reason": "SHUTDOWN"})
    await api.event(run, "INFO", **ME, status=409)
    await api.claim()
    await api.event(run, "STARTED", **ME, status=409)
    await api.event(run, "COMPLETED", **ME, status=409)
    await api.event(run, "STARTED", worker_id="w1", attempt=2)


async def test_an_unclaimed_run_takes_no_worker_events(api: Api) -> None:
    run = await api.submit()
    await api.event(run, "STARTED", worker_id="w1", status=409)
    await api.event(run, "STARTED", worker_id="w1", attempt=0, status=409)


@pytest.mark.parametrize(
    "body",
    [
        {"type": "PROGRESS", "msg": 101},
        {"type": "PROGRESS", "msg": -1},
        {"type": "PROGRESS", "msg": "40"},
        {"type": "PROGRESS", "msg": True},
        {"type": "ASSIGNED", "msg": ""},
        {"type": "RETRIED", "msg": ""},
        {"type": "DANCED", "msg": ""},
        {"type": "INFO", "msg": "x", "payload": [1]},
        {"type": "INFO", "msg": "x", "worker_id": "../w"},
        {"type": "INFO", "msg": "x", "seq": -1},
        {"msg": "x"},
    ],
)
async def test_a_malformed_event_is_422(api: Api, body: Json) -> None:
    run = await api.running()
    assert await api.detail("POST", f"/runs/{run}/events", 422, json=body)
    assert len((await api.run(run))["events"]) == 2


async def test_a_script_runs_a_run_by_hand(api: Api) -> None:
    run = await api.submit()
    started = await api.event(run, "STARTED")
    assert (started["state"], started["current_attempt"], started["worker_id"]) == (
        "RUNNING",
        1,
        None,
    )
    await api.event(run, "PROGRESS", 10)
    await api.event(run, "COMPLETED", payload={"ok": True})
    assert (await api.run(run))["outputs"] == {"ok": True}
    await api.event(run, "INFO", status=409)
    await api.event(run, "STARTED", status=409)


async def test_events_without_a_worker_reach_a_run_that_a_worker_holds(api: Api) -> None:
    run = await api.running()
    await api.event(run, "INFO", "from outside")
    assert (await api.event(run, "FAILED", "from outside"))["state"] == "FAILED"


async def test_a_script_cancels_a_run_that_waits_for_its_next_attempt(api: Api) -> None:
    run = await api.running(retry_policy={"max_attempts": 2})
    await api.event(run, "FAILED", **ME)
    await api.event(run, "FAILED", status=409, payload={"other": 1})
    assert (await api.event(run, "CANCELLED"))["state"] == "CANCELLED"
    assert (await api.event(run, "CANCELLED"))["state"] == "CANCELLED"
    await api.post(f"/runs/{run}/retry")
    await api.claim()
    await api.post(f"/runs/{run}/release", {"worker_id": "w1", "attempt": 2, "reason": "x"})
    assert (await api.event(run, "CANCELLED"))["state"] == "CANCELLED"


async def test_a_failure_is_retried_as_the_policy_says(api: Api) -> None:
    run = await api.running(retry_policy={"max_attempts": 2})
    failed = await api.event(run, "FAILED", **ME, payload={"reason": "OUTPUT_INVALID"})
    assert failed["state"] == "PENDING"
    assert [e["type"] for e in failed["events"]] == ["FAILED", "RETRIED"]
    repeat = await api.event(run, "FAILED", **ME, payload={"reason": "OUTPUT_INVALID"})
    assert (repeat["state"], repeat["events"]) == ("PENDING", [])
    await api.claim()
    last = await api.event(run, "FAILED", worker_id="w1", attempt=2)
    assert last["state"] == "FAILED"
    await api.post(f"/runs/{run}/retry")  # a person's retry starts the policy anew
    await api.claim()
    assert (await api.event(run, "FAILED", worker_id="w1", attempt=3))["state"] == "PENDING"

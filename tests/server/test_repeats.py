"""Reports that come twice, late or out of order: each has its effect once or not at all."""

from collections.abc import Awaitable, Callable

import pytest

from .api import Api, Json

ME: Json = {"worker_id": "w1", "attempt": 1}
FAILED: Json = {"reason": "EXIT_CODE", "error_message": "It ended with 3.", "exit_code": 3}


async def lines(api: Api, run: str) -> list[str]:
    return [e["msg"] for e in (await api.run(run))["events"] if e["type"] == "INFO"]


async def test_a_repeated_batch_with_gaps_adds_nothing(api: Api) -> None:
    run = await api.running()
    for _ in range(2):
        for seq in (2, 3, 7, 20):
            await api.event(run, "INFO", f"line {seq}", **ME, seq=seq)
    assert await lines(api, run) == ["line 2", "line 3", "line 7", "line 20"]


@pytest.mark.parametrize("seq", [0, 5, 99])
async def test_started_again_under_any_number_is_a_repeat(api: Api, seq: int) -> None:
    run = await api.running()
    await api.event(run, "INFO", "first", **ME, seq=5)
    before = await api.run(run)
    again = await api.event(run, "STARTED", **ME, seq=seq)
    assert (again["state"], again["events"]) == ("RUNNING", [])
    assert await api.run(run) == before
    await api.event(run, "INFO", "second", **ME, seq=6)
    assert await lines(api, run) == ["first", "second"]


@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED"])
async def test_an_end_is_taken_from_a_worker_that_lost_count_of_its_numbers(
    api: Api, kind: str
) -> None:
    run = await api.submit()
    await api.beat()
    await api.claim()
    await api.event(run, "INFO", "pulling", **ME, seq=9)
    assert (await api.event(run, "STARTED", **ME, seq=0))["state"] == "RUNNING"
    await api.event(run, "INFO", "pulling", **ME, seq=9)
    assert await lines(api, run) == ["pulling"]
    assert (await api.event(run, kind, **ME, seq=1, payload=FAILED))["state"] == kind


async def test_another_end_under_the_number_of_the_first_is_refused(api: Api) -> None:
    run = await api.running()
    await api.event(run, "FAILED", **ME, seq=4, payload=FAILED)
    await api.event(run, "COMPLETED", **ME, seq=4, payload={}, status=409)
    await api.event(run, "FAILED", **ME, seq=4, payload={}, status=409)
    assert (await api.event(run, "FAILED", **ME, seq=4, payload=FAILED))["events"] == []


async def test_a_failure_told_again_after_the_retry_policy_is_taken_once(api: Api) -> None:
    run = await api.running(retry_policy={"max_attempts": 3})
    await api.event(run, "FAILED", **ME, seq=4, payload=FAILED)

    async def repeat() -> None:
        before = await api.run(run)
        again = await api.event(run, "FAILED", **ME, seq=4, payload=FAILED)
        assert (again["state"], again["events"]) == (before["state"], [])
        await api.event(run, "FAILED", **ME, seq=4, payload={"other": 1}, status=409)
        await api.event(run, "COMPLETED", **ME, seq=5, status=409)
        assert await api.run(run) == before

    assert (await api.run(run))["state"] == "PENDING"
    await repeat()
    await api.claim()
    await repeat()
    second: Json = {"worker_id": "w1", "attempt": 2}
    await api.event(run, "STARTED", **second, seq=0)
    await repeat()
    await api.event(run, "FAILED", **second, seq=1, payload={"reason": "TIMED_OUT"})
    await repeat()
    assert [attempt["state"] for attempt in await api.get(f"/runs/{run}/attempts")] == [
        "FAILED",
        "FAILED",
    ]


async def taken_away(api: Api, run: str) -> None:
    await api.ask("PATCH", f"/runs/{run}", json={"state": "PENDING"})


async def given_back(api: Api, run: str) -> None:
    await api.post(f"/runs/{run}/release", {**ME, "reason": "SHUTDOWN"})


@pytest.mark.parametrize("lose", [taken_away, given_back])
@pytest.mark.parametrize("claimed", [False, True], ids=["waiting", "claimed again"])
async def test_every_late_word_of_a_lost_attempt_is_refused(
    api: Api, lose: Callable[[Api, str], Awaitable[None]], claimed: bool
) -> None:
    run = await api.running()
    await api.event(run, "INFO", "in time", **ME, seq=3)
    await lose(api, run)
    if claimed:
        await api.beat("w2")
        assert [r["current_attempt"] for r in await api.claim("w2")] == [2]
        chunk = {"offset": 0, "data": "late", **ME}
        await api.detail("POST", f"/runs/{run}/logs", 409, json=chunk)
    before = await api.run(run)
    for kind in ("STARTED", "INFO", "ERROR", "COMPLETED", "FAILED", "CANCELLED"):
        for seq in (0, 3, 4):  # also what the server has already: it is how the worker hears of it
            await api.event(run, kind, **ME, seq=seq, status=409)
    await api.event(run, "PROGRESS", 50, **ME, seq=4, status=409)
    assert await api.run(run) == before


async def test_the_last_log_lines_of_a_lost_attempt_are_kept_until_the_next_begins(
    api: Api,
) -> None:
    run = await api.running()
    await taken_away(api, run)
    for _ in range(2):
        chunk = {"offset": 0, "data": "last words", **ME}
        assert (await api.post(f"/runs/{run}/logs", chunk))["offset"] == 10
    assert (await api.client.get(f"/runs/{run}/logs")).text == "last words"

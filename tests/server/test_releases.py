"""Runs given back by their worker, and those that may be the cause of it."""

from typing import Any

import pytest

from gyoza.models import ReleaseReason

from .api import Api, Json

ME: Json = {"worker_id": "w1", "attempt": 1}


async def test_a_release_puts_the_run_back_without_using_up_attempts(api: Api) -> None:
    run = await api.running()
    body = {**ME, "reason": "SHUTDOWN"}
    released = await api.post(f"/runs/{run}/release", body)
    assert (released["state"], released["progress"]) == ("PENDING", 0)
    assert released["events"][0]["type"] == "RETRIED"
    assert released["events"][0]["payload"] == {"reason": "SHUTDOWN"}
    assert (await api.post(f"/runs/{run}/release", body))["events"] == []
    assert [r["current_attempt"] for r in await api.claim()] == [2]
    assert (await api.post(f"/runs/{run}/release", body))["state"] == "ASSIGNED"  # still a repeat
    second = {**body, "attempt": 2}
    assert (await api.post(f"/runs/{run}/release", second))["state"] == "PENDING"
    (first, _) = await api.get(f"/runs/{run}/attempts")
    assert first["state"] == "CANCELLED"


@pytest.mark.parametrize("change", [{"worker_id": "w2"}, {"attempt": 2}, {"attempt": 0}])
async def test_only_the_holder_releases(api: Api, change: dict[str, Any]) -> None:
    run = await api.running()
    await api.detail("POST", f"/runs/{run}/release", 409, json={**ME, **change})
    await api.post(f"/runs/{run}/cancel")
    assert "CANCELLED" in await api.detail("POST", f"/runs/{run}/release", 409, json=ME)


@pytest.mark.parametrize("reason", [*ReleaseReason, "", "a wörd of my own\n"])
async def test_the_reason_of_a_release_is_told_whatever_it_is(api: Api, reason: str) -> None:
    run = await api.running()
    released = await api.post(f"/runs/{run}/release", {**ME, "reason": reason})
    (event,) = released["events"]
    assert (event["type"], event["payload"]) == ("RETRIED", {"reason": reason})
    assert reason in event["msg"]
    assert released["execution_summary"]["error_message"] == event["msg"]
    assert released["execution_summary"]["reason"] is None


async def given_back(api: Api, reason: str, times: int) -> Json:
    """Return a run that was claimed and given back so many times."""
    run = await api.submit(retry_policy={"max_attempts": 9})
    await api.beat()
    for attempt in range(1, times + 1):
        assert [r["current_attempt"] for r in await api.claim()] == [attempt]
        await api.event(run, "STARTED", worker_id="w1", attempt=attempt)
        body = {"worker_id": "w1", "attempt": attempt, "reason": reason}
        await api.post(f"/runs/{run}/release", body)
    return await api.run(run)


@pytest.mark.parametrize("reason", ["ENGINE_RESTARTED", "WORKER_RESTARTED"])
async def test_a_run_fails_with_the_fifth_engine_or_worker_that_went_down_under_it(
    api: Api, reason: str
) -> None:
    spared = await given_back(api, reason, 4)
    assert spared["state"] == "PENDING"
    await api.post(f"/runs/{spared['id']}/cancel")
    failed = await given_back(api, reason, 5)
    assert (failed["state"], failed["execution_summary"]["reason"]) == ("FAILED", "WORKER_LOST")
    assert "it may be what kills them" in failed["execution_summary"]["error_message"]
    assert failed["events"][-1]["type"] == "FAILED"
    attempts = await api.get(f"/runs/{failed['id']}/attempts")
    assert [attempt["state"] for attempt in attempts] == ["CANCELLED"] * 4 + ["FAILED"]


@pytest.mark.parametrize("reason", ["SHUTDOWN", "FENCED", "of my own"])
async def test_a_run_may_be_given_back_for_other_reasons_as_often_as_it_takes(
    api: Api, reason: str
) -> None:
    assert (await given_back(api, reason, 7))["state"] == "PENDING"

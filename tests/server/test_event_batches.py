"""Events that a worker tells many at a time."""

from typing import Any

import pytest

from gyoza.server.store import op_events
from tests.server.api import Api, Json

ME: Json = {"worker_id": "w1", "attempt": 1}


def saying(seq: int, kind: str = "INFO", msg: Any = "said") -> Json:
    return {"type": kind, "msg": msg, "payload": {"seq": seq}, "seq": seq}


async def tell(api: Api, run: str, *events: Json, status: int = 200, **more: Any) -> Json:
    body = {**ME, "events": [*events], **more}
    return await api.post(f"/runs/{run}/events/batch", body, status)


async def told(api: Api, run: str) -> list[tuple[int, str, Any]]:
    """Return what was told since the start."""
    events = (await api.run(run))["events"]
    assert [event["id"] for event in events] == [*range(len(events))]
    return [(e["payload"]["seq"], e["type"], e["msg"]) for e in events[2:]]


async def test_a_batch_is_taken_in_its_order(api: Api) -> None:
    run = await api.running(event_delivery={"topic": "t", "attributes": {"a": 1}})
    answer = await tell(
        api, run, saying(2), saying(3, "PROGRESS", 20), saying(5, "ERROR", "x"), saying(6)
    )
    assert answer == {"state": "RUNNING"}
    assert await told(api, run) == [
        (2, "INFO", "said"),
        (3, "PROGRESS", 20),
        (5, "ERROR", "x"),
        (6, "INFO", "said"),
    ]
    found = await api.run(run)
    assert (found["progress"], found["state"]) == (20, "RUNNING")
    feed = (await api.get("/events", topic="t"))["data"]
    assert [item["event"]["type"] for item in feed[-4:]] == ["INFO", "PROGRESS", "ERROR", "INFO"]
    assert [item["event"]["id"] for item in feed] == [*range(len(feed))]
    assert feed[-1]["attributes"] == {"a": 1}


async def test_what_comes_twice_is_taken_once(api: Api) -> None:
    run = await api.running()
    await tell(api, run, saying(2), saying(3))
    await tell(api, run, saying(2), saying(3))
    await tell(api, run, saying(3), saying(4))
    await api.event(run, "INFO", "said", **ME, seq=4)
    assert [seq for seq, _, _ in await told(api, run)] == [2, 3, 4]
    await tell(api, run)
    assert len(await told(api, run)) == 3


async def test_a_batch_wakes_who_waits_for_the_run(api: Api) -> None:
    run = await api.running()
    await tell(api, run, saying(2), saying(3))
    found = await api.run(run, after_event=1, wait_s=60)
    assert len(found["events"]) == 2


async def test_a_stale_batch_is_refused_and_nothing_of_it_taken(api: Api) -> None:
    run = await api.running()
    await tell(api, run, saying(2), status=409, worker_id="w2")
    await tell(api, run, saying(2), status=409, attempt=2)
    assert await told(api, run) == []
    await api.post(f"/runs/{run}/cancel", {})
    assert "already CANCELLED" in (await tell(api, run, saying(2), status=409))["detail"]
    await tell(api, "nothing", saying(2), status=404)


@pytest.mark.parametrize(
    "event",
    [
        saying(2, "COMPLETED"),
        saying(2, "PROGRESS", 101),
        saying(2, "PROGRESS", "x"),
        {"type": "INFO", "msg": "without a number"},
    ],
)
async def test_a_batch_with_one_wrong_event_is_refused(api: Api, event: Json) -> None:
    run = await api.running()
    await tell(api, run, saying(1), event, status=422)
    assert await told(api, run) == []


async def test_a_batch_has_room_or_is_refused_as_a_whole(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await api.running()
    monkeypatch.setattr(op_events, "EVENTS", 4)
    answer = await tell(api, run, saying(2), saying(3), saying(4), status=413)
    assert "may be 4" in answer["detail"]
    assert await told(api, run) == []
    await tell(api, run, saying(2), saying(3))
    assert len(await told(api, run)) == 2


async def test_one_event_of_a_batch_may_be_no_larger_than_any(api: Api) -> None:
    run = await api.running()
    large = saying(3) | {"payload": {"text": "x" * (1024 * 1024)}}
    assert "1 MiB" in (await tell(api, run, saying(2), large, status=413))["detail"]
    assert await told(api, run) == []

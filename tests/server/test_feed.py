"""The event feed of a topic."""

import trio
from trio.testing import wait_all_tasks_blocked

from .api import Api, Json


async def test_a_topic_has_the_events_of_its_runs_in_order(api: Api) -> None:
    delivery = {"topic": "t", "attributes": {"team": "a"}}
    run = await api.running(event_delivery=delivery)
    await api.running(worker="w2", event_delivery={"topic": "other"})
    await api.running(worker="w3")
    await api.event(run, "PROGRESS", 50, worker_id="w1", attempt=1)
    other = await api.submit(event_delivery=delivery)
    await api.post(f"/runs/{other}/cancel")
    feed = await api.get("/events", topic="t")
    assert [(item["run_id"], item["attempt"], item["event"]["type"]) for item in feed["data"]] == [
        (run, 1, "ASSIGNED"),
        (run, 1, "STARTED"),
        (run, 1, "PROGRESS"),
        (other, 0, "CANCELLED"),
    ]
    assert {item["topic"] for item in feed["data"]} == {"t"}
    assert all(item["attributes"] == {"team": "a"} for item in feed["data"])
    assert feed["data"][2]["event"] == (await api.run(run))["events"][2]
    assert feed["cursor"] == feed["data"][-1]["cursor"]


async def test_a_reader_continues_where_it_was(api: Api) -> None:
    run = await api.running(event_delivery={"topic": "t"})
    for number in range(5):
        await api.event(run, "INFO", f"{number}")
    seen: list[str] = []
    cursor = None
    while len(seen) < 7:
        params: Json = {} if cursor is None else {"after": cursor}
        page = await api.get("/events", topic="t", limit=2, **params)
        assert 0 < len(page["data"]) <= 2
        seen += [item["event"]["msg"] for item in page["data"]]
        cursor = page["cursor"]
    assert seen[2:] == ["0", "1", "2", "3", "4"]
    assert await api.get("/events", topic="t", after=cursor) == {"data": [], "cursor": cursor}


async def test_a_waiting_reader_is_woken_by_an_event(api: Api) -> None:
    run = await api.running(event_delivery={"topic": "t"})
    cursor = (await api.get("/events", topic="t"))["cursor"]
    pages: list[Json] = []

    async def wait() -> None:
        pages.append(await api.get("/events", topic="t", after=cursor, wait_s=60))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked(0.05)
        await api.event(run, "INFO", "news")
    assert [item["event"]["msg"] for item in pages[0]["data"]] == ["news"]


async def test_a_topic_without_events_is_empty(api: Api) -> None:
    assert await api.get("/events", topic="t") == {"data": [], "cursor": "0"}
    assert "topic" in await api.detail("GET", "/events", 422)
    assert "limit" in await api.detail("GET", "/events?topic=t&limit=1001", 422)
    assert "wait_s" in await api.detail("GET", "/events?topic=t&wait_s=nan", 422)

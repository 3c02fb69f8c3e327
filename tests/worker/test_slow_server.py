"""A server, or what is on the way to it, that draws out an answer holds nothing else for long."""

import pytest
import trio

from gyoza.client import ServerUnreachable
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff, server_client
from gyoza.worker.backoff import LONG_POLL_S
from gyoza.worker.runner import claim_loop, heartbeats
from gyoza.worker.server_client import LIMIT_S, WorkerClient
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.programs import sleep_for_ever

RUN = "run-1"
EVENTS = f"POST /runs/{RUN}/events"
LOGS = f"POST /runs/{RUN}/logs"
RELEASE = f"POST /runs/{RUN}/release"
CLAIM = "POST /workers/w1/claim"
BEAT = "POST /workers/heartbeat"


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_client, "LIMIT_S", 0.3)
    monkeypatch.setattr(claim_loop, "LONG_POLL_S", 0.1)
    monkeypatch.setattr(claim_loop, "REPORT_S", 0.3)
    monkeypatch.setattr(heartbeats, "LIMIT_S", 0.3)
    monkeypatch.setattr(heartbeats, "LEAST_LIMIT_S", 0.3)
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)


async def given_up(server: SmallServer, request: str) -> None:
    """Wait until an answer to this request was drawn out and it has been made again."""
    before = server.requests.count(request)
    await server.wait_until(lambda: server.requests.count(request) > before + 1)


def test_no_wait_is_longer_than_what_proxies_and_people_bear() -> None:
    assert LONG_POLL_S <= 25
    assert LIMIT_S < 60


@pytest.mark.parametrize("request_", [EVENTS, LOGS])
async def test_a_drawn_out_answer_to_a_report_does_not_keep_the_result(
    request_: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    async def write(container: FakeContainer) -> int:
        await container.stdout(b"words\n")
        return 0

    server.keeps_logs = True
    engine.add_image("writing", write)
    server.drip(request_)
    server.submit(RUN, "writing")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await given_up(server, request_)
            server.reveal()
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert server.told == ["STARTED", "COMPLETED"]
    assert server.logs[RUN] == "words\n"


async def test_a_drawn_out_claim_is_given_up_for_the_next(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    server.drip(CLAIM)
    server.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker():
            await given_up(server, CLAIM)
            server.reveal()
            await server.wait_for_event("COMPLETED", RUN)


async def test_a_drawn_out_heartbeat_is_given_up_for_the_next(
    server: SmallServer, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.01) as worker:
            server.drip(BEAT)
            await given_up(server, BEAT)
            server.reveal()
            await worker.contact.answered.wait()
    assert "has not answered within 0.3 s" in caplog.text


@pytest.mark.parametrize("request_", [EVENTS, RELEASE])
async def test_what_a_server_is_told_of_runs_not_taken_does_not_keep_the_next_claim(
    request_: str, server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("quick")
    engine.add_image("sleeper", sleep_for_ever)
    server.drip(request_)
    if request_ == EVENTS:  # refused by the worker's policy
        server.submit(RUN, "quick", constraints="much")
    with trio.fail_after(200):
        async with start_worker(max_concurrency=1) as worker:
            if request_ == RELEASE:  # more than were asked for
                server.hand_out = [
                    {"id": "run-0", "image": "quick", "inputs": {}, "state": "ASSIGNED"},
                    {"id": RUN, "image": "quick", "inputs": {}, "state": "ASSIGNED"},
                ]
                server.submit("run-0", "quick")
                server.take("run-0")
            await server.wait_until(lambda: request_ in server.requests)
            server.submit("run-2", "quick")
            await server.wait_for_event("COMPLETED", "run-2")
            await end_of(worker, "run-2")


async def test_an_attempt_that_still_tells_its_log_keeps_no_other_run_from_being_claimed(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    async def write(container: FakeContainer) -> int:
        await container.stdout(b"words\n")
        return await sleep_for_ever(container)

    server.keeps_logs = True
    engine.add_image("writing", write)
    engine.add_image("quick")
    server.drip(LOGS)
    server.submit(RUN, "writing", current_attempt=1)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_until(lambda: LOGS in server.requests)
            server.cancel(RUN)
            await server.wait_until(lambda: not engine.containers)
            server.runs[RUN] |= {"image": "quick", "current_attempt": 2, "state": "ASSIGNED"}
            server.hand_out_again(RUN)
            await server.wait_until(lambda: worker.active.has_attempt(RUN, 2))
            assert worker.active.ids == [RUN]
            server.submit("run-2", "quick")
            await server.wait_for_event("COMPLETED", "run-2")
            assert worker.active.has_attempt(RUN, 1)
            server.reveal()
            completed = await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert completed["attempt"] == 2


async def test_a_call_that_no_memory_is_left_for_counts_as_unheard(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    async with WorkerClient(server.url, "key") as client:
        client.check()
        monkeypatch.setattr("httpx.AsyncClient.stream", exhausted)
        with pytest.raises(ServerUnreachable, match="this worker lacks memory"):
            await client.get_run(RUN)


async def test_an_error_of_the_clients_own_is_not_taken_for_a_lack(
    server: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    async with WorkerClient(server.url, "key") as client:
        client.check()
        monkeypatch.setattr("httpx.AsyncClient.stream", broken)
        with pytest.raises(RuntimeError, match="broken"):
            await client.get_run(RUN)

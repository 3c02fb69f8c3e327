"""Only the server's own words are answers: whatever else comes back means that it is away."""

import pytest
import trio

from gyoza.client import long_poll
from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker import backoff
from gyoza.worker.backoff import LONG_POLL_S
from gyoza.worker.errors import EngineError
from gyoza.worker.reports import logs
from gyoza.worker.runner import state_refresh
from gyoza.worker.runner.active_runs import CancelReason
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of
from tests.worker.earlier_life import EarlierLife, earlier
from tests.worker.programs import sleep_for_ever

__all__ = ["earlier"]

RUN = "run-1"
EVENTS = f"POST /runs/{RUN}/events"
BATCH = f"POST /runs/{RUN}/events/batch"
LOGS = f"POST /runs/{RUN}/logs"
PUT = f"PUT /runs/{RUN}/logs"
RELEASE = f"POST /runs/{RUN}/release"
STATE = f"GET /runs/{RUN}"
CHANGES = "GET /workers/w1/changes"
BEAT = "POST /workers/heartbeat"
CLAIM = "POST /workers/w1/claim"

PAGE = b"<html>Log in, please.</html>"
FOREIGN = [
    *((status, PAGE) for status in (521, 413, 404, 409, 400, 401, 403, 500, 302, 200)),
    (200, b""),
    (200, b"{}"),
    (204, b""),
    (404, b'{"error": "no route"}'),
]


@pytest.fixture(autouse=True)
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_S", 0.01)
    monkeypatch.setattr(backoff, "CAP_S", 0.05)


@pytest.fixture
def gyoza(server: SmallServer) -> SmallServer:
    """A server that names its lease, as all but small ones do."""
    server.lease_s = 60
    server.keeps_logs = server.keeps_batches = server.takes_back = True
    server.changes = [{"states": {}, "cursor": "1"}]
    return server


async def asked_again(server: SmallServer, *requests: str, times: int = 3) -> None:
    """Wait until each of these requests has come that often since now."""
    before = {request: server.requests.count(request) for request in requests}
    for request, count in before.items():
        await server.wait_until(
            lambda request=request, count=count: server.requests.count(request) >= count + times
        )


class Slow:
    """A program that says something and goes on when it is told to."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def __call__(self, container: FakeContainer) -> int:
        await container.stdout(b'one\n::gyoza::{"type": "INFO", "msg": "x"}\n')
        await self.go_on.wait()
        told = (f'::gyoza::{{"type": "INFO", "msg": "{n}"}}\n' for n in range(3))
        await container.stdout("".join(["two\n", *told]).encode())
        return 0


@pytest.mark.parametrize(("status", "body"), FOREIGN)
async def test_a_result_arrives_once_whatever_answers_in_the_servers_place(
    status: int,
    body: bytes,
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    program = Slow()
    engine.add_image("slow", program)
    gyoza.submit(RUN, "slow")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await gyoza.wait_until(lambda: gyoza.logs.get(RUN) == "one\n" and len(gyoza.told) == 2)
            gyoza.hide(EVENTS, BATCH, LOGS, PUT, STATE, CHANGES, CLAIM, status=status, body=body)
            program.go_on.set()
            reports = gyoza.requests.count(EVENTS)
            await asked_again(gyoza, LOGS, CLAIM)
            await gyoza.wait_until(
                lambda: gyoza.requests.count(EVENTS) + gyoza.requests.count(BATCH) > reports + 3
            )
            gyoza.reveal()
            await gyoza.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert gyoza.told == ["STARTED", "INFO", "INFO", "INFO", "INFO", "COMPLETED"]
    assert gyoza.logs[RUN] == "one\ntwo\n"
    assert gyoza.whole_logs == {RUN}
    assert not gyoza.releases


@pytest.mark.parametrize(
    ("status", "body"),
    [answer for answer in FOREIGN if answer[0] > 204 or answer[1] == PAGE],  # no small server's
)
async def test_a_worker_starts_as_soon_as_it_meets_its_server(
    status: int, body: bytes, gyoza: SmallServer, start_worker: StartWorker
) -> None:
    gyoza.hide(BEAT, status=status, body=body)
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:

            async def reveal() -> None:
                await asked_again(gyoza, BEAT)
                gyoza.reveal()

            nursery.start_soon(reveal)
            async with start_worker(heartbeat_s=0.01):
                pass
    assert gyoza.heartbeats


@pytest.mark.parametrize(("status", "body"), FOREIGN)
async def test_an_answer_to_a_heartbeat_that_names_no_lease_any_more_is_none(
    status: int, body: bytes, gyoza: SmallServer, start_worker: StartWorker
) -> None:
    with trio.fail_after(200):
        async with start_worker(heartbeat_s=0.01) as worker:
            gyoza.hide(BEAT, status=status, body=body)
            await asked_again(gyoza, BEAT)
            reached_at = worker.contact.reached_at
            await asked_again(gyoza, BEAT)
            assert worker.contact.reached_at == reached_at
            gyoza.reveal()
            await worker.contact.answered.wait()


@pytest.mark.parametrize(("status", "body"), FOREIGN)
async def test_a_run_of_an_earlier_life_is_kept_until_the_server_itself_says_whose_it_is(
    status: int, body: bytes, earlier: EarlierLife, gyoza: SmallServer, start_worker: StartWorker
) -> None:
    record = earlier.claimed()
    earlier.container(record, state="exited")
    record.note_starting([])
    record.close()
    gyoza.hide(STATE, status=status, body=body)
    with trio.fail_after(200):
        async with start_worker() as worker:
            await asked_again(gyoza, STATE)
            gyoza.reveal()
            await end_of(worker, RUN)
    assert gyoza.told == ["COMPLETED"]


@pytest.mark.parametrize(("status", "body"), FOREIGN)
async def test_changes_are_followed_on_when_the_server_is_back(
    status: int,
    body: bytes,
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    gyoza.submit(RUN, "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await gyoza.wait_for_event("STARTED", RUN)
            gyoza.hide(CHANGES, status=status, body=body)
            await asked_again(gyoza, CHANGES)
            gyoza.changes.append({"states": {RUN: "CANCELLED"}, "cursor": "2"})
            gyoza.reveal()
            await end_of(worker, RUN)
    assert STATE not in gyoza.requests


@pytest.mark.parametrize(("status", "body"), FOREIGN)
async def test_a_run_is_given_back_as_soon_as_the_server_hears_of_it(
    status: int,
    body: bytes,
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    engine.add_image("quick")
    engine.failures["create"] = EngineError("no space left on device")
    gyoza.hide(RELEASE, status=status, body=body)
    gyoza.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await asked_again(gyoza, RELEASE)
            assert worker.active.ids == [RUN]  # its lease goes on meanwhile
            gyoza.reveal()
            await gyoza.wait_for_event("COMPLETED", RUN)
    assert [release["reason"] for release in gyoza.releases] == ["WORKER_LACKS"]


async def test_where_long_waits_are_cut_a_worker_asks_for_shorter_ones(
    gyoza: SmallServer, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_poll, "LEAST_S", 0.0)  # the small server does not wait at all
    with trio.fail_after(200):
        async with start_worker():
            await asked_again(gyoza, CLAIM, CHANGES, times=1)
            gyoza.hide(CLAIM, CHANGES, status=504, body=PAGE)
            await asked_again(gyoza, CLAIM, CHANGES)
            before = len(gyoza.claims)
            gyoza.reveal()
            await asked_again(gyoza, CLAIM, CHANGES)
    usual_s = LONG_POLL_S / 2
    assert gyoza.claims[0]["wait_s"] >= usual_s
    assert all(claim["wait_s"] < usual_s for claim in gyoza.claims[before:])
    assert gyoza.waits[0] >= usual_s
    assert gyoza.waits[-1] < usual_s


async def test_a_server_that_says_itself_that_it_tells_no_changes_is_asked_again_later(
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_refresh, "ASK_AGAIN_S", 0.05)
    gyoza.changes = []
    with trio.fail_after(200):
        async with start_worker():
            await asked_again(gyoza, CHANGES)


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_small_server_needs_no_words_to_say_what_it_does_not_know(
    status: int,
    server: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "PLAIN_FROM", 1)
    program = Slow()
    program.go_on.set()
    engine.add_image("quick", program)
    engine.add_image("sleeper", sleep_for_ever)
    server.hide(BATCH, LOGS, PUT, CHANGES, status=status, body=b"")
    server.submit(RUN, "quick")
    server.submit("run-2", "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
            await server.wait_for_event("STARTED", "run-2")
            server.cancel("run-2")
            await end_of(worker, "run-2")
    assert [e["type"] for e in server.events if e["run_id"] == RUN][-1] == "COMPLETED"
    assert server.requests.count(LOGS) == 1
    assert server.requests.count(BATCH) <= 1


async def test_a_small_server_that_takes_nothing_back_need_not_say_so_in_words(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    engine.add_image("sleeper", sleep_for_ever)
    server.hide(RELEASE, status=404, body=b"")
    server.submit(RUN, "sleeper")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await server.wait_for_event("STARTED", RUN)
            worker.drain()
            worker.active.trip_all(CancelReason.SHUTDOWN)
            await end_of(worker, RUN)
    assert server.requests.count(RELEASE) == 1


@pytest.mark.parametrize("status", [413, 405, 403])
async def test_much_text_goes_as_json_through_a_proxy_that_does_not_take_it_as_it_is(
    status: int,
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "PLAIN_FROM", 1)
    program = Slow()
    program.go_on.set()
    engine.add_image("quick", program)
    gyoza.hide(PUT, status=status)
    gyoza.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await gyoza.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert gyoza.logs[RUN] == "one\ntwo\n"


async def test_a_log_goes_in_smaller_pieces_through_a_proxy_that_finds_them_too_large(
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def write(container: FakeContainer) -> int:
        await container.stdout(b"x" * 5000)
        return 0

    monkeypatch.setattr(logs, "CHUNK", 4000)
    monkeypatch.setattr(logs, "LEAST_CHUNK", 1500)
    engine.add_image("writing", write)
    gyoza.most_text = 2000
    gyoza.submit(RUN, "writing")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await gyoza.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert gyoza.logs[RUN] == "x" * 5000
    assert gyoza.whole_logs == {RUN}


async def test_a_proxy_that_finds_every_piece_too_large_does_not_end_the_log(
    gyoza: SmallServer,
    engine: FakeContainerEngine,
    start_worker: StartWorker,
) -> None:
    program = Slow()
    program.go_on.set()
    engine.add_image("quick", program)
    gyoza.most_text = 1
    gyoza.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await asked_again(gyoza, LOGS, times=12)
            gyoza.most_text = None
            await end_of(worker, RUN)
    assert gyoza.logs[RUN] == "one\ntwo\n"


async def test_an_event_that_a_proxy_finds_too_large_with_others_goes_alone(
    gyoza: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    program = Slow()
    program.go_on.set()
    engine.add_image("quick", program)
    gyoza.hide(BATCH, status=413)
    gyoza.submit(RUN, "quick")
    with trio.fail_after(200):
        async with start_worker() as worker:
            await gyoza.wait_for_event("COMPLETED", RUN)
            await end_of(worker, RUN)
    assert gyoza.told == ["STARTED", *["INFO"] * 4, "COMPLETED"]
    assert gyoza.requests.count(BATCH) <= 1

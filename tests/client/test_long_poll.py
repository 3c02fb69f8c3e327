"""How long somebody asks the server to wait, if something on the way waits for less."""

from collections.abc import Callable

import httpx
import pytest
import trio
from trio.testing import MockClock

from gyoza.client import ApiError, ForeignAnswer, ServerUnreachable, UnexpectedAnswer
from gyoza.client.connection import Connection
from gyoza.client.long_poll import AGAIN_S, LEAST_S, LongPoll

CONNECTION = Connection("http://server")
REQUEST = httpx.Request("GET", "http://server/runs/r1")


def says(status: int) -> Exception:
    """Return the error for a page with this status."""
    return ForeignAnswer(httpx.Response(status, request=REQUEST), f"answered {status}")


def server_says(status: int) -> Exception:
    return ApiError(httpx.Response(status, request=REQUEST), "So it is.")


def cut(error: httpx.TransportError) -> Exception:
    return CONNECTION.told(error)


class Way:
    """The way to a server that never has news, and what is on it.

    Attributes:
        asked: The waits that were asked for.
    """

    def __init__(self, clock: MockClock, patience_s: float, failure: Exception) -> None:
        self._clock = clock
        self._patience_s = patience_s
        self._failure = failure
        self.asked: list[float] = []

    def ask(self, poll: LongPoll) -> bool:
        """Ask once; return whether the server itself has answered."""
        try:
            with poll.asking() as wait_s:
                self.asked.append(wait_s)
                self._clock.jump(min(wait_s, self._patience_s))
                if wait_s >= self._patience_s:
                    raise self._failure
        except (ApiError, ServerUnreachable, UnexpectedAnswer):
            return False
        return True


CUTS: list[Callable[[], Exception]] = [
    lambda: says(504),
    lambda: says(502),
    lambda: says(408),
    lambda: says(524),
    lambda: cut(httpx.ReadError("")),
    lambda: cut(httpx.ReadTimeout("")),
    lambda: cut(httpx.RemoteProtocolError("Server disconnected without sending a response.")),
]


@pytest.mark.parametrize("failure", CUTS)
@pytest.mark.parametrize("patience_s", [2.0, 5.0, 15.0])
async def test_after_a_cut_less_is_asked_for_and_answered(
    failure: Callable[[], Exception], patience_s: float, mock_clock: MockClock
) -> None:
    way = Way(mock_clock, patience_s, failure())
    poll = LongPoll(20.0)
    assert [way.ask(poll) for _ in range(4)] == [False, True, True, True]
    assert way.asked == [20.0] + 3 * [patience_s / 2]


async def test_no_cut_makes_it_less_than_a_second(mock_clock: MockClock) -> None:
    way = Way(mock_clock, 1.0, says(504))
    poll = LongPoll(20.0)
    assert [way.ask(poll) for _ in range(4)] == 4 * [False]
    assert way.asked == [20.0, LEAST_S, LEAST_S, LEAST_S]


@pytest.mark.parametrize(
    "failure",
    [
        lambda: says(404),
        lambda: says(503),
        lambda: server_says(504),
        lambda: cut(httpx.ConnectError("")),
        lambda: UnexpectedAnswer("A page."),
    ],
)
async def test_what_is_no_cut_changes_nothing(
    failure: Callable[[], Exception], mock_clock: MockClock
) -> None:
    way = Way(mock_clock, 5.0, failure())
    poll = LongPoll(20.0)
    assert [way.ask(poll) for _ in range(3)] == 3 * [False]
    assert way.asked == [20.0, 20.0, 20.0]


async def test_a_proxy_that_answers_at_once_is_not_tired_of_waiting(mock_clock: MockClock) -> None:
    way = Way(mock_clock, 0.5, says(502))
    poll = LongPoll(20.0)
    assert [way.ask(poll) for _ in range(3)] == 3 * [False]
    assert way.asked == [20.0, 20.0, 20.0]


async def test_a_poll_that_waits_for_nothing_stays_so(mock_clock: MockClock) -> None:
    way = Way(mock_clock, 0.0, says(504))
    poll = LongPoll(0.0)
    assert [way.ask(poll) for _ in range(3)] == 3 * [False]
    assert way.asked == [0.0, 0.0, 0.0]


async def test_after_ten_minutes_without_a_cut_the_usual_wait_is_tried_again(
    mock_clock: MockClock,
) -> None:
    mock_clock.jump(AGAIN_S)
    way = Way(mock_clock, 5.0, says(504))
    poll = LongPoll(20.0)
    way.ask(poll)
    cut_at = trio.current_time()
    while trio.current_time() <= cut_at + AGAIN_S:
        assert way.ask(poll)
    assert not way.ask(poll)
    assert way.asked[-1] == 20.0
    assert set(way.asked[1:-1]) == {2.5}

"""The line of claims that wait: who is called when there may be a run, and who is not."""

import math
from contextlib import ExitStack

import trio

from gyoza.server.line import Line, Place
from gyoza.server.wakeups import Wakeups, room_key


class Called:
    """Counts how often it was told to look."""

    def __init__(self) -> None:
        self.times = 0

    def tell(self) -> None:
        self.times += 1


def stand(line: Line, stack: ExitStack) -> tuple[Called, Place]:
    called = Called()
    return called, stack.enter_context(line.stand(called))


def look(line: Line, place: Place, *, nothing_left: bool) -> None:
    line.begin_look(place)
    line.end_look(place, nothing_left=nothing_left)


def test_who_has_waited_longest_is_called_alone() -> None:
    line = Line()
    with ExitStack() as stack:
        (first, _), (second, _) = stand(line, stack), stand(line, stack)
        line.tell()
        line.tell()
        assert (first.times, second.times) == (1, 0)


def test_what_is_left_is_for_the_next() -> None:
    line = Line()
    with ExitStack() as stack:
        (first, place), (second, _) = stand(line, stack), stand(line, stack)
        line.tell()
        look(line, place, nothing_left=False)
        assert (first.times, second.times) == (1, 1)


def test_nobody_else_is_called_once_nothing_is_left() -> None:
    line = Line()
    with ExitStack() as stack:
        (_, place), (second, other) = stand(line, stack), stand(line, stack)
        line.tell()
        look(line, place, nothing_left=True)
        assert second.times == 0
        line.tell()
        look(line, place, nothing_left=False)
        assert second.times == 1
        look(line, other, nothing_left=False)
        assert second.times == 1


def test_what_fits_nobody_is_looked_at_once_by_each() -> None:
    line = Line()
    with ExitStack() as stack:
        places = [stand(line, stack) for _ in range(3)]
        line.tell()
        for _, place in places:
            look(line, place, nothing_left=False)
        assert [called.times for called, _ in places] == [1, 1, 1]


def test_who_leaves_in_his_turn_lets_the_next_one_look() -> None:
    line = Line()
    with ExitStack() as stack:
        with ExitStack() as leaving:
            stand(line, leaving)
            second, _ = stand(line, stack)
            line.tell()
            assert second.times == 0
        assert second.times == 1


def test_news_that_come_while_somebody_looks_are_looked_at() -> None:
    line = Line()
    with ExitStack() as stack:
        called, place = stand(line, stack)
        line.begin_look(place)
        line.tell()
        line.end_look(place, nothing_left=True)
        assert called.times == 2  # a look too many at most
        look(line, place, nothing_left=True)
        assert called.times == 2


def test_who_comes_late_is_not_called_for_what_was_there_before() -> None:
    line = Line()
    line.tell()
    with ExitStack() as stack:
        late, _ = stand(line, stack)
        early, _ = stand(line, stack)
        line.tell()
        assert (late.times, early.times) == (1, 0)


async def test_a_worker_with_room_again_looks_only_if_something_may_be_left() -> None:
    wakeups = Wakeups()
    with ExitStack() as stack:
        news = stack.enter_context(wakeups.watch(room_key("w1")))
        place = stack.enter_context(wakeups.line.stand(news))

        async def is_told() -> bool:
            wakeups.post([room_key("w1")])
            return not await news.interrupts(trio.lowlevel.checkpoint, math.inf)

        assert await is_told()  # of what was there before the start
        look(wakeups.line, place, nothing_left=True)
        assert not await is_told()
        wakeups.line.tell()
        assert await is_told()
        assert await is_told()

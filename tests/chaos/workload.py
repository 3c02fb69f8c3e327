"""Hands in the runs, cancels some of them, and sees each through to its end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import trio

from gyoza.client import AsyncGyozaClient
from gyoza.client.errors import ApiError, ClientError
from gyoza.models import OpRun
from tests.chaos.ops import Cancel, PlannedRun

T = TypeVar("T")

TOPIC = "chaos"
WAIT_S = 20.0
AGAIN_S = 0.3
TOO_LATE = 409


@dataclass
class Submitted:
    """A run that the server has taken.

    Attributes:
        cancel_asked: Whether a cancel was sent, whatever came of it.
        cancel_granted: Whether the server said that it is cancelled.
        ended: Whether the server said that it has ended.
    """

    planned: PlannedRun
    run_id: str
    cancel_asked: bool = False
    cancel_granted: bool = False
    ended: bool = False


class Workload:
    """All runs of a chaos run.

    Args:
        client: Speaks to the server directly, not through a proxy.
        plan: What to hand in.
        at_once: How many runs may be under way.
        options: What all runs are made with: `image` and further arguments of `create_run`.

    Attributes:
        submitted: The runs that the server has taken.
        done: Set once every run has ended.
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        plan: list[PlannedRun],
        at_once: int,
        options: dict[str, Any],
    ) -> None:
        self.submitted: list[Submitted] = []
        self.done = trio.Event()
        self._client = client
        self._plan = plan
        self._slots = trio.Semaphore(at_once)
        self._options = options
        self._news = trio.Event()

    @property
    def ended(self) -> int:
        """How many runs have ended."""
        return sum(submitted.ended for submitted in self.submitted)

    async def run(self) -> None:
        """Hand in the runs at their times, a few at once, and wait until all have ended."""
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for planned in self._plan:
                await trio.sleep_until(began + planned.at_s)
                await self._slots.acquire()
                nursery.start_soon(self._see_through, planned)
        self.done.set()
        self._news.set()

    async def next_end(self) -> None:
        """Wait until one more run has ended, or all have."""
        await self._news.wait()

    async def _see_through(self, planned: PlannedRun) -> None:
        create = partial(
            self._client.create_run,
            inputs=planned.inputs,
            command=planned.command,
            event_delivery={"topic": TOPIC},
            idempotency_key=f"chaos-{planned.number}",
            **self._options,
        )
        created = await insist(create)
        submitted = Submitted(planned, created["id"])
        self.submitted.append(submitted)
        async with trio.open_nursery() as nursery:
            if planned.cancel is not None:
                nursery.start_soon(self._cancel, submitted, planned.cancel)
            await self._follow(submitted.run_id, lambda run: run.state.terminal)
        submitted.ended = True
        self._slots.release()
        self._news.set()
        self._news = trio.Event()

    async def _cancel(self, submitted: Submitted, cancel: Cancel) -> None:
        def due(run: OpRun) -> bool:
            seen = [event.type for event in run.events]
            return run.state.terminal or cancel.after is None or cancel.after in seen

        await self._follow(submitted.run_id, due)
        await trio.sleep(cancel.delay_s)
        submitted.cancel_asked = True
        try:
            await insist(partial(self._client.cancel_run, submitted.run_id))
            submitted.cancel_granted = True
        except ApiError as error:
            if error.status != TOO_LATE:
                raise

    async def _follow(self, run_id: str, reached: Callable[[OpRun], bool]) -> None:
        ask = partial(self._client.get_run, run_id)
        run, last = OpRun.from_dict(await insist(ask)), -1
        while not reached(run):
            last = run.events[-1].id if run.events else last
            run = OpRun.from_dict(await insist(partial(ask, after_event=last, wait_s=WAIT_S)))


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the server answers; only a refusal is raised."""
    while True:
        try:
            return await call()
        except ApiError as error:
            if error.status < 500:
                raise
        except ClientError:
            pass
        await trio.sleep(AGAIN_S)

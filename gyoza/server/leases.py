"""Leases: runs are taken from workers that were silent though they could have been heard.

A lease ends only after a time in which this server could take heartbeats throughout. So the server
looks often, and what it finds when it looks tells whether it could: a look that failed or comes
late (the database was locked, the process or its machine stood still, something kept the event
loop), a heartbeat that could not be stored, and a clock that went otherwise than the time that
passed all let every lease begin anew.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gyoza.server.repeat import repeat
from gyoza.server.service import Service
from gyoza.server.store.claims import Swept, restart_leases, sweep
from gyoza.server.store.database import Database, Tx, prove_writable
from gyoza.server.store.workers import lost_workers
from gyoza.server.wakeups import DUE

LOOKS = 6
"""Looks in the time of a lease, at least."""

SLACK, LEAST_SLACK_S = 0.25, 0.25
"""Of a lease, and seconds: what a look may be late, or the clock be off, while workers have time
enough for another heartbeat. They send at least three in a lease."""

LONGEST_S = 10.0
"""Seconds between two looks, however long leases are."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Moment:
    """When a look was over: by the clock of the machine, and by the one that only goes forward."""

    clock: float
    steady: float


@dataclass(frozen=True)
class _Found:
    """What a look has found.

    Attributes:
        moment: When it was over.
        swept: What it did.
        lost: The workers that are lost.
    """

    moment: _Moment
    swept: Swept
    lost: frozenset[str]


class Leases:
    """Begins and ends leases.

    Args:
        database: Where they are.
        clock: Returns seconds since 1970.
        lease_s: How long a lease lasts, in seconds.
        steady: Returns seconds that nobody sets.

    Attributes:
        every_s: Seconds between two looks, at most.
        heard_since: Since when, in seconds since 1970, heartbeats could be taken throughout.
    """

    def __init__(
        self,
        database: Database,
        clock: Callable[[], float],
        lease_s: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._clock = clock
        self._steady = steady
        self._lease_s = lease_s
        self._last: _Moment | None = None
        self._missed = False
        self._lost: frozenset[str] = frozenset()
        self._slack_s = max(SLACK * lease_s, LEAST_SLACK_S)
        self.every_s = min(lease_s / LOOKS, LONGEST_S)
        self.heard_since = math.inf

    def note_missed(self) -> None:
        """Note that a heartbeat came and could not be stored."""
        self._missed = True

    async def look(self) -> float:
        """End the leases that are over, and back-offs; or begin all leases anew.

        Returns:
            When the next of them is over, in seconds since 1970; infinity if there is none.
        """
        last, self._last = self._last, None
        missed, self._missed = self._missed, False
        # Should this fail, there is no last look for the next one.
        found = await self._database.write(lambda tx: self._look(tx, last, missed))
        self._last = found.moment
        self._tell(found)
        return math.inf if found.swept.due is None else found.swept.due

    def _look(self, tx: Tx, last: _Moment | None, missed: bool) -> _Found:
        now = _Moment(self._clock(), self._steady())
        late = last is None or now.steady - last.steady > self.every_s + self._slack_s
        leap = 0.0 if last is None else (now.clock - last.clock) - (now.steady - last.steady)
        leapt = abs(leap) > self._slack_s
        if late or leapt or missed:
            restart_leases(tx, self._lease_s, leap if leapt else 0.0)
            self.heard_since = tx.now
        prove_writable(tx)
        horizon = tx.now - self._lease_s
        lost = lost_workers(tx.conn, horizon) if horizon > self.heard_since else self._lost
        return _Found(now, sweep(tx), lost)

    def _tell(self, found: _Found) -> None:
        for worker_id in sorted(found.lost - self._lost):
            _log.warning("Worker %s was not heard of for %g s: lost.", worker_id, self._lease_s)
        for worker_id in sorted(self._lost - found.lost):
            _log.info("Worker %s is no longer lost.", worker_id)
        self._lost = found.lost
        for run_id, worker_id in found.swept.evicted:
            _log.warning("Run %s was taken from worker %s, which is lost.", run_id, worker_id)


async def run_leases(service: Service) -> None:
    """Begin every lease anew, then look whenever something is due or may be due sooner."""
    leases, due = service.leases, -math.inf

    async def wait_and_look() -> float:
        nonlocal due
        with service.wakeups.watch(DUE) as sooner:
            with trio.move_on_after(min(leases.every_s, max(0.0, due - service.clock()))):
                await sooner.wait()
        due = math.inf  # should this look fail, the next one comes by its time
        due = await leases.look()
        return 0.0

    await repeat("Leases cannot be looked at", wait_and_look)

"""Tells systemd how the worker is: ready, stopping, a line for `systemctl status`, the watchdog.

The protocol is one datagram of `NAME=value` lines to the socket in NOTIFY_SOCKET.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import trio
import trio.socket

from gyoza.worker.runner.worker import Worker

PERIOD_S = 10.0
"""Most seconds between two status lines."""

RECENT_BEATS = 3
"""Periods of heartbeats within which the server was reached recently."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Systemd:
    """The service manager of this process.

    Attributes:
        address: Its socket: a path, or a name in the abstract namespace that begins with `@`.
        watchdog_s: Seconds within which it wants to hear that all is well; None for never.
    """

    address: str
    watchdog_s: float | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Systemd | None":
        """Return the manager that started this process, or None if none wants to be told."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = environ.get("WATCHDOG_USEC", "")
        watched = for_us and period.isdecimal() and int(period) > 0
        return cls(address, int(period) / 1e6 if watched else None)

    async def tell(self, *lines: str) -> None:
        """Send these lines; a manager that does not listen is no reason to stop working."""
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_DGRAM) as channel:
                # Connected, so that a full queue is waited for: by its address alone the socket
                # always seems ready.
                await channel.connect(address)
                await channel.send("\n".join(lines).encode())
        except OSError as error:
            logger.debug("systemd was not told %s: %s", lines, error)


async def keep_informed(systemd: Systemd, worker: Worker) -> None:
    """Tell systemd how the worker is, until cancelled."""
    period_s = PERIOD_S
    if systemd.watchdog_s is not None:
        period_s = min(period_s, systemd.watchdog_s / 2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_tell_when, worker.ready, "READY=1", systemd, worker)
        nursery.start_soon(_tell_when, worker.leaving, "STOPPING=1", systemd, worker)
        while True:
            well = systemd.watchdog_s is not None and _is_well(worker)
            await systemd.tell(_status(worker), *(["WATCHDOG=1"] if well else []))
            await trio.sleep(period_s)


async def _tell_when(event: trio.Event, line: str, systemd: Systemd, worker: Worker) -> None:
    await event.wait()
    await systemd.tell(line, _status(worker))


def _is_well(worker: Worker) -> bool:
    """Whether the server was reached recently; a worker that leaves has its own deadline."""
    return worker.leaving.is_set() or _server_is_near(worker)


def _server_is_near(worker: Worker) -> bool:
    return worker.contact.silence_s < RECENT_BEATS * worker.heartbeat_s


def _status(worker: Worker) -> str:
    runs = len(worker.active.ids)
    said = [f"{runs} {'run' if runs == 1 else 'runs'}"]
    said.append("engine ok" if worker.engine_watch.up else "engine unavailable")
    if worker.disk_watch.low:
        said.append("disk low")
    if not worker.ready.is_set():
        said.append("waiting for the server")
    elif not _server_is_near(worker):
        said.append("server away")
    if worker.draining.is_set():
        said.append("draining")
    return f"STATUS={', '.join(said)}"

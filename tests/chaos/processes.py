"""The processes under test: started, killed and started again under the same name."""

import math
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

STARTING_S, LONGEST_START_S = 5.0, 30.0
"""Seconds in which a program that was started gets to listen for signals and to be heard; and on a
machine that is busy with other things."""

PATIENCE_S = 180.0
AGAIN_S = 1.0
LAST_LINES = 25


@dataclass
class Life:
    """One process of a program.

    Attributes:
        began: When it was started, in seconds since 1970.
        ended: When it ended; None while it runs.
    """

    pid: int
    began: float
    ended: float | None = None


def away(lives: Sequence[Life], calls: Sequence[float]) -> list[tuple[float, float]]:
    """Return from when to when a program was not there, or had just been started.

    Args:
        lives: Its processes.
        calls: When it made connections: before the first of them a process was still starting.
    """
    spans: list[tuple[float, float]] = []
    left = 0.0
    for life in lives:
        called = next((at for at in calls if at >= life.began), math.inf)
        started = min(max(called, life.began + STARTING_S), life.began + LONGEST_START_S)
        spans.append((left, started))
        left = math.inf if life.ended is None else life.ended
    return spans


class Service:
    """One program, with its output in a file.

    Attributes:
        name: What it is called in the report.
        busy: Held by the one fault at a time that may touch it.
        log: Where its output goes.
        started_at: When it was started last, on Trio's clock.
        lives: Its processes, one after the other.
        surprises: One sentence for each time it ended unasked.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        nursery: trio.Nursery,
        may_end: Callable[[int], bool],
    ) -> None:
        self.name = name
        self.busy = trio.Lock()
        self.log = log
        self.started_at = 0.0
        self.lives: list[Life] = []
        self.surprises: list[str] = []
        self._command = list(command)
        self._environment = dict(environment)
        self._nursery = nursery
        self._may_end = may_end
        self._process: trio.Process | None = None
        self._log_start = 0

    @property
    def obeyed_signals(self) -> bool:
        """Whether it has said so since it was started last; before it listens, a signal ends it."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return b"no new runs" in log.read()

    @property
    def age_s(self) -> float:
        """Seconds since it was started last."""
        return trio.current_time() - self.started_at

    async def start(self) -> None:
        """Start it; should it end by itself, that is noted and it is started again."""
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # so that Ctrl-C is ours alone
            )
        self._process = process
        self.started_at = trio.current_time()
        self.lives.append(Life(process.pid, time.time()))
        self._nursery.start_soon(self._watch, process, self.lives[-1])

    async def kill(self) -> None:
        """End it by SIGKILL and wait for its end."""
        process = self._leave()
        if process is not None:
            process.kill()
            await process.wait()

    def freeze(self) -> None:
        """Let it stand still."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    async def terminate(self, pauses_s: Sequence[float] = ()) -> int | None:
        """End it by SIGTERM, and again after each pause while it lives.

        Returns:
            Its exit code as Python tells it; None if it had to be killed after `PATIENCE_S`.
        """
        process = self._leave()
        if process is None:
            return 0
        process.send_signal(signal.SIGTERM)
        for pause_s in pauses_s:
            with trio.move_on_after(pause_s):
                return await process.wait()
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(PATIENCE_S):
            return await process.wait()
        process.kill()
        await process.wait()
        return None

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _said(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-LAST_LINES:])

    def _leave(self) -> trio.Process | None:
        """Take the process out of watch: from now on its end is no surprise."""
        process, self._process = self._process, None
        return process

    async def _watch(self, process: trio.Process, life: Life) -> None:
        code = await process.wait()
        life.ended = time.time()
        if process is self._process:
            if not self._may_end(code):
                self.surprises.append(
                    f"{self.name} ended by itself with exit code {code}; it says:\n{self._said()}"
                )
            await trio.sleep(AGAIN_S)
            if process is self._process:
                await self.start()


@asynccontextmanager
async def open_service(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    may_end: Callable[[int], bool] = lambda _code: False,
) -> AsyncGenerator[Service]:
    """Have a program running; it is killed at the end if it still runs.

    Args:
        name: What it is called in the report.
        command: The program and its arguments.
        environment: Its environment variables.
        log: Where its output goes.
        may_end: Tells whether it may end by itself now with such an exit code; it is started again
            either way.
    """
    async with trio.open_nursery() as nursery:
        service = Service(name, command, environment, log, nursery, may_end)
        try:
            await service.start()
            yield service
        finally:
            with trio.CancelScope(shield=True):  # a killed process ends at once
                await service.kill()
            nursery.cancel_scope.cancel()

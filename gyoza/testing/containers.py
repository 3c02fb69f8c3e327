"""A container of the fake engine: a coroutine with an environment, volumes, output and signals."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import trio

from gyoza.testing.output import FakeOutput
from gyoza.worker.containers.engine import ContainerSpec
from gyoza.worker.op_io.disk_use import DiskUse


async def succeed(container: "FakeContainer") -> int:
    """Do nothing, well: the program of an image that is given none."""
    return 0


class FakeContainer:
    """A container, as its program and the tests see it.

    Attributes:
        id: Given by the engine.
        spec: What it was created from.
        state: created, running or exited.
        stop_asked: Set by the stop signal. It ends the program, too, unless the image was added
            with `handles_stop`.
        exit_code: Once it has exited.
        exit_seen: The engine has seen how it ended, if it has.
        ended: Set when it has exited.
        news: Set, and made anew, when something has happened to it or to its engine.
        oom_killed: What the engine will say of it; a program may set it.
        oom_told_late: Set in its place, the engine says so only after the exit.
        output: What it has written to its streams.
        written: What it has written to its own file system; a program may set it.
    """

    def __init__(self, id: str, spec: ContainerSpec, image: "FakeImage", now: datetime) -> None:
        self.id = id
        self.spec = spec
        self.image = image
        self.created_at = now
        self.state = "created"
        self.exit_code = 0
        self.exit_seen = True
        self.oom_killed = False
        self.oom_told_late = False
        self.stop_asked = trio.Event()
        self.ended = trio.Event()
        self.news = trio.Event()
        self.output = FakeOutput()
        self.written = DiskUse()
        self._scope = trio.CancelScope()
        self._signal: int | None = None

    @property
    def env(self) -> Mapping[str, str]:
        """The variables it was given."""
        return self.spec.env

    def path(self, inside: str) -> Path:
        """Return where a path in the container lies on this machine.

        Raises:
            FileNotFoundError: If it is in no volume.
        """
        for host, target in self.spec.volumes.items():
            if PurePosixPath(inside).is_relative_to(target):
                return Path(host) / PurePosixPath(inside).relative_to(target)
        raise FileNotFoundError(f"{inside} is in no volume of the container")

    async def stdout(self, data: bytes) -> None:
        """Write to standard output; waits for a reader who is behind."""
        await self.output.write(1, data)

    async def stderr(self, data: bytes) -> None:
        """Write to standard error; waits for a reader who is behind."""
        await self.output.write(2, data)

    async def run(self) -> None:
        """Run the program to its end; done by the engine."""
        exit_code = 0
        with self._scope:
            exit_code = await self.image.program(self)
        self.end(exit_code if self._signal is None else 128 + self._signal)

    def end(self, exit_code: int) -> None:
        """Let it have exited, whatever its program does; nothing if it has; done by the engine."""
        if self.state == "exited":
            return
        self.state = "exited"
        self.exit_code = exit_code
        self._scope.cancel()
        self.output.end()
        self.ended.set()
        self.tell()

    def tell(self) -> None:
        """Wake who waits for news of it; done by the engine."""
        self.news.set()
        self.news = trio.Event()

    def signal(self, number: int) -> None:
        """Take a signal, 15 or 9; nothing if it is not running; done by the engine."""
        if self.state != "running":
            return
        if number == 15:
            self.stop_asked.set()
        if number == 9 or not self.image.handles_stop:
            self._signal = number
            self._scope.cancel()


Program = Callable[[FakeContainer], Awaitable[int]]


@dataclass
class FakeImage:
    """An image; see `FakeContainerEngine.add_image`."""

    program: Program
    handles_stop: bool
    local: bool
    in_registry: bool
    pull_progress: tuple[str, ...]
    pulled: bool = False

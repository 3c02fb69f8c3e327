"""A container of the fake engine: a coroutine with an environment, volumes, output and signals."""

import struct
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

import trio

from gyoza.worker.containers.engine import ContainerSpec


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
        ended: Set when the program has ended.
        oom_killed: What the engine will say of it; a program may set it.
    """

    def __init__(self, id: str, spec: ContainerSpec, image: "FakeImage", now: datetime) -> None:
        self.id = id
        self.spec = spec
        self.image = image
        self.created_at = now
        self.state = "created"
        self.exit_code = 0
        self.oom_killed = False
        self.stop_asked = trio.Event()
        self.ended = trio.Event()
        self.outputs: list[trio.MemorySendChannel[bytes]] = []
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
        await self._write(1, data)

    async def stderr(self, data: bytes) -> None:
        """Write to standard error; waits for a reader who is behind."""
        await self._write(2, data)

    async def _write(self, stream: int, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for output in list(self.outputs):
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # nobody reads
                await output.send(struct.pack(">BxxxL", stream, len(data)) + data)

    async def run(self) -> None:
        """Run the program to its end; done by the engine."""
        with self._scope:
            self.exit_code = await self.image.program(self)
        if self._signal is not None:
            self.exit_code = 128 + self._signal
        self.state = "exited"
        self.detach()
        self.ended.set()

    def signal(self, number: int) -> None:
        """Take a signal, 15 or 9; nothing if it is not running; done by the engine."""
        if self.state != "running":
            return
        if number == 15:
            self.stop_asked.set()
        if number == 9 or not self.image.handles_stop:
            self._signal = number
            self._scope.cancel()

    def detach(self) -> None:
        """End the streams of its output; done by the engine."""
        for output in self.outputs:
            output.close()
        self.outputs.clear()


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

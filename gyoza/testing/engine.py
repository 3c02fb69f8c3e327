"""The fake engine."""

from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import trio

from gyoza.testing.containers import FakeContainer, FakeImage, Program, succeed
from gyoza.worker.containers.engine import (
    ContainerEngine,
    ContainerExit,
    ContainerInfo,
    ContainerSpec,
    EngineInfo,
    ImageInfo,
    LogStream,
)
from gyoza.worker.errors import (
    ContainerNotFound,
    EngineError,
    EngineUnavailable,
    ImageNotFound,
    ImagePullError,
)

# Frames a container can write before it waits for its reader, as behind a real pipe.
READ_AHEAD = 16


class ContractBroken(AssertionError):
    """The engine was used in a way that its contract does not allow."""


@dataclass
class Gate:
    """Holds calls back; `reached` is set when the first has come."""

    reached: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)


class FakeContainerEngine:
    """A `ContainerEngine` in memory; see `gyoza.testing`, and `ContainerEngine` for the methods.

    Attributes:
        containers: Those that exist, by id.
        calls: Every call as (method, container's name or image), in order.
        failures: Method to the error that its next call raises, once.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.calls: list[tuple[str, str]] = []
        self.failures: dict[str, EngineError] = {}
        self._nursery = nursery
        self._images: dict[str, FakeImage] = {}
        self._gates: dict[str, Gate] = {}
        self._numbers = count(1)
        self._available = trio.Event()
        self._available.set()

    def add_image(
        self,
        image: str,
        program: Program = succeed,
        *,
        handles_stop: bool = False,
        local: bool = True,
        in_registry: bool = True,
        pull_progress: tuple[str, ...] = (),
    ) -> None:
        """Make an image known.

        Args:
            image: Its name; without a tag it is `:latest`.
            program: What its containers do; returns the exit code.
            handles_stop: The stop signal only sets `stop_asked`.
            local: The engine has it without a pull.
            in_registry: It can be pulled.
            pull_progress: Sentences that a pull tells.
        """
        self._images[_tagged(image)] = FakeImage(
            program, handles_stop, local, in_registry, pull_progress
        )

    @contextmanager
    def hold(self, method: str) -> Generator[Gate]:
        """Keep calls of a method from having any effect until the block is left."""
        gate = self._gates[method] = Gate()
        try:
            yield gate
        finally:
            del self._gates[method]
            gate.opened.set()

    @property
    def unavailable(self) -> bool:
        """Whether the engine is away; setting it breaks the streams, containers run on."""
        return not self._available.is_set()

    @unavailable.setter
    def unavailable(self, away: bool) -> None:
        if not away:
            self._available.set()
        elif self._available.is_set():
            self._available = trio.Event()
            for container in self.containers.values():
                container.detach()

    async def info(self) -> EngineInfo:
        """See `ContainerEngine.info`."""
        await self._called("info")
        return EngineInfo(version="fake", data_root="/")

    async def find_image(self, image: str) -> ImageInfo | None:
        """See `ContainerEngine.find_image`."""
        await self._called("find_image", image)
        found = self._images.get(_tagged(image))
        if found is None or not found.local:
            return None
        digests = [f"{image}@sha256:{'0' * 64}"] if found.pulled else []
        return ImageInfo(id=f"sha256:{_tagged(image)}", repo_digests=digests)

    async def pull(self, image: str, on_progress: Callable[[str], None]) -> None:
        """See `ContainerEngine.pull`."""
        await self._called("pull", image)
        found = self._images.get(_tagged(image))
        if found is None or not found.in_registry:
            raise ImagePullError(f"Cannot pull {image}: the registry does not have it.")
        for sentence in found.pull_progress:
            on_progress(sentence)
            await trio.sleep(1)
        found.local = found.pulled = True

    async def create(self, spec: ContainerSpec) -> str:
        """See `ContainerEngine.create`."""
        await self._called("create", spec.name)
        image = self._images.get(_tagged(spec.image))
        if image is None or not image.local:
            raise ImageNotFound(f"No such image: {spec.image}.")
        if any(container.spec.name == spec.name for container in self.containers.values()):
            raise EngineError(f"The name {spec.name} is in use already.")
        _require_volumes(spec)
        id = f"{next(self._numbers):064x}"
        self.containers[id] = FakeContainer(id, spec, image, datetime.now(UTC))
        return id

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncGenerator[LogStream]:
        """See `ContainerEngine.attach`."""
        container = await self._found("attach", container_id)
        _require(container.state != "exited", "attach after the container's end")
        send, receive = trio.open_memory_channel[bytes](READ_AHEAD)
        container.outputs.append(send)
        try:
            with send, receive:
                yield _FakeLogStream(receive)
        finally:
            container.outputs = [output for output in container.outputs if output is not send]

    async def start(self, container_id: str) -> None:
        """See `ContainerEngine.start`."""
        container = await self._found("start", container_id)
        _require(container.state == "created", "start twice")
        container.state = "running"
        self._nursery.start_soon(container.run)

    async def wait(self, container_id: str) -> ContainerExit:
        """See `ContainerEngine.wait`."""
        container = await self._found("wait", container_id)
        _require(container.state != "created", "wait before start")
        await container.ended.wait()
        await self._available.wait()
        if container.id not in self.containers:
            raise ContainerNotFound(f"No such container: {container_id}.")
        return ContainerExit(container.exit_code, container.oom_killed)

    async def ask_to_stop(self, container_id: str) -> None:
        """See `ContainerEngine.ask_to_stop`."""
        await self._signal("ask_to_stop", container_id, 15)

    async def kill(self, container_id: str) -> None:
        """See `ContainerEngine.kill`."""
        await self._signal("kill", container_id, 9)

    async def remove(self, container_id: str) -> None:
        """See `ContainerEngine.remove`."""
        await self._called("remove", container_id)
        container = self._named(container_id)
        if container is not None:
            container.signal(9)
            if container.state == "running":
                await container.ended.wait()
            self.containers.pop(container.id, None)
            container.detach()

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """See `ContainerEngine.list`."""
        await self._called("list")
        return [
            ContainerInfo(
                container.id,
                container.spec.name,
                container.state,
                container.spec.labels,
                container.created_at,
            )
            for container in self.containers.values()
            if all(
                name in container.spec.labels and value in ("", container.spec.labels[name])
                for name, value in labels.items()
            )
        ]

    async def _signal(self, method: str, container_id: str, number: int) -> None:
        await self._called(method, container_id)
        container = self._named(container_id)
        if container is not None:
            container.signal(number)

    async def _found(self, method: str, container_id: str) -> FakeContainer:
        await self._called(method, container_id)
        container = self._named(container_id)
        if container is None:
            raise ContainerNotFound(f"No such container: {container_id}.")
        return container

    def _named(self, name: str) -> FakeContainer | None:
        """Return the container of that id or name."""
        for container in self.containers.values():
            if name in (container.id, container.spec.name):
                return container
        return None

    async def _called(self, method: str, subject: str = "") -> None:
        """Record a call, hold it at its gate and let it fail if it shall."""
        container = self._named(subject)
        self.calls.append((method, container.spec.name if container else subject))
        gate = self._gates.get(method)
        if gate is not None:
            gate.reached.set()
            await gate.opened.wait()
        await trio.lowlevel.checkpoint()
        if method in self.failures:
            raise self.failures.pop(method)
        if self.unavailable and method != "wait":
            raise EngineUnavailable("No container engine answers.")


class _FakeLogStream:
    def __init__(self, frames: trio.MemoryReceiveChannel[bytes]) -> None:
        self._frames = frames

    async def receive(self) -> bytes:
        """See `LogStream.receive`."""
        try:
            return await self._frames.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            return b""
        except trio.Cancelled:
            self._frames.close()
            raise


@asynccontextmanager
async def open_fake_engine() -> AsyncGenerator[FakeContainerEngine]:
    """Use a `FakeContainerEngine`; its containers end with the block."""
    async with trio.open_nursery() as nursery:
        yield FakeContainerEngine(nursery)
        nursery.cancel_scope.cancel()


def _tagged(image: str) -> str:
    """Return the reference with its tag."""
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _require_volumes(spec: ContainerSpec) -> None:
    for host in spec.volumes:
        _require(Path(host).exists(), f"the volume {host} does not exist")


def _require(kept: bool, rule: str) -> None:
    if not kept:
        raise ContractBroken(f"The contract of container engines forbids this: {rule}.")


_checked: type[ContainerEngine] = FakeContainerEngine

"""What tests do to the fake engine: images, left containers, failures, outages."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import trio

from gyoza.testing.containers import FakeContainer, FakeImage, Program, succeed
from gyoza.worker.containers.engine import ContainerSpec, EngineInfo
from gyoza.worker.errors import EngineError, EngineUnavailable, ImageNotFound, NameTaken


class ContractBroken(AssertionError):
    """The engine was used in a way that its contract does not allow."""


@dataclass
class Gate:
    """Holds calls back; `reached` is set when the first has come."""

    reached: trio.Event = field(default_factory=trio.Event)
    opened: trio.Event = field(default_factory=trio.Event)


class EngineControls:
    """The state of the fake engine, and what tests do to it.

    Attributes:
        containers: Those that exist, by id.
        calls: Every call as (method, container's name or image), in order.
        failures: Method to the error that its next call raises, once, without any effect.
        unlimited: What it says it cannot limit.
        description: What else it says of itself.
        networks: Those it has.
        lost_answers: Methods of which the next call has its effect and raises
            `EngineUnavailable`, once: create, start, ask_to_stop, kill or remove.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.calls: list[tuple[str, str]] = []
        self.failures: dict[str, EngineError] = {}
        self.lost_answers: set[str] = set()
        self.unlimited: tuple[str, ...] = ()
        self.description = EngineInfo("fake", "/", cpus=1000, runtimes=("fake",))
        self.networks = {"bridge", "host", "none"}
        self._nursery = nursery
        self._images: dict[str, FakeImage] = {}
        self._gates: dict[str, Gate] = {}
        self._numbers = count(1)
        self._available = trio.Event()
        self._available.set()
        self._gone = trio.Event()
        self._outages = 0
        self._out_of_sight: list[FakeContainer] = []

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
            local: The engine has it without a pull: pulled before, or built here.
            in_registry: It can be pulled; one that is here was.
            pull_progress: Sentences that a pull tells.
        """
        self._images[tagged(image)] = FakeImage(
            program, handles_stop, local, in_registry, pull_progress, local and in_registry
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
        """Whether the engine is away; setting it calls `go_away` or `come_back`."""
        return not self._available.is_set()

    @unavailable.setter
    def unavailable(self, away: bool) -> None:
        if away:
            self.go_away()
        else:
            self.come_back()

    def go_away(self, *, loses_unfinished_lines: bool = False) -> None:
        """Be unavailable: calls fail, streams break, waits wait; containers run on, unseen.

        Args:
            loses_unfinished_lines: Of lines that are not complete the log will have only the rest,
                as after a restart of the engine that its containers outlive.
        """
        if self._available.is_set():
            self._available = trio.Event()
            self._gone.set()
            self._outages += 1
            self._out_of_sight = [c for c in self.containers.values() if c.state == "running"]
            for container in self.containers.values():
                container.output.break_off()
                if loses_unfinished_lines:
                    container.output.forget_unfinished_lines()
                container.tell()

    def come_back(self, containers_end_with: int | None = None) -> None:
        """Be available again.

        Args:
            containers_end_with: Exit code of all containers that were running, as of an engine
                that stops them as it goes down; None if they have run on.
        """
        if containers_end_with is not None:
            for container in self.containers.values():
                if container.state == "running":
                    container.end(containers_end_with)
        for container in self._out_of_sight:
            container.exit_seen = container.state == "running"
        self._gone = trio.Event()
        self._available.set()

    def leave_behind(
        self,
        spec: ContainerSpec,
        state: str = "running",
        *,
        stdout: bytes = b"",
        stderr: bytes = b"",
        exit_code: int = 0,
        exit_seen: bool = True,
        created_at: datetime | None = None,
    ) -> FakeContainer:
        """Make a container as a worker leaves it that has died.

        Args:
            spec: What it was created from.
            state: created; running, then its program begins now; or exited.
            stdout: Already written and kept.
            stderr: The same.
            exit_code: Of one that has exited.
            exit_seen: The engine has seen that exit.
            created_at: Now, if not given.
        """
        container = self._add(spec, created_at)
        container.output.keep(1, stdout)
        container.output.keep(2, stderr)
        if state == "running":
            self._run(container)
        elif state == "exited":
            container.end(exit_code)
            container.exit_seen = exit_seen
        return container

    def _add(self, spec: ContainerSpec, created_at: datetime | None = None) -> FakeContainer:
        image = self._images.get(tagged(spec.image))
        if image is None or not image.local:
            raise ImageNotFound(f"No such image: {spec.image}.")
        if self._named(spec.name) is not None:
            raise NameTaken(f"The name {spec.name} is in use already.")
        _require_volumes(spec)
        id = f"{next(self._numbers):064x}"
        created_at = created_at or datetime.now(UTC)
        container = self.containers[id] = FakeContainer(id, spec, image, created_at)
        return container

    def _run(self, container: FakeContainer) -> None:
        container.state = "running"
        self._nursery.start_soon(container.run)

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
        if method != "wait":
            self._require_available()

    def _require_available(self) -> None:
        if self.unavailable:
            raise EngineUnavailable("No container engine answers.")

    def _answer(self, method: str) -> None:
        if method in self.lost_answers:
            self.lost_answers.remove(method)
            raise EngineUnavailable("The connection to the container engine broke.")


def tagged(image: str) -> str:
    """Return the reference with its tag."""
    return image if ":" in image.rpartition("/")[2] else f"{image}:latest"


def _require_volumes(spec: ContainerSpec) -> None:
    for host in spec.volumes:
        require(Path(host).exists(), f"the volume {host} does not exist")


def require(kept: bool, rule: str) -> None:
    """Raise `ContractBroken` unless the rule was kept."""
    if not kept:
        raise ContractBroken(f"The contract of container engines forbids this: {rule}.")

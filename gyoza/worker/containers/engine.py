"""What gyoza asks of a container engine: one contract for the real adapter and the fake.

Order of calls for one container: `create`, `attach`, `start`, `wait`, `remove`. Every method may be
called from many tasks at once and every one but `wait`, `pull` and `LogStream.receive` has a
deadline. `remove`, `wait`, `logs` and `list` work as well for containers that an earlier process
has left. All raise `EngineUnavailable` when the engine is not there, does not permit the call or
does not answer in time, and `EngineError` for what it refuses.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import trio

from gyoza.worker.op_io.disk_use import DiskUse

OWN_NETWORK = "gyoza"
"""The network of gyoza's own, in which ops do not reach each other; the engine makes it."""


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """A container to create.

    Attributes:
        name: Unique on the engine.
        command: Arguments in place of the image's command.
        env: The whole environment the op sees besides the image's own.
        volumes: Host path to container path, writable.
        cpu: CPU limit in cores; None for no limit.
        ram_mb: Memory limit in MB, swap included; None for no limit.
        network: The engine's network it is in; `OWN_NETWORK` is made if it is not there.
        user: In place of the image's user; None for that one.
        runtime: The engine's runtime; None for its default.
        read_only: Its root file system is, but for a small `/tmp` in memory.
        pids_limit: Processes and threads it may have.
        shm_mb: Size of its `/dev/shm` in MB.
        gpus: Names of the GPUs it may use, and no others: UUIDs, or indexes where there are none.
    """

    name: str
    image: str
    command: list[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    volumes: Mapping[str, str] = field(default_factory=dict[str, str])
    cpu: float | None = None
    ram_mb: int | None = None
    gpus: list[str] = field(default_factory=list[str])
    network: str = "bridge"
    user: str | None = None
    runtime: str | None = None
    read_only: bool = False
    pids_limit: int = 4096
    shm_mb: int = 64


LOG_DRIVER = "local"
"""How containers' output is kept: byte for byte, where other drivers replace what is not UTF-8."""

KILLED = 137
"""Exit code of a container that was ended by SIGKILL, whoever sent it."""


@dataclass(frozen=True)
class ContainerExit:
    """How a container ended.

    Attributes:
        exit_code: 0-255; 128 + n when signal n ended it.
        oom_killed: The kernel killed one of its processes for memory, not always the main one.
        error: The engine's own words when it could not run it; empty otherwise.
        unseen: It ended while the wait had lost the engine, so that what ended it is unknown: an
            engine that shuts down stops its containers. A container that had exited before the
            wait began is not unseen for that alone.
        disturbed: The wait had lost the engine at some time, so that output streams may have
            broken as well.
    """

    exit_code: int
    oom_killed: bool = False
    error: str = ""
    unseen: bool = False
    disturbed: bool = False


@dataclass(frozen=True)
class ContainerInfo:
    """A container as the engine lists it; `state` is created, running, exited and the like."""

    id: str
    name: str
    state: str
    labels: Mapping[str, str]
    created_at: datetime


@dataclass(frozen=True)
class ImageInfo:
    """An image the engine has; `repo_digests` is empty if it was built here and never pulled."""

    id: str
    repo_digests: list[str]


@dataclass(frozen=True)
class EngineInfo:
    """What the engine says of itself.

    Attributes:
        unlimited: What of `cpu`, `memory` and `processes` it cannot limit: it ignores such limits,
            without a word when a container is created.
        cpus: How many CPUs it has; None if it does not tell.
        runtimes: Their names; None if it does not tell.
        log_drivers: Their names; None if it does not tell.
        has_init: It has the program that is the first process of every container.
    """

    version: str
    data_root: str
    unlimited: tuple[str, ...] = ()
    cpus: int | None = None
    runtimes: tuple[str, ...] | None = None
    log_drivers: tuple[str, ...] | None = None
    has_init: bool = True

    @property
    def warning(self) -> str | None:
        """What a person should know of it, in a sentence."""
        if not self.unlimited:
            return None
        return (
            f"The Docker Engine cannot limit {', '.join(self.unlimited)} of containers: an op can "
            "take all there is. Rootless Docker needs cgroup v2 for that."
        )


class LogStream(Protocol):
    """The output of one container, both streams multiplexed in frames of the engine."""

    async def receive(self) -> bytes:
        """Return the next block, up to 1 MiB; `b""` at the end of the output.

        The end may also mean that the connection broke: only `wait` tells that a container exited.
        A cancelled `receive` closes the stream.

        Raises:
            EngineUnavailable: If the connection broke in `logs` without `follow`: only there is
                the end known to be the end.
        """
        ...


class ContainerEngine(Protocol):
    """A container engine; see the module for what holds of every method."""

    async def info(self) -> EngineInfo:
        """Return the engine's description; the cheapest proof that it answers."""
        ...

    async def has_network(self, network: str) -> bool:
        """Return whether it has this network; True if it does not permit the question."""
        ...

    async def find_image(self, image: str) -> ImageInfo | None:
        """Return the local image, or None."""
        ...

    async def pull(self, image: str, on_progress: Callable[[str], None]) -> None:
        """Pull the image, reading the progress stream to its end.

        Args:
            image: Reference; without a tag or digest `:latest` alone is pulled.
            on_progress: Gets a short sentence about once a second while anything moves, the same
                again if need be, in the task's own thread.

        Cancelling it ends the pull.

        Raises:
            ImagePullError: If the stream or the answer holds an error; says what the engine said.
        """
        ...

    async def create(self, spec: ContainerSpec) -> str:
        """Create a container and return its id.

        A cancel is taken only before the request is sent; after that the call returns the id, so
        that no container exists that nobody knows of. `EngineUnavailable` leaves open whether it
        exists, or will in a moment: `list` finds it by its labels.

        Raises:
            ImageNotFound: If the engine does not have the image.
            NameTaken: If there is a container of that name.
            ContainerNotFound: If its network is not there, unless the engine finds that in `start`.
        """
        ...

    def attach(self, container_id: str) -> AbstractAsyncContextManager[LogStream]:
        """Open the container's output; complete if opened before `start`."""
        ...

    def logs(self, container_id: str, *, follow: bool) -> AbstractAsyncContextManager[LogStream]:
        """Open what the engine has kept of the output, from its first byte, in frames as above.

        The payload of each stream is that of `attach`, byte for byte, though cut differently,
        but for one thing: a last line of more than 16 KiB without a newline gets one. After the
        exit a reading without `follow` has everything; before, all complete lines.

        One thing can be missing: of a container that has run on while its engine was started anew,
        what was written by then of a line that was not complete (of a long one, what goes beyond
        the last full 16 KiB). The log goes on with the rest of that line.

        Args:
            container_id: Its id or name.
            follow: Go on until the container exits. The last line may then be missing, and the
                end may mean a broken connection.

        Raises:
            ContainerNotFound: If it has been removed.
        """
        ...

    async def start(self, container_id: str) -> None:
        """Start the container.

        Raises:
            ContainerNotFound: If it has been removed, or its network.
        """
        ...

    async def wait(self, container_id: str) -> ContainerExit:
        """Wait until the container has exited, however long, and inspect it; it must be started.

        A connection that breaks means "look again", never "exited": the call goes on, with
        back-off, through a restart of the engine, and never raises `EngineUnavailable`.

        Raises:
            ContainerNotFound: If it has been removed.
        """
        ...

    async def killed_for_memory(self, container_id: str) -> bool:
        """Return whether one of its processes was killed for memory, by what has come since.

        The kernel's word of it and the exit take different ways through the engine, and on a busy
        machine `ContainerExit.oom_killed` may be false for it. This waits up to a second for that
        word. False, too, if the engine does not tell, or has lost it.
        """
        ...

    async def saw_exit(self, container_id: str) -> bool:
        """Return whether the engine itself has seen how the container ended; it must have exited.

        An engine that finds a container gone when it starts gives it the exit code 255, which is
        that of many programs, too. False as well if the engine cannot tell: it has been started
        anew since then, or the container ended while it was down; or it lets containers outlive it,
        and has had much else to tell since then.

        Raises:
            ContainerNotFound: If it has been removed.
        """
        ...

    async def hear_exits(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Let the engine tell of exits as they happen, until it does not any more.

        Meanwhile `wait` may return while the engine still tidies up behind a container, which it
        goes on to list as running. The calls that need it tidied up wait for that by themselves.

        Raises:
            EngineError: If the engine does not tell.
        """
        ...

    async def ask_to_stop(self, container_id: str) -> None:
        """Send the image's stop signal (SIGTERM by default); nothing if it is not running.

        One that somebody has paused goes on, to get it; `kill` does the same.
        """
        ...

    async def kill(self, container_id: str) -> None:
        """Send SIGKILL; nothing if it is not running."""
        ...

    async def remove(self, container_id: str) -> None:
        """Kill and remove the container and its anonymous volumes, and wait until it is gone.

        Takes the container's id or its name.

        Safe even if it never started, is being removed or is gone already.
        """
        ...

    async def replace_folders(self, container_id: str, folder: str, names: list[str]) -> None:
        """Open a folder that is mounted in a container to everybody, and clear it of folders.

        Args:
            container_id: A container that is created and not started.
            folder: Where it is mounted.
            names: Folders in it, each of which becomes an empty file, whoever owns what it has.
        """
        ...

    async def written(self, container_id: str) -> DiskUse:
        """Return what a container has written to its own file system, its volumes left out.

        An engine that is elsewhere, or does not show the folder, tells the bytes alone.

        Raises:
            ContainerNotFound: If it has been removed.
        """
        ...

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """Return all containers, stopped ones too, that carry these labels; `""` is any value."""
        ...

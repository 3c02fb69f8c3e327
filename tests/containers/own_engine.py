"""A Docker Engine of the test's own, to be stopped, killed and frozen; needs root."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from gyoza.worker.containers.docker_engine import DockerEngine
from gyoza.worker.errors import EngineUnavailable

NAMESPACES = ("--net", "--mount", "--pid")
# Process ids are used again soon in a namespace of so few. A listener comes as standard input and
# goes where systemd would put it.
SHELL = 'rm -f "$0"/pid; exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'


class OwnEngine:
    """An engine in namespaces of its own, whose processes all end with them.

    Attributes:
        host: What DOCKER_HOST must be.
        socket: The path in it.
    """

    def __init__(self, folder: Path, holder: int) -> None:
        self.socket = folder / "docker.sock"
        self.host = f"unix://{self.socket}"
        self._folder = folder
        self._holder = holder
        self._process: trio.Process | None = None
        self._pid = 0

    async def start(
        self,
        *,
        live_restore: bool = False,
        bridge: bool = False,
        listener: socket.socket | None = None,
    ) -> None:
        """Start it; it will answer in a moment.

        Args:
            live_restore: Containers outlive it.
            bridge: It has the default bridge.
            listener: Where it accepts connections in place of its own socket, as by systemd.
        """
        folder = str(self._folder)
        command = [
            *("nsenter", "-t", str(self._holder), *NAMESPACES, "sh", "-c", SHELL, folder),
            *("dockerd", "--host", self.host if listener is None else "fd://"),
            *("--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"),
            *("--pidfile", f"{folder}/pid", "--iptables=false"),
            *([] if bridge else ["--bridge", "none"]),
            *(["--live-restore"] if live_restore else []),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.DEVNULL if listener is None else listener.fileno(),
                stdout=log,
                stderr=log,
            )
        self._pid = await trio.to_thread.run_sync(child_of, self._process.pid)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Send the signal, and wait until it has ended."""
        assert self._process is not None
        os.kill(self._pid, number)
        await self._process.wait()

    async def lose_containers(self) -> None:
        """Kill it with all that knows of its containers, as a power cut does."""
        for name in ("dockerd", "containerd"):  # the one would start the other again
            kill_all(name, namespace_of=self._holder)
        assert self._process is not None
        await self._process.wait()

    def lose_container(self, container_id: str) -> None:
        """Kill what knows of the container, which must have outlived the engine."""
        kill_all("containerd-shim", namespace_of=self._holder, about=container_id)

    def signal(self, number: int) -> None:
        """Send a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        assert self._process is not None
        os.kill(self._pid, number)
        if number == signal.SIGCONT:  # nsenter has stopped itself, too
            os.kill(self._process.pid, number)


def kill_all(name: str, *, namespace_of: int, about: str = "") -> None:
    """Kill all processes whose names begin like this in the namespace of that process.

    Args:
        name: How the names begin.
        namespace_of: The id of the process.
        about: What the command lines must hold as well.
    """
    namespace = os.readlink(f"/proc/{namespace_of}/ns/pid")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            inside = os.readlink(process / "ns/pid") == namespace
            named = inside and (process / "comm").read_text().startswith(name)
            if named and about in (process / "cmdline").read_text():
                os.kill(int(process.name), signal.SIGKILL)


def child_of(pid: int) -> int:
    """Wait until a process has a child, and return that."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 10
    while not (found := children.read_text().split()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} has started nothing")
        time.sleep(0.01)
    return int(found[0])


@asynccontextmanager
async def open_own_engine(folder: Path) -> AsyncGenerator[OwnEngine]:
    """Make the namespaces in which an engine can be started, again and again."""
    holder = await trio.lowlevel.open_process(
        [
            "unshare",
            *NAMESPACES,
            "--fork",
            "--kill-child",
            "--mount-proc",
            "docker-init",
            "--",
            "sleep",
            "infinity",
        ]
    )
    engine = None
    try:
        engine = OwnEngine(folder, await trio.to_thread.run_sync(child_of, holder.pid))
        yield engine
    finally:
        with trio.move_on_after(30, shield=True):
            if engine is not None:
                with suppress(ProcessLookupError):
                    engine.signal(signal.SIGCONT)
                    await engine.stop()
        holder.kill()
        with trio.move_on_after(30, shield=True):
            await holder.wait()


async def answers(engine: DockerEngine) -> None:
    """Wait until the engine that was just started answers."""
    while True:
        try:
            await engine.info()
            return
        except EngineUnavailable:
            await trio.sleep(0.1)

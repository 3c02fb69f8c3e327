"""A Docker Engine of its own, in namespaces of its own, that can be frozen, restarted and killed.

The engine has its own network, mounts and process ids, so that nothing of it meets another engine
and everything of it ends with the first process there, the recorder of the containers' marks.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import trio

from gyoza.worker.containers.labels import RUN_ID
from tests.chaos.lines import read_line
from tests.chaos.marks import Mark, read_marks

ADDRESS, NETWORK = "10.213.0.1", "10.213.0.1/16"
MARKS_PORT = 7000
START_S, STOP_S, ASK_S = 90.0, 60.0, 30.0
LOOK_S = 0.05
CATCH_UP_S = 5.0
"""So long it may take until all is as usual after a frost or a restart."""

TORN_START_S = 3.0
"""A container takes so long to start, at most."""

ROOT = Path(__file__).parents[2]

# What a machine's own engine, containerd and resolver have under /run is out of sight.
_INSIDE = 'mount -t tmpfs tmpfs /run && exec "$@"'


class EngineDidNotStart(Exception):
    """There is no engine to try anything on; says why."""


@dataclass(frozen=True)
class ContainerProcess:
    """A container's processes, as the machine has them.

    Attributes:
        torn: Whether the engine went away while it started the container or later. It may have
            lost it then, and nobody who speaks to the engine can end it.
    """

    container_id: str
    torn: bool


class Engine:
    """The engine; see `open_engine`.

    Attributes:
        busy: Held by the one fault at a time that may touch it.
        socket: Its Unix socket.
        log: Where its output goes.
        live_restore: Whether containers survive its end.
        away: From when to when it was not there, as wall-clock times in seconds.
    """

    def __init__(self, folder: Path, first: int) -> None:
        self.busy = trio.Lock()
        self.socket = folder / "docker.sock"
        self.log = folder / "engine.log"
        self.live_restore = False
        self.away: list[tuple[float, float]] = []
        self._left_at: float | None = None
        self._frozen_at = self._thawed_at = 0.0
        self._folder = folder
        self._first = first
        self._entry: trio.Process | None = None
        self._pid = 0

    async def start(self, *, live_restore: bool) -> None:
        """Start dockerd and wait until it answers.

        Raises:
            EngineDidNotStart: If it does not, with its last words.
        """
        pid_file = self._folder / "engine.pid"
        pid_file.unlink(missing_ok=True)
        command = [
            *("nsenter", f"--target={self._first}", "--net", "--mount", "--pid", "dockerd"),
            *("--host", f"unix://{self.socket}", "--pidfile", str(pid_file)),
            *("--data-root", str(self._folder / "data"), "--exec-root", "/run/docker"),
            *("--bip", NETWORK, "--iptables=false", "--ip-masq=false"),
            *("--exec-opt", "native.cgroupdriver=cgroupfs"),
            *("--cgroup-parent", f"/{self._folder.name}"),
        ]
        self.live_restore = live_restore
        if live_restore:
            command.append("--live-restore")
        with self.log.open("ab") as log:
            self._entry = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        with trio.move_on_after(START_S):
            while self._entry.poll() is None:
                if await self._answers():
                    self._pid = _only_child(self._entry.pid)
                    if self._left_at is not None:
                        self.away.append((self._left_at, time.time()))
                    self._left_at = None
                    return
                await trio.sleep(LOOK_S)
        raise EngineDidNotStart(f"The engine did not start; it says:\n{self._last_words()}")

    async def stop(self) -> bool:
        """Stop it by SIGTERM; return False if it had to be killed after `STOP_S`."""
        self._leave()
        self._send(signal.SIGTERM)
        with trio.move_on_after(STOP_S):
            await self._ended()
            return True
        await self.kill()
        return False

    async def kill(self) -> None:
        """End it by SIGKILL; its containers know nothing of it."""
        self._leave()
        self._send(signal.SIGKILL)
        await self._ended()

    def freeze(self) -> None:
        """Let it stand still."""
        self._frozen_at = time.time()
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; and what entered the namespaces for it, which stopped with it."""
        self._thawed_at = time.time()
        self._send(signal.SIGCONT)
        if self._entry is not None and self._entry.poll() is None:
            self._entry.send_signal(signal.SIGCONT)

    async def containers(self) -> list[dict[str, Any]]:
        """Return what the engine says of all containers of gyoza, running or not."""
        filters = json.dumps({"label": [RUN_ID]})
        async with self._client() as client:
            answer = await client.get(
                "/containers/json", params={"all": "true", "filters": filters}
            )
            return answer.raise_for_status().json()

    def processes(self) -> list[ContainerProcess]:
        """Return the containers that have processes, whatever the engine says of them."""
        namespace = os.readlink(f"/proc/{self._first}/ns/pid")
        found: list[ContainerProcess] = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().decode().split("\0")
                if "containerd-shim" not in words[0] or "-id" not in words:
                    continue
                if os.readlink(process / "ns/pid") == namespace:
                    container_id = words[words.index("-id") + 1]
                    started_at = _started_at(process)
                    torn = any(left > started_at - TORN_START_S for left, _ in self.away)
                    found.append(ContainerProcess(container_id, torn))
        return found

    def marks(self) -> list[Mark]:
        """Return all marks of containers so far, in the order in which they came."""
        return read_marks((self._folder / "marks").read_text(encoding="utf-8"))

    def has_trouble(self) -> bool:
        """Return whether it cannot be relied on: it is not there or frozen, or was a moment ago."""
        working_since = max(self._thawed_at, self.away[-1][1] if self.away else 0.0)
        frozen = self._frozen_at > self._thawed_at
        return self._left_at is not None or frozen or time.time() - working_since < CATCH_UP_S

    def _leave(self) -> None:
        """Note that it goes; what it had not caught up with after a frost goes with it."""
        if self._left_at is None:
            caught_up = time.time() - self._thawed_at > CATCH_UP_S
            self._left_at = time.time() if caught_up else self._frozen_at

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)

    async def _ended(self) -> None:
        if self._entry is not None:
            await self._entry.wait()

    def _client(self) -> httpx.AsyncClient:
        transport = httpx.AsyncHTTPTransport(uds=str(self.socket))
        return httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=ASK_S)

    async def _answers(self) -> bool:
        try:
            async with self._client() as client:
                return (await client.get("/_ping")).is_success
        except httpx.TransportError:
            return False

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-15:])


@asynccontextmanager
async def open_engine(folder: Path) -> AsyncGenerator[Engine]:
    """Have an engine running; at the end nothing of it is left but its log and the marks.

    Raises:
        EngineDidNotStart: If this machine cannot have one.
    """
    if os.geteuid() != 0:
        raise EngineDidNotStart("An engine of one's own needs root.")
    if missing := [name for name in ("dockerd", "unshare", "nsenter") if not _has(name)]:
        raise EngineDidNotStart(f"This machine lacks {', '.join(missing)}; install Docker Engine.")
    namespaces = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    recorder = [sys.executable, "-m", "tests.chaos.recorder", str(MARKS_PORT)]
    holder = await trio.lowlevel.open_process(
        [*namespaces, "sh", "-c", _INSIDE, "sh", *recorder, str(folder / "marks")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        assert holder.stdout is not None
        if await read_line(holder.stdout) != b"ready":
            raise EngineDidNotStart("No namespaces can be made here.")
        first = _only_child(holder.pid)
        async with _ending_with(holder, first):
            engine = Engine(folder, first)
            await engine.start(live_restore=False)
            yield engine
    finally:
        with trio.CancelScope(shield=True):  # a killed process ends at once
            holder.kill()
            await holder.wait()
            await trio.to_thread.run_sync(_remove_remains, folder)


@asynccontextmanager
async def _ending_with(holder: trio.Process, first: int) -> AsyncGenerator[None]:
    """At the end kill the holder and with it all processes of its namespaces, and wait for that."""
    handle = os.pidfd_open(first)
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            holder.kill()
            await trio.lowlevel.wait_readable(handle)
            os.close(handle)


def _has(program: str) -> bool:
    return shutil.which(program) is not None


def _started_at(process: Path) -> float:
    """Return when a process was started, as wall-clock time in seconds."""
    ticks = int((process / "stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
    uptime_s = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    return time.time() - uptime_s + ticks / os.sysconf("SC_CLK_TCK")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return int(children[0])


def _remove_remains(folder: Path) -> None:
    """Remove images and layers, and the control groups of containers that were killed."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    groups = Path("/sys/fs/cgroup")
    for parent in (groups / folder.name, *groups.glob(f"*/{folder.name}")):
        for group, _, _ in os.walk(parent, topdown=False):
            with suppress(OSError):
                os.rmdir(group)

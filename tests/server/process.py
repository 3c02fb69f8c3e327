"""`gyoza server start` as a process of its own, to be killed and started again on the same file."""

import os
import subprocess
import sys
from pathlib import Path

import trio

from .api import KEY

COMMAND = (sys.executable, "-c", "import sys; from gyoza.cli.main import main; sys.exit(main())")


class ServerProcess:
    """One server, which may have several lives at one address.

    Attributes:
        url: Where it listens, in every life.
    """

    def __init__(self, directory: Path) -> None:
        self._database = f"sqlite:///{directory / 'server.sqlite3'}"
        self._port = "0"
        self._process: trio.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it and wait until it listens."""
        options = ("--port", self._port, "--database-url", self._database)
        self._process = await trio.lowlevel.open_process(
            [*COMMAND, "server", "start", *options, "--log-level", "error"],
            stdout=subprocess.PIPE,
            env={**os.environ, "GYOZA_API_KEY": KEY},
        )
        assert isinstance(self._process.stdout, trio.abc.ReceiveStream)
        said = b""
        with trio.fail_after(200):
            while b"\n" not in said:
                part = await self._process.stdout.receive_some()
                assert part, "the server has ended"
                said += part
        self.url = said.decode().split()[4]
        self._port = self.url.rpartition(":")[2]

    async def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.kill()
        with trio.move_on_after(10, shield=True):
            await self._process.wait()
            await self._process.stdout.aclose()

"""Keeps the marks of the containers on disk: the first process in the engine's own namespaces.

    python -m tests.chaos.recorder PORT FILE

A mark is a line; it is answered with `taken` when it is on disk. The process ends when its standard
input does, and every process of its namespaces with it.
"""

import os
import signal
import sys
import time
from functools import partial

import trio

from tests.chaos.lines import read_line


async def record(file: int, stream: trio.abc.Stream) -> None:
    """Take the mark of one connection."""
    async with stream:
        try:
            line = await read_line(stream)
            if line is not None:
                os.write(file, f"{time.time():.3f} ".encode() + line + b"\n")
                os.fsync(file)
                await stream.send_all(b"taken\n")
        except trio.BrokenResourceError:
            pass  # the container was killed; it may have left a mark all the same


async def serve(port: int, path: str) -> None:
    """Take marks until standard input ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_tcp, partial(record, file), port, host="0.0.0.0"))
        async with trio.lowlevel.FdStream(os.dup(1)) as says:
            await says.send_all(b"ready\n")
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            while await stdin.receive_some():
                pass
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    # When the engine is killed its helpers come here as orphans; none is to stay as a zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    trio.run(serve, int(sys.argv[1]), sys.argv[2])

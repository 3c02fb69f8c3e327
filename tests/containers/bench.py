"""The same containers for the real engine and the fake, and the readers of their output."""

import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import trio

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.containers.engine import ContainerEngine, ContainerExit, ContainerSpec, LogStream
from gyoza.worker.op_io.disk_use import DiskUse

MANY = "".join(f"{number}\n" for number in range(1, 20001)).encode()

# Not UTF-8, zeros, carriage returns, empty lines, lines around the size in which engines keep
# them, a character across that border, and no newline at the end.
ODD = b"".join(
    (
        b"\xff\xfe\x00a\r\nb\xc3(\n",
        *(b"x" * 16383, "é\n".encode()),
        *(b"x" * 16384, b"\n\n"),
        *(b"x" * 16384, b"\n", b"x" * 40000, b"\n"),
        *(b"x" * 32767, b"\n", b"unfinished"),
    )
)
_XS = "head -c {} /dev/zero | tr '\\000' x"

SCRIPTS = {
    "writes-odd": "; ".join(
        (
            r"printf '\377\376\000a\r\nb\303(\n'",
            *(_XS.format(16383), r"printf '\303\251\n'"),
            *(_XS.format(16384), r"printf '\n\n'"),
            *(_XS.format(16384), "echo", _XS.format(40000), "echo"),
            *(_XS.format(32767), "echo", "printf unfinished", "echo err >&2"),
        )
    ),
    "writes-when-asked": "trap 'echo asked; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    "exits-3": "exit 3",
    "exits-255": "exit 255",
    "takes-all-memory": "exec tail /dev/zero",
    "writes": "echo out; echo err >&2; printf unfinished",
    "writes-much": "seq 20000",
    "fills-its-disk": "head -c 5000000 /dev/zero >/own; sync /own; echo ready; exec sleep 60",
    "sleeps": "echo ready; exec sleep 60",
    "ignores-stop": "trap '' TERM; echo ready; while :; do sleep 1; done",
    "ends-well-when-asked": "trap 'exit 0' TERM; echo ready; while :; do sleep 0.1; done",
    "shows-env": 'printf "$GREETING"',
    "writes-file": 'cp "/data/in" /data/out',
}


async def _writes(container: FakeContainer) -> int:
    await container.stdout(b"out\n")
    await container.stderr(b"err\n")
    await container.stdout(b"unfinished")
    return 0


async def _writes_much(container: FakeContainer) -> int:
    for start in range(0, len(MANY), 1000):
        await container.stdout(MANY[start : start + 1000])
    return 0


async def _writes_odd(container: FakeContainer) -> int:
    for start in range(0, len(ODD), 5000):
        await container.stdout(ODD[start : start + 5000])
    await container.stderr(b"err\n")
    return 0


async def _exits_3(container: FakeContainer) -> int:
    return 3


async def _exits_255(container: FakeContainer) -> int:
    return 255


async def _takes_all_memory(container: FakeContainer) -> int:
    container.oom_told_late = True
    return 137


async def _sleeps(container: FakeContainer) -> int:
    await container.stdout(b"ready\n")
    await trio.sleep_forever()
    return 0


async def _fills_its_disk(container: FakeContainer) -> int:
    container.written = DiskUse(5_000_000, 1)
    return await _sleeps(container)


async def _ends_well_when_asked(container: FakeContainer) -> int:
    await container.stdout(b"ready\n")
    await container.stop_asked.wait()
    return 0


async def _writes_when_asked(container: FakeContainer) -> int:
    await container.stdout(b"ready\n")
    await container.stop_asked.wait()
    await container.stdout(b"asked\n")
    return 0


async def _shows_env(container: FakeContainer) -> int:
    await container.stdout(container.env["GREETING"].encode())
    return 0


async def _writes_file(container: FakeContainer) -> int:
    source = trio.Path(container.path("/data/in"))
    await trio.Path(container.path("/data/out")).write_bytes(await source.read_bytes())
    return 0


def add_images(engine: FakeContainerEngine) -> None:
    """Give the fake an image for each of the scripts."""
    for name, program in {
        "exits-3": _exits_3,
        "exits-255": _exits_255,
        "takes-all-memory": _takes_all_memory,
        "writes": _writes,
        "writes-much": _writes_much,
        "writes-odd": _writes_odd,
        "fills-its-disk": _fills_its_disk,
        "sleeps": _sleeps,
        "shows-env": _shows_env,
        "writes-file": _writes_file,
    }.items():
        engine.add_image(name, program, in_registry=False)
    engine.add_image("ignores-stop", _sleeps, handles_stop=True)
    engine.add_image("writes-when-asked", _writes_when_asked, handles_stop=True)
    engine.add_image("ends-well-when-asked", _ends_well_when_asked, handles_stop=True)


class Bench:
    """An engine under test.

    Attributes:
        image: The image with a shell; None on the fake, which has one for each script.
    """

    def __init__(self, engine: ContainerEngine, image: str | None) -> None:
        self.engine = engine
        self.image = image

    def spec(self, script: str, **fields: Any) -> ContainerSpec:
        """Describe a container that runs a script of the table."""
        fields.setdefault("name", f"gyoza-test-{uuid4().hex}")
        if self.image is None:
            return ContainerSpec(image=script, **fields)
        return ContainerSpec(image=self.image, command=["sh", "-c", SCRIPTS[script]], **fields)

    @asynccontextmanager
    async def created(self, script: str, **fields: Any) -> AsyncGenerator[str]:
        """Create a container and remove it at the end."""
        container_id = await self.engine.create(self.spec(script, **fields))
        try:
            yield container_id
        finally:
            with trio.move_on_after(30, shield=True):
                await self.engine.remove(container_id)

    @asynccontextmanager
    async def running(self, script: str, **fields: Any) -> AsyncGenerator[str]:
        """Run a container that says when it is ready."""
        async with self.created(script, **fields) as container_id:
            async with self.engine.attach(container_id) as stream:
                await self.engine.start(container_id)
                assert b"ready" in await stream.receive()
            yield container_id

    async def run(self, script: str, **fields: Any) -> tuple[ContainerExit, bytes, bytes]:
        """Run a container to its end; return that and its two outputs."""
        async with self.created(script, **fields) as container_id:
            async with self.engine.attach(container_id) as stream:
                await self.engine.start(container_id)
                output = await read_to_end(stream)
            return await self.engine.wait(container_id), *demultiplexed(output)

    async def logs(self, container_id: str) -> tuple[bytes, bytes]:
        """Return what the engine has kept of the two outputs."""
        async with self.engine.logs(container_id, follow=False) as stream:
            return demultiplexed(await read_to_end(stream))


async def read_to_end(stream: LogStream) -> bytes:
    """Return all blocks of a stream."""
    output = b""
    while block := await stream.receive():
        output += block
    return output


def demultiplexed(output: bytes) -> tuple[bytes, bytes]:
    """Return standard output and standard error."""
    streams = {1: b"", 2: b""}
    while output:
        kind, length = struct.unpack(">BxxxL", output[:8])
        streams[kind] += output[8 : 8 + length]
        output = output[8 + length :]
    return streams[1], streams[2]

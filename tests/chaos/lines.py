"""Lines over a stream."""

import trio

LONGEST = 65536


async def read_line(stream: trio.abc.ReceiveStream) -> bytes | None:
    """Return what comes before the first line end; None if the stream ends or rambles before."""
    data = b""
    while b"\n" not in data:
        block = await stream.receive_some(4096)
        if not block or len(data) > LONGEST:
            return None
        data += block
    return data.partition(b"\n")[0]

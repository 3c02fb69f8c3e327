"""Accepts connections, and guards each: whatever one of them brings about ends that one alone."""

import errno
import ssl
from collections.abc import Sequence
from typing import Any

import trio

from gyoza.server.http.admission import Seat
from gyoza.server.http.connection import Connection, Service, first_of
from gyoza.server.http.wire import GONE, Stream, Wire
from gyoza.server.rates import network_of

HANDSHAKE_S = 10.0

NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
RETRY_S = 0.1
"""Seconds until the next try to accept, when the machine lacks something for it."""


async def serve_http(
    service: Service,
    listeners: Sequence[trio.SocketListener],
    tls: ssl.SSLContext | None,
    grace_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `service.ending` is set; then close, with a grace for what is being answered.

    Args:
        service: What all connections share.
        listeners: Where clients connect; they are closed when this ends.
        tls: The certificate, or None for plain HTTP.
        grace_s: Seconds for the answers that are under way at the end.
        task_status: Told that connections are accepted.
    """
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for listener in listeners:
                accepting.start_soon(_accept, service, listener, tls, connections)
            task_status.started()
            await service.ending.wait()
            accepting.cancel_scope.cancel()
        for waiting in list(service.idle):
            waiting.cancel()
        connections.cancel_scope.deadline = trio.current_time() + grace_s


async def _accept(
    service: Service,
    listener: trio.SocketListener,
    tls: ssl.SSLContext | None,
    connections: trio.Nursery,
) -> None:
    async with listener:
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                service.log.warning("No connection can be accepted (%s).", error.strerror)
                service.admission.make_room()
                await trio.sleep(RETRY_S)
                continue
            address = _address(stream.socket)
            seat = service.admission.admit(network_of(address[0]))
            if seat is None:
                service.log.warning(
                    "All connections are in use; one from %s is closed.", address[0]
                )
                await trio.aclose_forcefully(stream)
            else:
                connections.start_soon(_guarded, service, stream, tls, seat, address)


async def _guarded(
    service: Service,
    stream: trio.SocketStream,
    tls: ssl.SSLContext | None,
    seat: Seat,
    address: tuple[str, int],
) -> None:
    """Serve one connection; its errors are told in a line, and concern no other."""
    try:
        with seat.scope:
            await _serve(service, stream, tls, seat, address)
    except* Exception as errors:  # noqa: BLE001 - none may end the other connections
        service.log.error("The connection from %s ends by %r.", address[0], first_of(errors))
    finally:
        service.admission.leave(seat)
        await trio.aclose_forcefully(stream)


async def _serve(
    service: Service,
    stream: trio.SocketStream,
    tls: ssl.SSLContext | None,
    seat: Seat,
    address: tuple[str, int],
) -> None:
    spoken: Stream = stream
    if tls is not None:
        spoken = trio.SSLStream(stream, tls, server_side=True, https_compatible=True)
        with trio.move_on_after(HANDSHAKE_S) as handshake:
            try:
                await spoken.do_handshake()
            except (*GONE, ssl.SSLError):
                return
        if handshake.cancelled_caught:
            return
    about: dict[str, Any] = {
        "scheme": "http" if tls is None else "https",
        "client": address,
        "server": _own_address(stream.socket),
    }
    await Connection(service, Wire(spoken, service.send_s), seat, about).serve()


def _address(socket: trio.socket.SocketType) -> tuple[str, int]:
    """Return who connects; nobody in particular if he has gone already."""
    try:
        name = socket.getpeername()
    except OSError:
        return "", 0
    return name[0], name[1]


def _own_address(socket: trio.socket.SocketType) -> tuple[str, int]:
    name = socket.getsockname()
    return name[0], name[1]

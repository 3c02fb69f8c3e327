"""One blocking request to the Docker Engine, which a cancel ends at once."""

import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from gyoza.worker.errors import EngineUnavailable

T = TypeVar("T")

# A thread that is still connecting cannot be woken; it is left to its socket's own time-out.
PATIENCE_S = 1.0
CONNECT_S = 10.0

_current: ContextVar["Call | None"] = ContextVar("_current", default=None)


class Closeable(Protocol):
    """Anything that is closed with the call it belongs to."""

    def close(self) -> None:
        """Close it."""
        ...


class Call:
    """A request and the socket it travels on.

    A thread that reads from a socket cannot be cancelled, but it wakes with an end of file when
    somebody shuts the socket down. Every request has a connection of its own, so that this hurts
    nobody else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._response: Closeable | None = None
        self._ended = False

    async def run(self, function: Callable[[], T], limiter: trio.CapacityLimiter) -> T:
        """Return what `function` returns in a thread; a cancel ends the call and the thread.

        Raises:
            EngineUnavailable: If the system grants no thread.
        """
        token = trio.lowlevel.current_trio_token()
        started = finished = False
        let_go = trio.Event()

        def in_thread() -> T:
            nonlocal started, finished
            started = True
            _current.set(self)
            try:
                return function()
            finally:
                with self._lock:
                    finished, awaited = True, self._ended
                if awaited:
                    with suppress(trio.RunFinishedError):
                        token.run_sync_soon(let_go.set)

        try:
            return await trio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=limiter)
        except trio.Cancelled:
            self.end()
            if started and not finished:
                with trio.move_on_after(PATIENCE_S, shield=True):
                    await let_go.wait()
            raise
        except RuntimeError as error:
            if started:
                raise
            raise EngineUnavailable(f"The engine cannot be asked: {error}.") from error

    def connected(self, connection: socket.socket) -> None:
        """Remember the socket; called in the thread as soon as it is connected."""
        with self._lock:
            self._socket = connection
            if self._ended:
                self._shut_down()

    def answered(self, response: Closeable) -> None:
        """Remember a response that is read later; called in the thread."""
        with self._lock:
            self._response = response
            if self._ended:
                response.close()

    def is_hung_up(self) -> bool:
        """Return whether the other side has closed the connection; nobody may be reading."""
        with self._lock:
            if self._socket is None:
                return True
            try:  # past the TLS layer: all that can be said there now is goodbye
                socket.socket.recv(self._socket, 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                return True
            return True

    def end(self) -> None:
        """Shut the socket down: whoever waits for it wakes."""
        with self._lock:
            self._ended = True
            self._shut_down()

    def close(self) -> None:
        """End the call and release what it holds."""
        self.end()
        with self._lock:
            if self._response is not None:
                self._response.close()

    def _shut_down(self) -> None:
        if self._socket is not None:
            # Past the TLS layer, which is not made for two threads.
            with suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def tell_calls(adapter: Any) -> None:
    """Make a requests adapter tell the current `Call` of every socket it connects."""
    get_pool = adapter.get_connection_with_tls_context

    def get_telling_pool(*args: Any, **kwargs: Any) -> Any:
        pool = get_pool(*args, **kwargs)
        if not hasattr(pool, "tells_calls"):
            pool.tells_calls = True
            pool._new_conn = _telling(pool._new_conn)  # where urllib3 makes its connections
        return pool

    adapter.get_connection_with_tls_context = get_telling_pool


def _telling(new_connection: Callable[[], Any]) -> Callable[[], Any]:
    def new_telling_connection() -> Any:
        connection = new_connection()
        connect = connection.connect
        if hasattr(connection, "unix_socket"):
            connect = partial(_connect_unix, connection)

        def connect_and_tell() -> None:
            patience = connection.timeout
            connection.timeout = min(patience or CONNECT_S, CONNECT_S)
            connect()
            connection.timeout = patience
            connection.sock.settimeout(patience)
            call = _current.get()
            if call is not None:
                call.connected(connection.sock)

        connection.connect = connect_and_tell
        return connection

    return new_telling_connection


def _connect_unix(connection: Any) -> None:
    """Do as docker-py does, but leave no open socket behind if nobody answers."""
    with ExitStack() as stack:
        unix_socket = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        unix_socket.settimeout(connection.timeout)
        unix_socket.connect(connection.unix_socket)
        stack.pop_all()
    connection.sock = unix_socket

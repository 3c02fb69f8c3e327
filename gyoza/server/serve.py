"""One server from start to end: address, key, database, HTTP and the lease service."""

import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable

import trio
from sqlalchemy.exc import SQLAlchemyError

from gyoza import __version__, descriptors
from gyoza.server.app import create_app
from gyoza.server.auth import ApiKey, ensure_api_key, key_in_file, warn_of_risks
from gyoza.server.errors import AddressError, DatabaseError, TlsError
from gyoza.server.front import ALWAYS
from gyoza.server.http import Bounds, serve_http
from gyoza.server.http.admission import RESERVE, Admission
from gyoza.server.http.connection import Service as HttpService
from gyoza.server.keyring import Key, Keyring
from gyoza.server.leases import Leases, run_leases
from gyoza.server.limits import Limits
from gyoza.server.repeat import cause_of, repeat
from gyoza.server.retention import run_retention
from gyoza.server.service import Service
from gyoza.server.settings import ServerSettings
from gyoza.server.store.database import Database
from gyoza.server.store.keys import good_keys, note_use
from gyoza.server.wakeups import Wakeups

GRACE_S = 3.0  # for requests under way when the server is told to end
BACKLOG = 256

OWN_FILES = 64
"""Descriptors of the process that are no connections: database, standard streams, modules."""

MOST_CONNECTIONS = 10_000
"""Connections unless a number is set, where open files allow more."""

DAY_S = 24 * 3600.0

RENEW_S = 2.0
"""Seconds between two looks at the file of the server's own key."""

NOTE_USE_S = 60.0
"""Seconds between two times when the last use of keys is stored."""

HEADERS = {"gyoza-version": __version__, "cache-control": "no-store", **ALWAYS}
"""What every answer carries."""

_log = logging.getLogger(__name__)


async def serve(
    settings: ServerSettings,
    *,
    clock: Callable[[], float] = time.time,
    limits: Limits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then answer what is under way, end every long poll and close.

    Use it as `url = await nursery.start(serve, settings)`; `url` is the real base URL.

    Args:
        settings: Where to listen and what to keep.
        clock: Returns seconds since 1970.
        limits: Caps and time-outs, if not the usual ones.
        task_status: Told the base URL once requests are answered.

    Raises:
        StartError: If the server cannot start; says why in one sentence.
    """
    key = await trio.to_thread.run_sync(ensure_api_key, settings)
    tls = _tls(settings)
    limits = limits or Limits(rate=settings.rate_limit)
    async with await _listen(settings, limits) as listener:
        wakeups = Wakeups()
        database = await Database.open(settings.database_path, wakeups, clock)
        warn_of_risks(settings, key)
        try:
            leases = Leases(database, clock, settings.lease_s)
            service = Service(database, wakeups, clock, settings.lease_s, leases)
            await _run(service, settings, limits, key, listener, tls, task_status)
        finally:
            await database.aclose()


async def _run(
    service: Service,
    settings: ServerSettings,
    limits: Limits,
    key: ApiKey,
    listener: trio.SocketListener,
    tls: ssl.SSLContext | None,
    task_status: trio.TaskStatus[str],
) -> None:
    keyring = Keyring(key.value, await _keys(service.database), service.clock)
    app = create_app(service, keyring, limits)
    bounds = _bounds(settings)
    _log.info("Up to %d connections are served at a time.", bounds.in_all)
    http = HttpService(
        app=app,
        admission=Admission(bounds),
        idle_s=limits.idle_s,
        send_s=limits.send_s,
        root_path=settings.root_path,
        headers=[(name.encode(), value.encode()) for name, value in HEADERS.items()],
    )
    url = _url(settings, listener.socket)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_leases, service)
        if settings.retention_days:
            keep_s = settings.retention_days * DAY_S
            nursery.start_soon(run_retention, service.database, service.clock, keep_s)
        nursery.start_soon(_renew_key, settings, keyring, key.value)
        nursery.start_soon(_note_use, service.database, keyring)
        http_scope = trio.CancelScope()
        await nursery.start(_serve_http, http, listener, tls, http_scope)
        # From here on requests under way are to be answered; the deadline set below bounds it.
        http_scope.shield = True
        _log.debug("Listening on %s", url)
        task_status.started(url)
        try:
            await trio.sleep_forever()
        finally:
            service.wakeups.close()
            http.ending.set()
            http_scope.deadline = trio.current_time() + 2 * GRACE_S


async def _keys(database: Database) -> list[Key]:
    try:
        return await database.read(good_keys)
    except SQLAlchemyError as error:
        raise DatabaseError(f"The database cannot be read ({cause_of(error)}).") from error


def _bounds(settings: ServerSettings) -> Bounds:
    """Return how many connections there may be: what is set, as far as open files allow."""
    possible = max(1, int(min(descriptors.allowed() - OWN_FILES - RESERVE, MOST_CONNECTIONS)))
    in_all = min(settings.max_connections or possible, possible)
    if in_all < settings.max_connections:
        _log.warning(
            "The limit of open files allows %d connections, not %d; raise it (LimitNOFILE).",
            in_all,
            settings.max_connections,
        )
    return Bounds(
        in_all=in_all,
        per_address=settings.max_connections_per_address or in_all,
        per_key=settings.max_connections_per_key or max(1, in_all * 3 // 4),
    )


async def _renew_key(settings: ServerSettings, keyring: Keyring, known: str) -> None:
    """Take another own key as soon as the file of the one before holds another."""

    async def look() -> float:
        nonlocal known
        found = await trio.to_thread.run_sync(key_in_file, settings)
        if found and found != known:
            known = found
            keyring.replace_own(found)
            _log.info("The server's own key has changed.")
        return RENEW_S

    await repeat("The file of the server's own key cannot be read", look)


async def _note_use(database: Database, keyring: Keyring) -> None:
    """Store when keys were last used, now and then: it is worth no write for each request."""

    async def store() -> float:
        used, keyring.used = keyring.used, {}
        if used:
            await database.write(lambda tx: note_use(tx, used))
        return NOTE_USE_S

    await repeat("The last use of keys cannot be stored", store)


async def _serve_http(
    http: HttpService,
    listener: trio.SocketListener,
    tls: ssl.SSLContext | None,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None],
) -> None:
    with scope:
        await serve_http(http, [listener], tls, GRACE_S, task_status=task_status)


async def _listen(settings: ServerSettings, limits: Limits) -> trio.SocketListener:
    where = f"{settings.host}:{settings.port}"
    try:
        found = await trio.socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise AddressError(f"{where} is not an address of this machine ({error}).") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform == "linux":  # connections inherit it; nothing else ends a send
            timeout_ms = round(limits.send_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, timeout_ms)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(
            f"The server cannot listen on {where} ({error.strerror}); "
            "is another one running there? Choose another port or host."
        ) from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listener))


def _tls(settings: ServerSettings) -> ssl.SSLContext | None:
    if not settings.tls_certfile:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.tls_certfile, settings.tls_keyfile)
    except OSError as error:  # ssl.SSLError is one
        raise TlsError(
            f"The certificate {settings.tls_certfile} cannot be used with the key "
            f"{settings.tls_keyfile} ({error.strerror or error})."
        ) from error
    try:
        if settings.tls_client_ca:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise TlsError(
            f"The file {settings.tls_client_ca} holds no authorities for the certificates of "
            f"clients ({error.strerror or error})."
        ) from error
    return context


def _url(settings: ServerSettings, listener: trio.socket.SocketType) -> str:
    """Return where clients on this machine reach the server."""
    wildcards = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    host = wildcards.get(settings.host, settings.host)
    scheme = "https" if settings.tls_certfile else "http"
    port: int = listener.getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

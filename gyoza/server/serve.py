"""One server from start to end: address, key, database, HTTP and the lease service."""

import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import trio
from fastapi import FastAPI
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve  # pyright: ignore[reportUnknownVariableType]

from gyoza.server.app import create_app
from gyoza.server.auth import ApiKey, ensure_api_key, key_in_file
from gyoza.server.errors import AddressError, TlsError
from gyoza.server.keyring import Keyring
from gyoza.server.leases import run_leases
from gyoza.server.limits import Limits
from gyoza.server.retention import run_retention
from gyoza.server.service import Service
from gyoza.server.settings import ServerSettings
from gyoza.server.store.database import Database
from gyoza.server.store.keys import good_keys
from gyoza.server.wakeups import Wakeups

GRACE_S = 3.0  # for requests under way when the server is told to end
BACKLOG = 256
HANDSHAKE_S = 10.0
DAY_S = 24 * 3600.0

RENEW_S = 2.0
"""Seconds between two looks at the file of the server's own key."""

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
    _check_tls(settings)
    limits = limits or Limits(rate=settings.rate_limit)
    listener = await _listen(settings, limits)
    with listener:
        url = _url(settings, listener)
        wakeups = Wakeups()
        database = await Database.open(settings.database_path, wakeups, clock)
        try:
            service = Service(database, wakeups, clock, settings.lease_s, clock())
            await _run(service, settings, limits, key, listener, url, task_status)
        finally:
            await database.aclose()


async def _run(
    service: Service,
    settings: ServerSettings,
    limits: Limits,
    key: ApiKey,
    listener: socket.socket,
    url: str,
    task_status: trio.TaskStatus[str],
) -> None:
    keyring = Keyring(key.value, await service.database.read(good_keys))
    app = create_app(service, keyring, limits)
    end = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(run_leases, service.database, service.wakeups, service.clock, service.lease_s)
        )
        if settings.retention_days:
            keep_s = settings.retention_days * DAY_S
            await nursery.start(run_retention, service.database, service.clock, keep_s)
        nursery.start_soon(_renew_key, settings, keyring, key.value)
        http_scope = trio.CancelScope()
        await nursery.start(_serve_http, app, _config(settings, limits, listener), end, http_scope)
        # From here on requests under way are to be answered; the deadline set below bounds it.
        http_scope.shield = True
        _log.info("Listening on %s", url)
        task_status.started(url)
        try:
            await trio.sleep_forever()
        finally:
            service.wakeups.close()
            end.set()
            http_scope.deadline = trio.current_time() + 2 * GRACE_S


async def _renew_key(settings: ServerSettings, keyring: Keyring, known: str) -> None:
    """Take another own key as soon as the file of the one before holds another."""
    while True:
        await trio.sleep(RENEW_S)
        found = await trio.to_thread.run_sync(key_in_file, settings)
        if found and found != known:
            known = found
            keyring.replace_own(found)
            _log.info("The server's own key has changed.")


async def _serve_http(
    app: FastAPI,
    config: Config,
    end: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    with scope:
        # Both sides are ASGI; only their types for it differ.
        await hypercorn_serve(
            cast("Any", app), config, shutdown_trigger=end.wait, task_status=task_status
        )


def _config(settings: ServerSettings, limits: Limits, listener: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
    config.certfile = settings.tls_certfile or None
    config.keyfile = settings.tls_keyfile or None
    if settings.tls_client_ca:
        config.ca_certs = settings.tls_client_ca
        config.verify_mode = ssl.VerifyMode.CERT_REQUIRED
    config.ssl_handshake_timeout = HANDSHAKE_S
    config.graceful_timeout = GRACE_S
    config.backlog = BACKLOG
    config.keep_alive_timeout = limits.idle_s
    quiet = logging.getLogger("gyoza.server.http")
    quiet.setLevel(logging.WARNING)
    config.errorlog = quiet
    return config


async def _listen(settings: ServerSettings, limits: Limits) -> socket.socket:
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
    return listener


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_certfile:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(settings.tls_certfile, settings.tls_keyfile)
        except OSError as error:  # ssl.SSLError is one
            raise TlsError(
                f"The certificate {settings.tls_certfile} cannot be used with the key "
                f"{settings.tls_keyfile} ({error.strerror or error})."
            ) from error
        try:
            if settings.tls_client_ca:
                context.load_verify_locations(settings.tls_client_ca)
        except OSError as error:
            raise TlsError(
                f"The file {settings.tls_client_ca} holds no authorities for the certificates of "
                f"clients ({error.strerror or error})."
            ) from error


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    """Return where clients on this machine reach the server."""
    wildcards = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
    host = wildcards.get(settings.host, settings.host)
    scheme = "https" if settings.tls_certfile else "http"
    port: int = listener.getsockname()[1]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

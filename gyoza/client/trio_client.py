"""The client for Trio."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx
import trio

from gyoza.client import endpoints
from gyoza.client.answers import Body, judge, read_answer
from gyoza.client.base import BaseClient, sign
from gyoza.client.call import SMALL, Call
from gyoza.client.errors import ApiError, ClientError, UnexpectedAnswer
from gyoza.client.log_reading import PATIENCE_S, LogPiece, LogReading, Tell, WholeLog
from gyoza.client.parse import Json, Page, WholeList
from gyoza.client.proxies import proxies_from_env

P = ParamSpec("P")
T = TypeVar("T")


def _method(
    describe: Callable[P, Call[T]],
) -> Callable[Concatenate["AsyncGyozaClient", P], Awaitable[T]]:
    @wraps(describe)
    async def method(self: "AsyncGyozaClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(describe(*args, **kwargs))

    sign(method, describe)
    return method


def _list_method(
    describe: Callable[P, Call[Page]],
) -> Callable[Concatenate["AsyncGyozaClient", P], Awaitable[list[Json]]]:
    @wraps(describe)
    async def method(self: "AsyncGyozaClient", *args: P.args, **kwargs: P.kwargs) -> list[Json]:
        call = describe(*args, **kwargs)
        whole = WholeList()
        while following := whole.add(await self.send(call)):
            call = replace(call, params={**call.params, "starting_after": following})
        return whole.items

    sign(method, describe, list[Json])
    return method


async def _read(response: httpx.Response, max_bytes: int) -> httpx.Response:
    body = Body(response, max_bytes)
    # By a cancel, since an error raised in the loop would leave the generators below it unfinished.
    with trio.CancelScope() as reading:
        async for part in response.aiter_raw():
            if not body.add(part):
                reading.cancel()
    return body.whole()


@asynccontextmanager
async def _parts_of(response: httpx.Response) -> AsyncGenerator[AsyncIterator[bytes]]:
    """Read the body in parts; one that is left before its end leaves no generator unfinished."""
    parts = response.aiter_raw()
    try:
        yield parts
    finally:
        with trio.move_on_after(0, shield=True):
            async for _ in parts:
                pass


class AsyncGyozaClient(BaseClient[httpx.AsyncClient]):
    """Every endpoint of the server as an async method.

    See `gyoza.client.endpoints` for the methods and `BaseClient` for the arguments.
    Every method raises `ApiError`, an `httpx.HTTPStatusError`, for an answer that is not a success,
    and `ServerUnreachable` when none came after the retries of `gyoza.client.retry`.
    """

    def _open(self) -> httpx.AsyncClient:
        with proxies_from_env():
            return httpx.AsyncClient(**self.connection.options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        if opened := self._opened.made:
            await opened.aclose()

    def check(self) -> None:
        """Read the environment and the files it names now, and not at the first call.

        Raises:
            ClientError: If they hold something that cannot be used.
        """
        _ = self._http

    async def send(self, call: Call[T]) -> T:
        """Send a described call, with the retries its row of the table allows."""
        tried = 0
        while True:
            tried += 1
            used = self.connection
            try:
                return read_answer(call, await self._exchange(call))
            except (httpx.TransportError, ApiError, UnexpectedAnswer) as error:
                failure = error
            if self._is_renewed(used, failure):
                continue
            wait = call.retry.delay_s(tried, failure)
            if wait is None:
                raise self.connection.told(failure)
            await trio.sleep(wait)

    async def _exchange(self, call: Call[Any]) -> httpx.Response:
        limit_s = self.connection.limit_s(call)
        # A cancel leaks no connection, since none is waited for: see `Connection.options`.
        with trio.move_on_after(limit_s):
            async with self._http.stream(**self.connection.request(call)) as response:
                return await _read(response, call.max_bytes)
        raise httpx.ReadTimeout(f"no whole answer within {limit_s:g} s")

    async def follow_logs(
        self, run_id: str, *, attempt: int | None = None, patience_s: float = PATIENCE_S
    ) -> AsyncGenerator[str]:
        """See `GyozaClient.follow_logs`."""
        pieces = self.stream_logs(run_id, attempt=attempt, follow=True, patience_s=patience_s)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece.text

    async def stream_logs(
        self,
        run_id: str,
        *,
        attempt: int | None = None,
        offset: int = 0,
        follow: bool = False,
        patience_s: float = PATIENCE_S,
        tell: Tell | None = None,
    ) -> AsyncGenerator[LogPiece]:
        """See `GyozaClient.stream_logs`."""
        reading = LogReading(
            run_id, attempt, offset, follow=follow, patience_s=patience_s, tell=tell
        )
        async with aclosing(self._stream(reading)) as pieces:
            async for piece in pieces:
                yield piece
        reading.check_whole()

    async def get_logs(
        self, run_id: str, *, attempt: int | None = None, follow: bool = False
    ) -> str:
        """See `GyozaClient.get_logs`."""
        reading = LogReading(run_id, attempt, follow=follow, whole=True)
        log = WholeLog()
        async with aclosing(self._stream(reading)) as pieces:
            async for piece in pieces:
                log.add(piece)
        reading.check_whole(log.text)
        return log.text

    async def _stream(self, reading: LogReading) -> AsyncGenerator[LogPiece]:
        while not reading.ended:
            used = self.connection
            try:
                async with self._http.stream(**reading.request(used)) as response:
                    if not response.is_success:
                        judge(await _read(response, SMALL))
                    reading.begin(response)
                    async with _parts_of(response) as parts:
                        async for part in parts:
                            for piece in reading.feed(part):
                                yield piece
                            if reading.ended:
                                return
                    for piece in reading.finish():
                        yield piece
                continue
            except (httpx.TransportError, ApiError, UnexpectedAnswer) as error:
                failure = error
            if self._is_renewed(used, failure):
                continue
            if isinstance(failure, httpx.ReadTimeout) and await self._is_there():
                reading.heard()
            await trio.sleep(reading.wait_s(failure, used))

    async def _is_there(self) -> bool:
        """Whether the server is well, though it said nothing for long: a proxy may hold it back."""
        try:
            await self.health()
        except (ApiError, ClientError):
            return False
        return True

    health = _method(endpoints.health)
    upsert_definition = _method(endpoints.upsert_definition)
    get_definition = _method(endpoints.get_definition)
    list_definitions = _list_method(endpoints.list_definitions)
    delete_definition = _method(endpoints.delete_definition)
    create_run = _method(endpoints.create_run)
    create_run_from_definition = _method(endpoints.create_run_from_definition)
    list_runs = _method(endpoints.list_runs)
    get_run = _method(endpoints.get_run)
    get_attempts = _method(endpoints.get_attempts)
    update_run = _method(endpoints.update_run)
    cancel_run = _method(endpoints.cancel_run)
    retry_run = _method(endpoints.retry_run)
    add_event = _method(endpoints.add_event)
    add_events = _method(endpoints.add_events)
    append_logs = _method(endpoints.append_logs)
    put_logs = _method(endpoints.put_logs)
    get_events = _method(endpoints.get_events)
    heartbeat = _method(endpoints.heartbeat)
    claim = _method(endpoints.claim)
    get_changes = _method(endpoints.get_changes)
    release_run = _method(endpoints.release_run)
    list_workers = _list_method(endpoints.list_workers)
    get_worker = _method(endpoints.get_worker)
    drain_worker = _method(endpoints.drain_worker)
    resume_worker = _method(endpoints.resume_worker)
    forget_worker = _method(endpoints.forget_worker)
    create_key = _method(endpoints.create_key)
    list_keys = _method(endpoints.list_keys)
    revoke_key = _method(endpoints.revoke_key)

"""The blocking client."""

import time
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

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


def _method(describe: Callable[P, Call[T]]) -> Callable[Concatenate["GyozaClient", P], T]:
    @wraps(describe)
    def method(self: "GyozaClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(describe(*args, **kwargs))

    sign(method, describe)
    return method


def _list_method(
    describe: Callable[P, Call[Page]],
) -> Callable[Concatenate["GyozaClient", P], list[Json]]:
    @wraps(describe)
    def method(self: "GyozaClient", *args: P.args, **kwargs: P.kwargs) -> list[Json]:
        call = describe(*args, **kwargs)
        whole = WholeList()
        while following := whole.add(self.send(call)):
            call = replace(call, params={**call.params, "starting_after": following})
        return whole.items

    sign(method, describe, list[Json])
    return method


def _read(response: httpx.Response, max_bytes: int, limit_s: float) -> httpx.Response:
    body = Body(response, max_bytes)
    end = time.monotonic() + limit_s
    for part in response.iter_raw():
        if time.monotonic() > end:
            raise httpx.ReadTimeout(f"no whole answer within {limit_s:g} s")
        if not body.add(part):
            break
    return body.whole()


class GyozaClient(BaseClient[httpx.Client]):
    """Every endpoint of the server as a blocking method.

    See `gyoza.client.endpoints` for the methods and `BaseClient` for the arguments.
    Every method raises `ApiError`, an `httpx.HTTPStatusError`, for an answer that is not a success,
    and `ServerUnreachable` when none came after the retries of `gyoza.client.retry`.
    """

    def _open(self) -> httpx.Client:
        with proxies_from_env():
            return httpx.Client(**self.connection.options())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if opened := self._opened.made:
            opened.close()

    def send(self, call: Call[T]) -> T:
        """Send a described call, with the retries its row of the table allows."""
        tried = 0
        while True:
            tried += 1
            used = self.connection
            try:
                return read_answer(call, self._exchange(call))
            except (httpx.TransportError, ApiError, UnexpectedAnswer) as error:
                failure = error
            if self._is_renewed(used, failure):
                continue
            wait = call.retry.delay_s(tried, failure)
            if wait is None:
                raise self.connection.told(failure)
            time.sleep(wait)

    def _exchange(self, call: Call[Any]) -> httpx.Response:
        limit_s = self.connection.limit_s(call)
        with self._http.stream(**self.connection.request(call)) as response:
            return _read(response, call.max_bytes, limit_s)

    def follow_logs(
        self, run_id: str, *, attempt: int | None = None, patience_s: float = PATIENCE_S
    ) -> Generator[str, None, None]:
        """Yield the log text as it arrives, until the attempt is over and its log whole.

        It goes on through restarts of the server and whatever proxies do: nothing comes twice, and
        nothing is left out.

        Args:
            run_id: The run.
            attempt: Whose log; the current one unless given.
            patience_s: Seconds without an answer of the server after which it is given up.

        Raises:
            ApiError: If the server refuses.
            ServerUnreachable: If it is given up; the run itself goes on.
            LogIncomplete: If the end of the log has never come to the server.
        """
        for piece in self.stream_logs(run_id, attempt=attempt, follow=True, patience_s=patience_s):
            yield piece.text

    def stream_logs(
        self,
        run_id: str,
        *,
        attempt: int | None = None,
        offset: int = 0,
        follow: bool = False,
        patience_s: float = PATIENCE_S,
        tell: Tell | None = None,
    ) -> Generator[LogPiece, None, None]:
        """Yield the log in pieces that say where they are; to the end, or what there is.

        Args:
            run_id: The run.
            attempt: Whose log; the current one unless given.
            offset: Bytes of the log to leave out.
            follow: Go on while the attempt is under way.
            patience_s: Seconds without an answer of the server after which it is given up.
            tell: Hears what is the matter when the server is waited for, and None when it is back.

        Raises:
            ApiError: If the server refuses.
            ServerUnreachable: If it is given up; the run itself goes on.
            LogIncomplete: If the attempt is over and the end of its log has never come.
        """
        reading = LogReading(
            run_id, attempt, offset, follow=follow, patience_s=patience_s, tell=tell
        )
        yield from self._stream(reading)
        reading.check_whole()

    def get_logs(self, run_id: str, *, attempt: int | None = None, follow: bool = False) -> str:
        """Return the log text: the whole log if the attempt is over, else what there is.

        Args:
            run_id: The run.
            attempt: Whose log; the current one unless given.
            follow: Wait until the attempt is over.

        Raises:
            ApiError: If the server refuses.
            ServerUnreachable: If it does not answer.
            LogIncomplete: If the attempt is over and the end of its log has never come; has the
                text.
        """
        reading = LogReading(run_id, attempt, follow=follow, whole=True)
        log = WholeLog()
        for piece in self._stream(reading):
            log.add(piece)
        reading.check_whole(log.text)
        return log.text

    def _stream(self, reading: LogReading) -> Generator[LogPiece, None, None]:
        while not reading.ended:
            used = self.connection
            try:
                with self._http.stream(**reading.request(used)) as response:
                    if not response.is_success:
                        judge(_read(response, SMALL, used.timeout_s))
                    reading.begin(response)
                    for part in response.iter_raw():
                        yield from reading.feed(part)
                        if reading.ended:
                            return
                    yield from reading.finish()
                continue
            except (httpx.TransportError, ApiError, UnexpectedAnswer) as error:
                failure = error
            if self._is_renewed(used, failure):
                continue
            if isinstance(failure, httpx.ReadTimeout) and self._is_there():
                reading.heard()
            time.sleep(reading.wait_s(failure, used))

    def _is_there(self) -> bool:
        """Whether the server is well, though it said nothing for long: a proxy may hold it back."""
        try:
            self.health()
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

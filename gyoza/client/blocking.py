"""The blocking client."""

import time
from collections.abc import Callable, Iterator
from functools import cached_property, wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from gyoza.client import endpoints
from gyoza.client.answers import Body, check_encoding, judge, read_answer
from gyoza.client.base import BaseClient
from gyoza.client.call import Call
from gyoza.client.connection import proxies_from_env

P = ParamSpec("P")
T = TypeVar("T")


def _method(describe: Callable[P, Call[T]]) -> Callable[Concatenate["GyozaClient", P], T]:
    @wraps(describe)
    def method(self: "GyozaClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(describe(*args, **kwargs))

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


class GyozaClient(BaseClient):
    """Every endpoint of the server as a blocking method.

    See `gyoza.client.endpoints` for the methods and `BaseClient` for the arguments.
    Every method raises `ApiError`, an `httpx.HTTPStatusError`, for an answer that is not a success,
    and `ServerUnreachable` when none came after the retries of `gyoza.client.retry`.
    """

    @cached_property
    def _http(self) -> httpx.Client:
        with proxies_from_env():
            return httpx.Client(**self.connection.options())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        if "_http" in self.__dict__:
            self._http.close()

    def send(self, call: Call[T]) -> T:
        """Send a described call, with the retries its row of the table allows."""
        tried = 0
        while True:
            tried += 1
            used = self.connection
            try:
                outcome = self._exchange(call)
            except httpx.TransportError as error:
                outcome = error
            if self._is_renewed(used, outcome):
                continue
            wait = call.retry.delay_s(tried, outcome)
            if wait is not None:
                time.sleep(wait)
            elif isinstance(outcome, httpx.TransportError):
                raise self.connection.unreachable(outcome) from outcome
            else:
                return read_answer(call, outcome)

    def _exchange(self, call: Call[Any]) -> httpx.Response:
        limit_s = self.connection.limit_s(call)
        with self._http.stream(**self.connection.request(call)) as response:
            return _read(response, call.max_bytes, limit_s)

    def follow_logs(self, run_id: str, *, attempt: int | None = None) -> Iterator[str]:
        """Yield the log text as it arrives, until the attempt is over."""
        call = endpoints.get_logs(run_id, attempt=attempt, follow=True)
        try:
            with self._http.stream(**self.connection.request(call)) as response:
                if not response.is_success:
                    judge(_read(response, call.max_bytes, self._timeout))
                check_encoding(response)
                yield from response.iter_text()
        except httpx.TransportError as error:
            raise self.connection.unreachable(error) from error

    health = _method(endpoints.health)
    upsert_definition = _method(endpoints.upsert_definition)
    get_definition = _method(endpoints.get_definition)
    list_definitions = _method(endpoints.list_definitions)
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
    get_logs = _method(endpoints.get_logs)
    append_logs = _method(endpoints.append_logs)
    put_logs = _method(endpoints.put_logs)
    get_events = _method(endpoints.get_events)
    heartbeat = _method(endpoints.heartbeat)
    claim = _method(endpoints.claim)
    get_changes = _method(endpoints.get_changes)
    release_run = _method(endpoints.release_run)
    list_workers = _method(endpoints.list_workers)
    get_worker = _method(endpoints.get_worker)
    drain_worker = _method(endpoints.drain_worker)
    resume_worker = _method(endpoints.resume_worker)
    create_key = _method(endpoints.create_key)
    list_keys = _method(endpoints.list_keys)
    revoke_key = _method(endpoints.revoke_key)

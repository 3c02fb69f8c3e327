from typing import Any

import httpx
import pytest

from gyoza.client import ApiError, ForeignAnswer, ServerUnreachable, UnexpectedAnswer
from gyoza.client.retry import CONNECT, FOLLOW, LATER, NEVER, READ, REPORT, RetryRule

from .conftest import Send
from .scripted import DROP, Answer, Scripted

LATE_ERRORS = (httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.WriteError)
EARLY_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout)

REQUEST = httpx.Request("GET", "http://localhost/")


def answer(
    status: int, kind: type[ApiError] = ApiError, headers: dict[str, str] | None = None
) -> ApiError:
    return kind(httpx.Response(status, headers=headers, request=REQUEST), "So it is.")


@pytest.mark.parametrize("error", [*EARLY_ERRORS, *LATE_ERRORS])
@pytest.mark.parametrize("rule", [READ, REPORT])
def test_calls_that_may_be_repeated_are_retried_on_every_transport_error(
    rule: RetryRule, error: type[httpx.TransportError]
) -> None:
    assert rule.delay_s(1, error("gone")) is not None


@pytest.mark.parametrize("status", sorted(LATER))
@pytest.mark.parametrize("rule", [READ, REPORT])
def test_calls_that_may_be_repeated_are_retried_on_statuses_that_say_later(
    rule: RetryRule, status: int
) -> None:
    assert rule.delay_s(1, answer(status)) is not None


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422])
@pytest.mark.parametrize("rule", [READ, REPORT, CONNECT, NEVER, FOLLOW])
def test_no_call_is_retried_on_a_servers_refusal_which_would_be_the_same_again(
    rule: RetryRule, status: int
) -> None:
    assert rule.delay_s(1, answer(status)) is None


@pytest.mark.parametrize(
    "failure",
    [answer(status, ForeignAnswer) for status in (301, 400, 401, 403, 404, 409, 413, 521)]
    + [UnexpectedAnswer("A page.")],
    ids=str,
)
def test_what_no_gyoza_server_has_said_is_retried_wherever_a_call_may_be_repeated(
    failure: Any,
) -> None:
    assert all(rule.delay_s(1, failure) is not None for rule in (READ, REPORT, FOLLOW))
    assert all(rule.delay_s(1, failure) is None for rule in (CONNECT, NEVER))


def test_only_a_report_outlasts_a_refused_key() -> None:
    refused = answer(401)
    assert REPORT.delay_s(1, refused) is not None
    assert [rule.delay_s(1, refused) for rule in (READ, CONNECT, NEVER)] == [None, None, None]


def test_writes_that_would_count_twice_are_retried_only_before_they_can_have_arrived() -> None:
    assert all(CONNECT.delay_s(1, error("refused")) is not None for error in EARLY_ERRORS)
    assert all(CONNECT.delay_s(1, error("gone")) is None for error in LATE_ERRORS)
    assert all(CONNECT.delay_s(1, answer(status)) is None for status in LATER)


def test_calls_with_a_loop_around_them_are_never_retried() -> None:
    assert NEVER.delay_s(1, httpx.ConnectError("refused")) is None
    assert NEVER.delay_s(1, answer(503)) is None


def test_waits_double_from_the_first_to_the_cap_and_are_spread_by_half() -> None:
    rule = RetryRule(tries=10, first_s=1.0, cap_s=5.0)
    for tried, bound in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 5.0), (9, 5.0)):
        wait = rule.delay_s(tried, httpx.ConnectError("refused"))
        assert wait is not None
        assert bound / 2 <= wait <= bound
    assert rule.delay_s(10, httpx.ConnectError("refused")) is None


def test_reports_go_on_for_about_ten_minutes() -> None:
    waits = (REPORT.delay_s(tried, httpx.ConnectError("refused")) for tried in range(1, 48))
    assert 300 < sum(wait or 0.0 for wait in waits) < 720


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [("3", 3.0, 3.0), ("9999", 15.0, 15.0), ("0", 0.1, 0.2), ("soon", 0.1, 0.2), ("-1", 0.1, 0.2)],
)
def test_retry_after_is_waited_at_least_up_to_the_cap(
    asked: str, least: float, most: float
) -> None:
    wait = READ.delay_s(1, answer(503, headers={"Retry-After": asked}))
    assert wait is not None
    assert least <= wait <= most


async def test_a_read_comes_through_after_errors_of_every_kind(
    send: Send, server: Scripted
) -> None:
    server.answers[:] = [DROP, Answer(status=503), Answer(status=429), Answer({"id": "r1"})]
    assert await send("get_run", "r1") == {"id": "r1"}
    assert len(server.requests) == 4


async def test_a_read_gives_up_after_four_tries(send: Send, server: Scripted) -> None:
    server.answers[:] = [Answer({"detail": "Busy."}, 503)]
    with pytest.raises(ApiError, match=r"^Busy\.$"):
        await send("get_run", "r1")
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("method", "args", "tries"),
    [
        ("heartbeat", {"worker_id": "w", "resources": {}}, 1),
        ("claim", {"worker_id": "w"}, 1),
        ("get_changes", {"worker_id": "w"}, 1),
        ("update_run", {"run_id": "r1", "priority": 9}, 1),
        ("retry_run", {"run_id": "r1"}, 1),
        ("add_event", {"run_id": "r1", "event_type": "INFO", "msg": "x"}, 1),
        ("add_event", {"run_id": "r1", "event_type": "INFO", "msg": "x", "seq": 1}, 48),
        ("append_logs", {"run_id": "r1", "offset": 0, "data": "x"}, 48),
        ("put_logs", {"run_id": "r1", "offset": 0, "text": "x"}, 48),
        ("release_run", {"run_id": "r1", "worker_id": "w", "attempt": 1, "reason": "drain"}, 48),
        ("create_run", {"image": "i", "inputs": {}}, 4),
        ("cancel_run", {"run_id": "r1"}, 4),
        ("upsert_definition", {"op_dict": {}}, 4),
        ("list_workers", {}, 4),
    ],
)
async def test_a_server_that_hangs_up_is_asked_again_as_often_as_the_row_of_the_call_says(
    send: Send, server: Scripted, method: str, args: dict[str, object], tries: int
) -> None:
    server.answers[:] = [DROP]
    with pytest.raises(ServerUnreachable, match=r"does not answer|hangs up"):
        await send(method, **args)
    assert len(server.requests) == tries


async def test_a_run_is_created_under_one_idempotency_key_however_often_it_is_tried(
    send: Send, server: Scripted
) -> None:
    server.answers[:] = [DROP, Answer(status=502), Answer({"id": "r1"}, 201)]
    await send("create_run", "image", {})
    await send("create_run_from_definition", "op", {}, idempotency_key="mine")
    keys = [request.headers["Idempotency-Key"] for request in server.requests]
    assert len(set(keys[:3])) == 1
    assert len(keys[0]) == 32
    assert keys[3] == "mine"

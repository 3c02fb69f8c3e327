"""Secrets are masked wherever blocks are cut, in each form an op may print, and cost little."""

import json
import logging
from itertools import pairwise

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from gyoza.testing import FakeContainer, FakeContainerEngine
from gyoza.worker.logs.events import PREFIX, OpEvent
from gyoza.worker.logs.masker import MASK, MAX_FORMS, MOST_PLACES, PIECE, Masker, Secrets
from tests.support.small_server import SmallServer
from tests.worker.conftest import StartWorker, end_of

PEM = """-----BEGIN PRIVATE KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDBj08sp5++4anG
cmQxJjAkBgNVBAoTHVByb2dyZXNzIFNvZnR3YXJlIENvcnBvcmF0aW9uMSAwHgYD
abc
-----END PRIVATE KEY-----
"""


def masked(secrets: Secrets, *blocks: bytes) -> bytes:
    masker = Masker(secrets)
    return b"".join(map(masker.feed, blocks)) + masker.flush()


def by_the_letter(secrets: list[bytes], data: bytes) -> bytes:
    """Mask slowly: every byte of every occurrence, one mask for those that overlap."""
    places = sorted(
        (at, at + len(secret))
        for secret in secrets
        for at in range(len(data))
        if data.startswith(secret, at)
    )
    result, end = b"", 0
    for start, stop in places:
        if start >= end:
            result += data[end:start] + MASK
        end = max(end, stop)
    return result + data[end:]


LETTERS = "ab\u00e9"
SECRETS = st.lists(st.text(LETTERS, min_size=4, max_size=9), min_size=1, max_size=4)


@given(SECRETS, st.text(LETTERS + "\n", max_size=60), st.lists(st.integers(0, 120), max_size=8))
@example(["abcd", "cdef"], "abcdefabc", [4])
@example(["aaaa"], "aaaaaaaaaba", [3, 6])
@example(["abcdabcd", "bcda"], "abcdabcxbcdabcdabcd", [4, 9, 12])
def test_every_place_is_masked_wherever_blocks_are_cut(
    values: list[str], text: str, places: list[int]
) -> None:
    data = text.encode()
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    blocks = [data[a:b] for a, b in pairwise(bounds)]
    forms = {
        form for value in values for form in (value.encode(), json.dumps(value)[1:-1].encode())
    }
    assert masked(Secrets(values, least=4), *blocks) == by_the_letter(sorted(forms), data)


@given(SECRETS, st.text(LETTERS + "\n", max_size=60), st.integers(0, 120), st.integers(0, 120))
def test_nothing_is_told_or_lost_of_what_is_held_back(
    values: list[str], text: str, cut: int, kill: int
) -> None:
    """A worker that dies begins again with what was held back, and tells the same."""
    data = text.encode()
    cut, kill = sorted((cut % (len(data) + 1), kill % (len(data) + 1)))
    secrets = Secrets(values, least=4)
    first = Masker(secrets)
    told = first.feed(data[:cut]) + first.feed(data[cut:kill])
    position = kill - first.held
    if first.held:
        assert first.at_line_start == (position == 0 or data[position - 1 : position] == b"\n")
    assert told + masked(secrets, data[position:]) == masked(secrets, data)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (PEM, "***\n"),
        (PEM.replace("\n", "\r\n"), "***\r\n***\r\n***\r\nabc\r\n***\r\n"),
        (json.dumps({"key": PEM}), '{"key": "***\\n"}'),
        (PEM.splitlines()[1][:30], PEM.splitlines()[1][:30]),
        ("pass:p\u00e4ssword", "pass:***"),
        (json.dumps("p\u00e4ssword"), '"***"'),
        ('a"quoted"secret', "***"),
        (json.dumps('a"quoted"secret'), '"***"'),
        ("token", "***"),
        ("token-of-mine", "***"),
        ("token-of-yours", "***-of-yours"),
    ],
)
def test_a_value_is_masked_in_every_form(shown: str, expected: str) -> None:
    values = [PEM, " p\u00e4ssword\n", 'a"quoted"secret', "token", "token-of-mine", "", "abc"]
    assert Secrets(values, least=5).mask(shown) == expected


def test_a_secret_longer_than_what_is_held_back_is_masked_in_pieces() -> None:
    value = "".join(f"{number:x}-" for number in range(3 * PIECE // 4))
    assert len(value) > 2 * PIECE
    blocks = [f"<{value}>".encode()[at : at + 1000] for at in range(0, len(value) + 2, 1000)]
    shown = masked(Secrets([value]), *blocks)
    assert shown.replace(MASK, b"") == b"<>"
    masker = Masker(Secrets([value]))
    for block in blocks:
        masker.feed(block)
        assert masker.held <= 2 * PIECE


def test_no_more_forms_are_looked_for_than_there_may_be_and_short_values_come_first() -> None:
    lines = [f"line-{number:03}" for number in range(10 * MAX_FORMS)]
    secrets = Secrets(["\n".join(lines), "a-short-one"])
    assert not secrets.complete
    shown = secrets.mask(" ".join([*lines, "a-short-one"]))
    assert "a-short-one" not in shown
    assert lines[-1] in shown
    few = Secrets(["\n".join(lines[:9]), "a-short-one"])
    assert few.complete
    assert few.mask(" ".join([*lines[:9], "a-short-one"])).split() == ["***"] * 10


def test_a_block_that_is_full_of_secrets_becomes_one_mask() -> None:
    """However many there are, telling them apart takes no more than so long."""
    letters = "abcdefgh"
    turned = [letters[at:] + letters[:at] for at in range(8)]
    data = (" ".join(turned) * MOST_PLACES).encode()
    secrets = Secrets(turned)
    assert masked(secrets, b"before ", data, b"x" * 9) == b"before " + MASK + b"x" * 9
    assert (
        masked(secrets, *[data[at : at + 997] for at in range(0, len(data), 997)]).count(b"a") == 0
    )


@given(SECRETS, st.text(LETTERS, max_size=30))
def test_what_may_begin_a_secret_is_found_as_by_the_letter(values: list[str], text: str) -> None:
    forms = {
        form for value in values for form in (value.encode(), json.dumps(value)[1:-1].encode())
    }
    data = text.encode()
    expected = max(
        (
            size
            for form in forms
            for size in range(1, len(form))
            if size <= len(data) and data.endswith(form[:size])
        ),
        default=0,
    )
    assert Secrets(values, least=4).begun(data) == expected


def test_a_value_that_is_no_utf_8_is_masked() -> None:
    assert masked(Secrets(["\udcff\udcfe-secret"]), b"is \xff\xfe-se", b"cret") == b"is ***"


def test_texts_in_events_are_masked_keys_too() -> None:
    payload = {"my token": ["token", {"a": "xtokenx"}], "n": 1, "t": True}
    event = Secrets(["token"], least=5).mask_event(OpEvent("INFO", "the token", payload))
    assert event == OpEvent(
        "INFO", "the ***", {"my ***": ["***", {"a": "x***x"}], "n": 1, "t": True}
    )


def test_a_value_too_short_to_mask_is_named_in_the_workers_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    variables = {"PIN": "4711"[:3], "KEY": "long enough", "OTHER": "something"}
    with caplog.at_level(logging.INFO):
        secrets = Secrets.of_variables(["PIN", "KEY", "NONE"], variables, "r")
    [line] = caplog.messages
    assert "PIN" in line
    assert not any(value in caplog.text for value in variables.values())
    assert secrets.mask("471 long enough something") == "471 *** something"


async def tell(container: FakeContainer) -> int:
    """Print the variables, and again as the text of an event."""
    shown = json.dumps(dict(container.env))
    await container.stdout(shown[:-9].encode())
    await container.stdout(shown[-9:].encode() + b"\n")
    await container.stderr(PREFIX + json.dumps({"type": "INFO", "msg": shown}).encode() + b"\n")
    return 1


async def test_secrets_of_run_and_worker_reach_the_op_and_not_the_server(
    server: SmallServer, engine: FakeContainerEngine, start_worker: StartWorker
) -> None:
    server.keeps_logs = True
    engine.add_image("tell", tell)
    variables = {"TOKEN": "of-the-run", "DEPOT": "of-the-run-too", "OPEN": "seen"}
    server.submit("run-1", "tell", env_vars=variables, secrets=["TOKEN"])
    passed = {"DEPOT": "of-the-worker"}
    with trio.fail_after(200):
        async with start_worker(passed_env=passed, secret_env=["DEPOT"]) as worker:
            await server.wait_for_event("FAILED", "run-1")
            await end_of(worker, "run-1")
    _, info, failed = server.events
    for text in (server.logs["run-1"], info["msg"], failed["payload"]["log_tail"]):
        shown = json.loads(text)
        assert (shown["TOKEN"], shown["DEPOT"], shown["OPEN"]) == ("***", "***", "seen")
        assert shown["GYOZA_RUN_ID"] == "run-1"

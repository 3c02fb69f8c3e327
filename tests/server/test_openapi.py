"""Requests made up from the server's own OpenAPI: it never fails, hangs or answers otherwise.

GYOZA_FUZZ_EXAMPLES asks for that many requests of each kind to each address instead of a few.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import requests
import schemathesis.checks
import schemathesis.specs.openapi.checks
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from .api import KEY, Api, Json, serving, settings_in

Case = Any  # schemathesis leaves what a case is about open
EXAMPLES = int(os.environ.get("GYOZA_FUZZ_EXAMPLES", "15"))
OPERATIONS = 32
LIMIT_S = 200 * max(1, EXAMPLES / 15)
ANSWER_S = 10.0
MAX_WAIT_S = 0.01
_conformance: Any = schemathesis.specs.openapi.checks
CHECKS: list[Any] = [
    cast("Any", schemathesis.checks).not_a_server_error,
    _conformance.status_code_conformance,
    _conformance.content_type_conformance,
    _conformance.response_headers_conformance,
    _conformance.response_schema_conformance,
]
STATES = ["PENDING", "ASSIGNED", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
SELECTIVE = ("version", "starting_after", "ending_before", "state", "attempt", "after")
"""What a query asks for that is hardly there when it is made up."""


class Stage:
    """Makes what requests can be about: a definition, workers, and runs in every state."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._made = 0
        self._send("/definitions", {"id": "op", "image": "a"})
        self._send("/workers/heartbeat", {"worker_id": "w", "resources": {"gpus": [GPU]}})

    def run(self, state: str) -> str:
        """Return a new run in a state."""
        self._made += 1
        wish: Json = {
            "image": "a",
            "event_delivery": {"topic": "t"},
            "priority": 2**50 + self._made,
        }
        run: str = self._send("/runs", wish)["id"]
        worker = f"w{self._made}"
        if state not in ("PENDING", "CANCELLED"):
            self._send("/workers/heartbeat", {"worker_id": worker})
            claimed = self._send(f"/workers/{worker}/claim", {"max_runs": 9})["runs"]
            assert run in [claim["id"] for claim in claimed]
        told: list[Json] = [{"type": "STARTED"}, {"type": "PROGRESS", "msg": 7}]
        match state:
            case "PENDING" | "ASSIGNED":
                told = []
            case "CANCELLED":
                told = [{"type": "CANCELLED"}]
            case "COMPLETED":
                told.append({"type": "COMPLETED", "payload": {"n": 1}})
            case "FAILED":
                told.append({"type": "FAILED", "payload": {"reason": "EXIT_CODE", "exit_code": 3}})
            case _:
                pass
        for event in told:
            self._send(f"/runs/{run}/events", event)
        return run

    def holder(self, run: str) -> Json:
        """Return which worker and attempt hold a run."""
        found = self._http.get(f"/runs/{run}").json()
        return {"worker_id": found["worker_id"] or "w", "attempt": found["current_attempt"]}

    def to_delete(self) -> tuple[str, str]:
        """Make a definition and a worker that has ended, and return their ids."""
        self._made += 1
        name = f"old{self._made}"
        self._send("/definitions", {"id": name, "image": "a"})
        self._send("/workers/heartbeat", {"worker_id": name, "leaving": True})
        return name, name

    def key(self) -> str:
        """Make a key and return its id."""
        return self._send("/keys", {"name": "a key", "role": "client"})["id"]

    def _send(self, path: str, body: Json) -> Json:
        return self._http.post(path, json=body).raise_for_status().json()


GPU: Json = {"id": 0, "vram_mb": 100, "tags": ["a"], "name": "a GPU"}


def fit(case: Case, stage: Stage, state: str) -> None:
    """Make a request about things that are there."""
    run = stage.run(state) if "run_id" in case.path_parameters else ""
    key = stage.key() if "key_id" in case.path_parameters else ""
    name, worker = stage.to_delete() if case.method == "DELETE" else ("op", "w")
    known = {"run_id": run, "name": name, "worker_id": worker, "key_id": key}
    case.path_parameters.update({n: known[n] for n in case.path_parameters})
    for name in SELECTIVE:
        case.query.pop(name, None)
    if case.method == "PUT":
        case.query = cast("Json", {"offset": 0})
    if "topic" in case.query:
        case.query["topic"] = "t"
    if isinstance(case.body, dict):
        body = cast("Json", case.body)
        if case.path.endswith(("/release", "/events/batch")):
            body.update(stage.holder(run))
        elif case.path == "/keys":
            body.update({"role": "worker", "worker": "w*"})
        elif case.path.endswith("/events") and body.get("type") == "PROGRESS":
            body.update({"msg": 50})
        elif run:
            for name in ("worker_id", "attempt", "offset"):
                body.pop(name, None)
            body.update({"offset": 0} if case.path.endswith("/logs") else {})
        else:
            body.pop("version", None)
            if isinstance(named := body.get("env_vars"), dict):
                body.update({"secrets": list(cast("Json", named))[:1]} if named else {})


def shorten(holder: Any) -> None:
    """Let no long poll wait long."""
    if isinstance(holder, dict) and "wait_s" in holder:
        fields = cast("Json", holder)
        wait = fields["wait_s"]
        asked = cast("list[Any]", wait) if isinstance(wait, list) else [wait]
        if any(map(_is_long, asked)):
            fields["wait_s"] = MAX_WAIT_S


def _is_long(wait: Any) -> bool:
    try:
        return float(wait) > MAX_WAIT_S
    except (TypeError, ValueError, OverflowError):
        return False


@dataclass(frozen=True)
class Part:
    """Some of the requests to an address.

    Attributes:
        fits: Whether they are about things that are there.
        state: Of the run they are about.
    """

    mode: GenerationMode
    examples: int
    fits: bool = False
    state: str = "RUNNING"


def plan(path: str, examples: int, *, takes: bool) -> Iterator[Part]:
    """Yield what an address is asked; if it `takes` anything, then wrongly, too."""
    states = STATES if "{run_id}" in path else STATES[:1]
    for state in states:
        yield Part(GenerationMode.POSITIVE, max(2, examples // len(states)), True, state)
    if takes:
        yield Part(GenerationMode.POSITIVE, max(2, examples // 3))
        yield Part(GenerationMode.NEGATIVE, max(2, examples // 2))
        yield Part(GenerationMode.NEGATIVE, max(2, examples // 2), True)


def explore(url: str, examples: int) -> Counter[str]:
    """Send requests to every address; return how often each was answered with a success.

    Raises:
        ExceptionGroup: With what is wrong at each address.
    """
    schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json", timeout=ANSWER_S)
    schema.config.generation.allow_extra_parameters = False  # the server ignores them
    schema.config.generation.with_security_parameters = False  # the right key goes with each
    successes: Counter[str] = Counter()
    wrong: list[Exception] = []
    with httpx.Client(base_url=url, headers={"X-API-Key": KEY}) as http, requests.Session() as s:
        stage = Stage(http)
        for found in schema.get_all_operations():
            operation = found.ok()
            successes[operation.label] = 0
            takes = [*operation.iter_parameters(), *operation.body]
            for part in plan(operation.path, examples, takes=bool(takes)):
                cases = operation.as_strategy(generation_mode=part.mode)
                judge = partial(answer, stage, s, url, successes, part)
                try:
                    ask(cases, part.examples, judge)
                except Exception as error:  # noqa: BLE001 - tell of all addresses
                    error.add_note(f"at {operation.label}, {part}")
                    wrong.append(error)
    if wrong:
        raise ExceptionGroup("answers are not as the OpenAPI tells", wrong)
    return successes


def ask(
    cases: st.SearchStrategy[Case],
    examples: int,
    judge: Callable[[Case], None],
) -> None:
    """Judge that many made-up requests, the same ones each time."""

    @seed(4)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*cast("Iterable[HealthCheck]", HealthCheck)],
    )
    @given(cases)
    def each(case: Case) -> None:
        judge(case)

    each()


def answer(
    stage: Stage,
    session: requests.Session,
    url: str,
    successes: Counter[str],
    part: Part,
    case: Case,
) -> None:
    """Send one request and check what comes."""
    if part.fits:
        fit(case, stage, part.state)
    shorten(case.query)
    shorten(case.body)
    if not (part.fits and part.state in ("COMPLETED", "FAILED", "CANCELLED")):
        case.query.pop("follow", None)  # goes on until the run ends
    headers = {"X-API-Key": KEY}
    response = case.call(base_url=url, session=session, headers=headers, timeout=ANSWER_S)
    # What was made to fit may be valid again; and a list of one is no list in a query.
    rejects = not part.fits and case.operation.body
    checks = [*CHECKS, _conformance.negative_data_rejection] if rejects else CHECKS
    try:
        case.validate_response(response, checks=checks)
    except FailureGroup as failures:  # no Exception: Hypothesis would not look for a shorter one
        raise AssertionError(str(failures)) from None
    if response.status_code < 300:
        successes[case.operation.label] += 1


@pytest.mark.timeout(3 * LIMIT_S)
async def test_every_answer_to_made_up_requests_is_as_the_openapi_tells(tmp_path: Path) -> None:
    async with serving(settings_in(tmp_path)) as api:
        with trio.fail_after(2 * LIMIT_S):
            successes = await trio.to_thread.run_sync(explore, api.url, EXAMPLES)
    assert len(successes) == OPERATIONS
    # What was never answered with a success says nothing about how successes look.
    assert [label for label, count in successes.items() if not count] == []


async def test_every_address_documents_its_successes_refusals_and_key(api: Api) -> None:
    told: Json = await api.get("/openapi.json")
    addresses: dict[str, dict[str, Json]] = told["paths"]
    for path, methods in addresses.items():
        for operation in methods.values():
            responses: dict[str, Json] = operation["responses"]
            kinds: dict[str, Json] = {}
            for status, answer in responses.items():
                if status == "204":
                    assert "content" not in answer
                    continue
                contents = cast("dict[str, Json]", answer["content"]).values()
                kinds[status] = next(iter(contents))["schema"]
                assert all(content["schema"] for content in contents), path
            assert all(kinds.values()), path
            refusals = {kind["$ref"] for status, kind in kinds.items() if status >= "400"}
            assert refusals == {"#/components/schemas/Problem"}
            assert ("security" in operation) == (path not in ("/health", "/readyz"))
    assert "HTTPValidationError" not in told["components"]["schemas"]

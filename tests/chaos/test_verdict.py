"""The comparison of what containers did with what the server says, fed with made-up histories."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gyoza.models import (
    EventEntry,
    EventType,
    ExecutionSummary,
    FailureReason,
    OpAttempt,
    OpRun,
    OpRunState,
)
from tests.chaos.marks import Claims, Mark, read_claims, read_marks
from tests.chaos.ops import (
    PARTS,
    Kind,
    PlannedRun,
    expected_events,
    expected_outputs,
    expected_stdout,
    split_log,
)
from tests.chaos.plan import LEASE_S
from tests.chaos.report import Outcome, last_line, report
from tests.chaos.verdict import Fault, History, judge, notices

RUN, NONCE, OTHER, WORKER = "run-1", "aaaa", "bbbb", "worker-1"
START = datetime(2026, 1, 1, tzinfo=UTC)
LOST = ExecutionSummary(reason=FailureReason.WORKER_LOST, worker_id=WORKER)
TAKEN_S = 100.0
"""When a run was taken from its worker, in seconds since START."""


def planned(kind: Kind = Kind.QUICK, amount: int = 2, code: int = 0) -> PlannedRun:
    return PlannedRun(0, 0.0, kind, amount, code, None)


def marks(attempt: int = 1, nonce: str = NONCE, whats: tuple[str, ...] = ("start", "end")) -> Any:
    at = START.timestamp()
    return [Mark(at + n, what, RUN, attempt, nonce) for n, what in enumerate(whats, start=1)]


def attempt(
    state: OpRunState, number: int = 1, summary: ExecutionSummary | None = None
) -> OpAttempt:
    return OpAttempt("a", RUN, number, state, execution_summary=summary or ExecutionSummary())


def written(plan: PlannedRun, number: int = 1, nonce: str = NONCE) -> str:
    log = "".join(f"{line}\n" for line in expected_stdout(plan, number, nonce))
    if plan.kind is Kind.CHATTY:
        log += "".join(f"{line};" for line in _letters(PARTS * plan.amount))
    return log


def _letters(count: int) -> list[str]:
    digits = str.maketrans("0123456789", "ABCDEFGHIJ")
    return [str(line).translate(digits) for line in range(1, count + 1)]


def completed(plan: PlannedRun | None = None) -> History:
    """A run that went as it should."""
    plan = plan or planned()
    events = [
        EventEntry(START + timedelta(seconds=id), EventType.INFO, msg, id=id)
        for id, msg in enumerate(expected_events(plan))
    ]
    run = OpRun(
        RUN,
        OpRunState.COMPLETED,
        current_attempt=1,
        outputs=expected_outputs(plan, 1, NONCE),
    )
    ended = replace(attempt(OpRunState.COMPLETED), events=events)
    return History(plan, RUN, run, [ended], written(plan), marks())


def failed(code: int | None = 3, reason: FailureReason = FailureReason.EXIT_CODE) -> History:
    """A run of an op that exits with 3."""
    plan = planned(Kind.FAILING, code=3)
    summary = ExecutionSummary(reason=reason, exit_code=code)
    run = OpRun(RUN, OpRunState.FAILED, current_attempt=1, execution_summary=summary)
    ended = attempt(OpRunState.FAILED, summary=summary)
    return History(plan, RUN, run, [ended], written(plan), marks())


def cancelled() -> History:
    """A run that was cancelled while it ran."""
    run = OpRun(RUN, OpRunState.CANCELLED, current_attempt=1)
    return History(
        planned(),
        RUN,
        run,
        [attempt(OpRunState.CANCELLED)],
        marks=marks(whats=("start",)),
        cancel_asked=True,
        cancel_granted=True,
    )


def away(*spans: tuple[float, float]) -> dict[str, list[tuple[float, float]]]:
    """When the worker could not be heard, in seconds since START."""
    start = START.timestamp()
    return {WORKER: [(start + left, start + back) for left, back in spans]}


def retried() -> History:
    """A run whose first worker was lost, though its container ran to the end."""
    history = completed()
    assert history.run is not None
    history.run.current_attempt = 2
    history.run.outputs = expected_outputs(history.planned, 2, OTHER)
    taken_at = START + timedelta(seconds=TAKEN_S)
    lost = replace(attempt(OpRunState.FAILED, 1, LOST), started_at=START, finished_at=taken_at)
    history.attempts = [lost, attempt(OpRunState.COMPLETED, 2)]
    history.workers_away = away((TAKEN_S - LEASE_S, TAKEN_S))
    history.marks = [*marks(), *marks(2, OTHER)]
    history.log = written(history.planned, 2, OTHER)
    return history


CHATTY = planned(Kind.CHATTY, amount=20)


@pytest.mark.parametrize(
    "history",
    [completed(), completed(CHATTY), completed(planned(Kind.PRODUCTIVE, 9)), failed(), cancelled()],
    ids=["completed", "chatty", "productive", "failed", "cancelled"],
)
def test_a_run_that_went_as_it_should_is_not_blamed(history: History) -> None:
    assert judge(history) == []


def test_a_second_attempt_after_a_lost_worker_is_allowed_and_told() -> None:
    assert judge(retried()) == []
    assert notices(retried()) == [
        "ran to the end in more than one attempt",
        "took more than one attempt",
        "taken from a worker that was gone",
    ]


@pytest.mark.parametrize(
    "spans",
    [
        [(TAKEN_S - LEASE_S + 2, TAKEN_S - 2)],
        [(0.0, 2 * TAKEN_S)],
        [(TAKEN_S - 8, TAKEN_S - 6), (TAKEN_S - 9, TAKEN_S - 5), (TAKEN_S - 1, math.inf)],
    ],
    ids=["about a lease", "much longer", "again and again"],
)
def test_a_run_may_be_taken_from_a_worker_that_was_away(spans: list[tuple[float, float]]) -> None:
    assert judge(replace(retried(), workers_away=away(*spans))) == []


def never_told() -> History:
    """A run whose first worker could be heard, and never heard that it is to have it."""
    history = replace(retried(), workers_away=away())
    history.attempts[0].started_at = None
    return history


def test_a_run_may_be_taken_from_a_worker_that_never_got_the_answer_to_its_claim() -> None:
    assert judge(never_told()) == []
    assert "taken from a worker that had never heard of it" in notices(never_told())


def test_a_run_may_be_taken_from_a_worker_that_left_and_could_not_give_it_back() -> None:
    claims = Claims({(RUN, 1)}, {(RUN, 1)})
    history = replace(retried(), workers_away=away(), claims={WORKER: claims})
    assert judge(history) == []
    assert "taken from a worker that left and could not give it back" in notices(history)


def test_an_attempt_that_was_one_loss_too_many_is_told_as_the_failure_it_is() -> None:
    lost = replace(LOST, worker_id="worker-2")
    history = change(retried(), state=OpRunState.FAILED, execution_summary=lost)
    history.attempts[1] = attempt(OpRunState.FAILED, 2, lost)
    assert [finding.sentence for finding in judge(history)] == [
        "It should succeed, and is FAILED, WORKER_LOST, exit code None: None"
    ]


def change(history: History, **fields: Any) -> History:
    """The history with other fields of its run."""
    assert history.run is not None
    return replace(history, run=replace(history.run, **fields))


FAULTS: dict[str, tuple[Fault, Callable[[], History]]] = {
    "unknown to the server": (Fault.LOST, lambda: replace(completed(), run=None)),
    "still running": (Fault.LOST, lambda: change(completed(), state=OpRunState.RUNNING)),
    "two attempts completed": (
        Fault.DOUBLED,
        lambda: replace(
            retried(),
            attempts=[attempt(OpRunState.COMPLETED, n) for n in (1, 2)],
        ),
    ),
    "one attempt failed by its op, the next completed": (
        Fault.DOUBLED,
        lambda: replace(
            retried(),
            attempts=[attempt(OpRunState.FAILED, 1), attempt(OpRunState.COMPLETED, 2)],
        ),
    ),
    "two containers of one attempt ran to their end": (
        Fault.DOUBLED,
        lambda: replace(completed(), marks=[*marks(), *marks(1, OTHER)]),
    ),
    "completed without a container": (Fault.WRONG, lambda: replace(completed(), marks=[])),
    "completed by a container that did not end": (
        Fault.WRONG,
        lambda: replace(completed(), marks=marks(whats=("start",))),
    ),
    "completed by another attempt's container": (
        Fault.WRONG,
        lambda: replace(retried(), marks=marks()),
    ),
    "taken from a worker that could be heard": (
        Fault.WRONG,
        lambda: replace(retried(), workers_away=away()),
    ),
    "taken from a worker of which nothing is known": (
        Fault.WRONG,
        lambda: replace(retried(), workers_away={}),
    ),
    "taken from a worker that was away before": (
        Fault.WRONG,
        lambda: replace(retried(), workers_away=away((0.0, TAKEN_S - LEASE_S + 1))),
    ),
    "taken from a worker that was away afterwards": (
        Fault.WRONG,
        lambda: replace(retried(), workers_away=away((TAKEN_S - 2, math.inf))),
    ),
    "taken from a worker that was away for a moment": (
        Fault.WRONG,
        lambda: replace(retried(), workers_away=away((TAKEN_S - 9, TAKEN_S - 7))),
    ),
    "taken from a worker that had claimed it and could be heard": (
        Fault.WRONG,
        lambda: replace(never_told(), claims={WORKER: Claims({(RUN, 1)}, set())}),
    ),
    "outputs of another attempt": (
        Fault.WRONG,
        lambda: change(retried(), outputs=expected_outputs(planned(), 1, NONCE)),
    ),
    "outputs lost": (Fault.WRONG, lambda: change(completed(), outputs={})),
    "completed though its op failed": (
        Fault.WRONG,
        lambda: replace(completed(), planned=planned(Kind.FAILING, code=3)),
    ),
    "failed though its op did not": (
        Fault.WRONG,
        lambda: change(completed(), state=OpRunState.FAILED),
    ),
    "failed with another exit code": (Fault.WRONG, lambda: failed(code=137)),
    "failed for the engine": (
        Fault.WRONG,
        lambda: failed(code=None, reason=FailureReason.ENGINE),
    ),
    "failed without a container": (Fault.WRONG, lambda: replace(failed(), marks=[])),
    "cancelled though nobody asked": (
        Fault.WRONG,
        lambda: replace(cancelled(), cancel_asked=False, cancel_granted=False),
    ),
    "completed though a cancel was granted": (
        Fault.WRONG,
        lambda: replace(completed(), cancel_asked=True, cancel_granted=True),
    ),
    "a line lost": (
        Fault.WRONG,
        lambda: replace(completed(CHATTY), log=written(CHATTY).replace("line 77\n", "")),
    ),
    "a line repeated": (
        Fault.WRONG,
        lambda: replace(
            completed(CHATTY), log=written(CHATTY).replace("line 77\n", "line 77\nline 77\n")
        ),
    ),
    "standard error cut short": (
        Fault.WRONG,
        lambda: replace(completed(CHATTY), log=written(CHATTY)[:-5]),
    ),
    "a log that is not closed": (Fault.WRONG, lambda: replace(cancelled(), log_took_s=100.0)),
    "the log of another attempt": (
        Fault.WRONG,
        lambda: replace(completed(), log=written(planned(), 2)),
    ),
    "an event lost": (
        Fault.WRONG,
        lambda: replace(completed(CHATTY), attempts=[attempt(OpRunState.COMPLETED)]),
    ),
}


@pytest.mark.parametrize(("fault", "make"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_seen(fault: Fault, make: Callable[[], History]) -> None:
    assert [finding.fault for finding in judge(make())] == [fault]


def without_engine(log: str) -> History:
    """A chatty run whose container ran on while the engine was away."""
    at = START.timestamp()
    return replace(completed(CHATTY), log=log, engine_away=[(at + 1.5, at + 9)])


def test_output_may_be_missing_where_the_engine_was_away() -> None:
    log = written(CHATTY).replace("line 77\nline 78\nline 79\n", "li")
    history = without_engine(log)
    assert judge(history) == []
    assert notices(history) == ["had a container that ran on without the engine"]
    before = (START.timestamp() - 9, START.timestamp())
    assert judge(replace(history, engine_away=[before]))


def test_nothing_may_be_repeated_even_where_the_engine_was_away() -> None:
    again = "".join(f"line {line}\n" for line in range(70, 80))
    log = written(CHATTY).replace("line 80\n", again + "line 80\n")
    assert [finding.fault for finding in judge(without_engine(log))] == [Fault.WRONG]


def test_a_mark_that_a_container_repeated_counts_once() -> None:
    lines = ["7.5 start run-1 1 aaaa", "7.9 start run-1 1 aaaa", "8.0 end run-1 1 aaaa"]
    assert read_marks("\n".join(lines)) == [
        Mark(7.5, "start", RUN, 1, NONCE),
        Mark(8.0, "end", RUN, 1, NONCE),
    ]


def test_what_a_worker_said_of_its_runs_is_read_in_its_log() -> None:
    log = (
        "2026-01-01 INFO    gyoza.worker.runner.claim_loop: Run run-1: attempt 2 of image:latest.\n"
        "2026-01-01 INFO    gyoza.worker.runner.claim_loop: Run run-3: attempt 1 of image:latest.\n"
        "2026-01-01 INFO    gyoza.worker.runner.run_task: Run run-2 completed in 0.1 s.\n"
        "2026-01-01 INFO    gyoza.worker.runner.giving_back: Run run-1 was not given back: 503\n"
        "2026-01-01 INFO    gyoza.worker.runner.claim_loop: Run run-1: attempt 3 of image:latest.\n"
    )
    assert read_claims(log) == Claims({(RUN, 2), (RUN, 3), ("run-3", 1)}, {(RUN, 2)})


def test_standard_error_is_told_from_standard_output_wherever_it_interrupts() -> None:
    assert split_log("line 1\nliB;BC;ne 2\n\nend\n") == (["line 1", "line 2", "end"], ["1", "12"])


def test_the_last_line_counts_every_run_once_for_each_fault() -> None:
    wrong = change(replace(completed(CHATTY), log=""), outputs={})
    outcome = Outcome(
        5,
        [completed(), wrong, replace(completed(), run=None)],
        containers=[{}],
        directories=[Path("run-1.1")],
        strangers=["x"],
    )
    assert last_line(outcome) == (
        "runs 5 lost 3 doubled 1 wrong 1 containers left 1 directories left 1"
    )


def test_a_bad_run_is_told_with_its_events_marks_and_lines_of_the_logs(tmp_path: Path) -> None:
    log = tmp_path / "worker-1.log"
    log.write_text(f"something about {RUN}\nsomething else\n", encoding="utf-8")
    bad = change(completed(), outputs={}, events=[EventEntry(START, "STARTED", "started")])
    lines: list[str] = []
    assert not report(Outcome(1, [bad], logs=[log]), lines.append)
    assert lines == [
        "The server says: 1 COMPLETED",
        "",
        "run 0 (quick), run-1:",
        "  WRONG  Its outputs are not those of attempt 1: {}.",
        "  00:00.000  server     STARTED started",
        "  00:01.000  container  start of attempt 1, aaaa",
        "  00:02.000  container  end of attempt 1, aaaa",
        "  worker-1: something about run-1",
    ]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(2, [completed()]),
        Outcome(1, [completed()], surprises=["worker-1 ended by itself."]),
        Outcome(1, [completed()], strangers=["x"]),
        Outcome(1, [completed()], unknown=["x"]),
        Outcome(1, [completed()], directories=[Path("worker-1/run-1.1")]),
    ],
    ids=["missing", "surprised", "stranger", "unknown container", "directory"],
)
def test_whatever_is_not_as_it_should_be_makes_it_fail(outcome: Outcome) -> None:
    assert not report(outcome, lambda _line: None)
    assert report(Outcome(1, [completed()]), lambda _line: None)

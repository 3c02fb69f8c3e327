"""Compares what every container truly did with what the server says of its run."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import zip_longest

from gyoza.models import EventType, FailureReason, OpAttempt, OpRun, OpRunState
from tests.chaos import ops
from tests.chaos.marks import Claims, Mark
from tests.chaos.ops import Kind, PlannedRun
from tests.chaos.plan import LEASE_S

HEARD_S = 6.0
"""A worker is heard that is there and can reach the server for so long: it sends a heartbeat each
second, gives it up after three, and this machine may be slow."""

ENDING_S = 2.0
"""So long after its last mark a container may still be ending."""

FROM_GONE = "taken from a worker that was gone"
FROM_UNAWARE = "taken from a worker that had never heard of it"
FROM_LEAVING = "taken from a worker that left and could not give it back"

CLOSED_S = 30.0
"""Once all is whole again the server must know by then that nothing more of a log will come."""

TORN_LINES = 4
"""Where output is missing a line may be torn; so many at most, as the engine is away seldom."""


class Fault(StrEnum):
    """What can be wrong with a run; the words of the last line."""

    LOST = "lost"
    DOUBLED = "doubled"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """Something wrong with a run, in one sentence."""

    fault: Fault
    sentence: str


@dataclass
class History:
    """All that is known of one run.

    Attributes:
        run: What the server says at the end; None if it does not know the run.
        log: The server's log of the last attempt.
        log_took_s: How long the server took to give it, in seconds.
        marks: What the run's containers said of themselves.
        engine_away: From when to when the engine was not there.
        workers_away: From when to when each worker was not there, or could not reach the server.
        claims: What each worker said of its runs.
        cancel_asked: Whether a cancel was sent.
        cancel_granted: Whether the server said that the run is cancelled.
    """

    planned: PlannedRun
    run_id: str
    run: OpRun | None
    attempts: list[OpAttempt] = field(default_factory=list[OpAttempt])
    log: str = ""
    marks: list[Mark] = field(default_factory=list[Mark])
    engine_away: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    workers_away: Mapping[str, list[tuple[float, float]]] = field(
        default_factory=dict[str, list[tuple[float, float]]]
    )
    claims: Mapping[str, Claims] = field(default_factory=dict[str, Claims])
    cancel_asked: bool = False
    cancel_granted: bool = False
    log_took_s: float = 0.0

    def nonces(self, what: str, attempt: int) -> list[str]:
        """Return the containers of an attempt that made this mark."""
        return [m.nonce for m in self.marks if (m.what, m.attempt) == (what, attempt)]

    def outlived_engine(self, nonce: str) -> bool:
        """Return whether a container ran while the engine was away.

        What it wrote then went into a pipe that may have ended with it, and what the engine had
        read and not yet written ended with the engine: of its output a part may be missing.
        """
        at = {mark.what: mark.at for mark in self.marks if mark.nonce == nonce}
        start, end = at.get("start", 0.0), at.get("end", 0.0) + ENDING_S
        return any(left < end and start < back for left, back in self.engine_away)


def judge(history: History) -> list[Finding]:
    """Return everything that is wrong with a run; nothing for one that went as it should."""
    return [Finding(fault, sentence) for fault, sentence in _judge(history)]


def notices(history: History) -> list[str]:
    """Return what is allowed and still worth knowing, a few words each."""
    found: list[str] = []
    ran = {mark.attempt for mark in history.marks if mark.what == "end"}
    if len(ran) > 1:
        found.append("ran to the end in more than one attempt")
    starts = Counter(mark.attempt for mark in history.marks if mark.what == "start")
    if any(times > 1 for times in starts.values()):
        found.append("had more than one container start in an attempt")
    if len(history.attempts) > 1:
        found.append("took more than one attempt")
    ended = [mark.nonce for mark in history.marks if mark.what == "end"]
    if any(history.outlived_engine(nonce) for nonce in ended):
        found.append("had a container that ran on without the engine")
    found += sorted({_whence(history, attempt) for attempt in _taken(history)})
    return found


def _judge(history: History) -> Iterator[tuple[Fault, str]]:
    run = history.run
    if run is None:
        yield Fault.LOST, "The server does not know it."
        return
    yield from _doubled(history)
    yield from _robbed(history)
    if not run.state.terminal:
        yield Fault.LOST, f"It is {run.state} and did not end."
        return
    if history.log_took_s > CLOSED_S:
        yield Fault.WRONG, f"Its log was waited for, for {history.log_took_s:.0f} s after its end."
    if history.cancel_granted and run.state is not OpRunState.CANCELLED:
        yield Fault.WRONG, f"A cancel was granted, and yet it is {run.state}."
    elif run.state is OpRunState.CANCELLED:
        if not history.cancel_asked:
            yield Fault.WRONG, "It is CANCELLED, and nobody asked for that."
    elif run.state is OpRunState.COMPLETED:
        yield from _completed(history, run)
    else:
        yield from _failed(history, run)


def _doubled(history: History) -> Iterator[tuple[Fault, str]]:
    ended = [str(a.attempt) for a in history.attempts if _reported_its_end(a)]
    if len(ended) > 1:
        yield Fault.DOUBLED, f"Attempts {' and '.join(ended)} both reached a terminal state."
    for attempt in sorted({mark.attempt for mark in history.marks}):
        if len(history.nonces("end", attempt)) > 1:
            yield Fault.DOUBLED, f"Two containers of attempt {attempt} ran to their end."


def _robbed(history: History) -> Iterator[tuple[Fault, str]]:
    """Tell of attempts that were taken from workers that could be heard.

    Whatever kept the server from hearing them, a worker keeps its runs unless it was away itself.
    """
    for attempt in _taken(history):
        worker = attempt.execution_summary.worker_id
        if attempt.finished_at is None or _whence(history, attempt) != FROM_GONE:
            continue
        taken_at = attempt.finished_at.timestamp()
        away = history.workers_away.get(worker or "", [])
        heard_s = _longest_gap(away, taken_at - LEASE_S, taken_at)
        if heard_s > HEARD_S:
            yield (
                Fault.WRONG,
                f"Attempt {attempt.attempt} was taken from {worker}, which could be heard for "
                f"{heard_s:.1f} s at a stretch in the {LEASE_S:g} s before.",
            )


def _taken(history: History) -> list[OpAttempt]:
    """Return the attempts whose worker was taken for lost; not the one that was too much."""
    last = history.run.current_attempt if history.run else 0
    return [
        attempt
        for attempt in history.attempts
        if attempt.execution_summary.reason == FailureReason.WORKER_LOST
        and not (history.run and history.run.state is OpRunState.FAILED and attempt.attempt == last)
    ]


def _whence(history: History, attempt: OpAttempt) -> str:
    """Return what became of a run that was taken from its worker, in a few words."""
    said = history.claims.get(attempt.execution_summary.worker_id or "", Claims(set(), set()))
    key = history.run_id, attempt.attempt
    if key in said.let_go:
        return FROM_LEAVING
    return FROM_GONE if attempt.started_at or key in said.got else FROM_UNAWARE


def _longest_gap(spans: list[tuple[float, float]], begin: float, end: float) -> float:
    """Return the longest time between begin and end that no span covers, in seconds."""
    longest, covered = 0.0, begin
    for left, back in [*sorted(spans), (end, end)]:
        longest = max(longest, min(left, end) - covered)
        covered = max(covered, back)
    return longest


def _reported_its_end(attempt: OpAttempt) -> bool:
    """Tell what a worker reported from what the server ended: attempts given back or lost."""
    lost = attempt.execution_summary.reason == FailureReason.WORKER_LOST
    return attempt.state is OpRunState.COMPLETED or (
        attempt.state is OpRunState.FAILED and not lost
    )


def _completed(history: History, run: OpRun) -> Iterator[tuple[Fault, str]]:
    if history.planned.code != 0:
        yield Fault.WRONG, f"It is COMPLETED, though its op exits with {history.planned.code}."
        return
    attempt = run.current_attempt
    ended = history.nonces("end", attempt)
    if not ended:
        yield Fault.WRONG, f"It is COMPLETED, but no container of attempt {attempt} ran to its end."
    elif run.outputs not in [ops.expected_outputs(history.planned, attempt, n) for n in ended]:
        yield Fault.WRONG, f"Its outputs are not those of attempt {attempt}: {_short(run.outputs)}."
    yield from _told(history, attempt)


def _failed(history: History, run: OpRun) -> Iterator[tuple[Fault, str]]:
    summary = run.execution_summary
    said = f"FAILED, {summary.reason}, exit code {summary.exit_code}: {summary.error_message}"
    attempt = run.current_attempt
    if history.planned.kind is not Kind.FAILING:
        yield Fault.WRONG, f"It should succeed, and is {said}"
        return
    own = (FailureReason.EXIT_CODE, history.planned.code)
    if (summary.reason, summary.exit_code) != own:
        yield Fault.WRONG, f"Its op exits with {history.planned.code}, and it is {said}"
        return
    if not history.nonces("end", attempt):
        yield Fault.WRONG, f"It is FAILED, but no container of attempt {attempt} ran to its end."
    yield from _told(history, attempt)


def _told(history: History, attempt: int) -> Iterator[tuple[Fault, str]]:
    """Compare the log and the events of the last attempt with what its container wrote."""
    planned = history.planned
    ended = history.nonces("end", attempt)
    if len(ended) != 1:
        return
    compare = _difference
    if history.outlived_engine(ended[0]):
        compare = _disorder
    stdout, stderr = ops.split_log(history.log)
    if difference := compare(stdout, ops.expected_stdout(planned, attempt, ended[0])):
        yield Fault.WRONG, f"In its log standard output is not what was written: {difference}."
    if difference := compare(stderr, ops.expected_stderr(planned)):
        yield Fault.WRONG, f"In its log standard error is not what was written: {difference}."
    events = [
        str(event.msg)
        for known in history.attempts
        if known.attempt == attempt
        for event in known.events
        if event.type == EventType.INFO
    ]
    if difference := compare(events, ops.expected_events(planned)):
        yield Fault.WRONG, f"Its events are not those that were sent: {difference}."


def _difference(found: list[str], expected: list[str]) -> str:
    """Say where two lists differ first; nothing if they do not."""
    for number, (one, other) in enumerate(zip_longest(found, expected), start=1):
        if one != other:
            lengths = f"{len(found)} instead of {len(expected)} lines"
            return f"{lengths}, line {number} is {_short(one)} instead of {_short(other)}"
    return ""


def _disorder(found: list[str], expected: list[str]) -> str:
    """Say where something is repeated, out of order or made up; something may be missing."""
    position = {line: number for number, line in enumerate(expected)}
    last = -1
    odd: list[str] = []
    for number, line in enumerate(found, start=1):
        if position.get(line, -1) > last:
            last = position[line]
        else:
            odd.append(f"line {number}, {_short(line)}, is repeated, out of order or made up")
    return f"{odd[0]}, and {len(odd) - 1} more" if len(odd) > TORN_LINES else ""


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:100]}…{text[-20:]}"

"""What a chaos run says at its end: every run that went wrong, what is left, and the last line."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gyoza.worker.containers.labels import ATTEMPT, RUN_ID, WORKER_ID
from tests.chaos.verdict import Fault, Finding, History, judge, notices

TOLD, WITH_LOGS, LOG_LINES = 20, 5, 20
"""So many bad runs are told with all that happened to them, so many of these with so many lines of
each log: what went wrong once often went wrong many times."""


@dataclass
class Outcome:
    """Everything there is to judge.

    Attributes:
        planned: How many runs were to be handed in.
        histories: What is known of each run that the server took.
        containers: What the engine still has, in its words.
        unknown: Ids of containers that have processes and that the engine does not list.
        torn: The same for containers that the engine has lost as it went away.
        directories: Directories of runs that are still there.
        strangers: Ids of runs at the server that nobody handed in.
        surprises: Sentences about processes that did not behave.
        logs: Where the logs of the processes are.
    """

    planned: int
    histories: list[History]
    containers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    unknown: list[str] = field(default_factory=list[str])
    torn: list[str] = field(default_factory=list[str])
    directories: list[Path] = field(default_factory=list[Path])
    strangers: list[str] = field(default_factory=list[str])
    surprises: list[str] = field(default_factory=list[str])
    logs: list[Path] = field(default_factory=list[Path])


def report(outcome: Outcome, write: Callable[[str], None]) -> bool:
    """Write what happened but for the last line; return whether all was as it should be."""
    judged = [(history, judge(history)) for history in outcome.histories]
    bad = [(history, findings) for history, findings in judged if findings]
    for line in _summary(outcome):
        write(line)
    for number, (history, findings) in enumerate(bad):
        for line in _tell(history, findings):
            write(line)
        for line in _timeline(history) if number < TOLD else ():
            write(line)
        for line in _lines_of_logs(history, outcome.logs) if number < WITH_LOGS else ():
            write(line)
    for line in _leftovers(outcome):
        write(line)
    for surprise in outcome.surprises:
        write(f"SURPRISE  {surprise}")
    return not (
        bad
        or outcome.surprises
        or outcome.containers
        or outcome.unknown
        or outcome.directories
        or outcome.strangers
        or len(outcome.histories) < outcome.planned
    )


def last_line(outcome: Outcome) -> str:
    """Return the one line that says it all."""
    faults: Counter[Fault] = Counter()
    for history in outcome.histories:
        faults.update({finding.fault for finding in judge(history)})
    lost = faults[Fault.LOST] + outcome.planned - len(outcome.histories)
    doubled = faults[Fault.DOUBLED] + len(outcome.strangers)
    return (
        f"runs {outcome.planned} lost {lost} doubled {doubled} wrong {faults[Fault.WRONG]}"
        f" containers left {len(outcome.containers) + len(outcome.unknown)}"
        f" directories left {len(outcome.directories)}"
    )


def _summary(outcome: Outcome) -> Iterator[str]:
    states = Counter(history.run.state for history in outcome.histories if history.run)
    yield "The server says: " + ", ".join(f"{n} {state}" for state, n in sorted(states.items()))
    seen = Counter(notice for history in outcome.histories for notice in notices(history))
    for notice, times in sorted(seen.items()):
        yield f"{times:5} {notice}"
    if outcome.torn:
        yield f"{len(outcome.torn):5} lost by the engine as it went away, and out of reach"
    if missing := outcome.planned - len(outcome.histories):
        yield f"{missing:5} never taken by the server"


def _tell(history: History, findings: list[Finding]) -> Iterator[str]:
    yield ""
    yield f"{history.planned.name}, {history.run_id}:"
    for finding in findings:
        yield f"  {finding.fault.upper()}  {finding.sentence}"


def _timeline(history: History) -> Iterator[str]:
    if history.planned.cancel:
        moment = history.planned.cancel.after or "its submission"
        came = "granted" if history.cancel_granted else "asked"
        came = came if history.cancel_asked else "not sent any more"
        yield f"  cancel {history.planned.cancel.delay_s} s after {moment}: {came}"
    events = [
        (event.t.timestamp(), f"server     {event.type} {event.msg}")
        for event in (history.run.events if history.run else [])
    ]
    marks = [
        (mark.at, f"container  {mark.what} of attempt {mark.attempt}, {mark.nonce[:8]}")
        for mark in history.marks
    ]
    for at, text in sorted(events + marks):
        yield f"  {clock(at)}  {text}"


def _lines_of_logs(history: History, logs: list[Path]) -> Iterator[str]:
    for log in logs:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in [line for line in lines if history.run_id in line][-LOG_LINES:]:
            yield f"  {log.stem}: {line}"


def _leftovers(outcome: Outcome) -> Iterator[str]:
    known = {history.run_id: history for history in outcome.histories}

    def of(run_id: str) -> str:
        history = known.get(run_id)
        if history is None or history.run is None:
            return "an unknown run"
        return f"{history.planned.name}, {history.run.state} at {history.run.current_attempt}"

    for container in outcome.containers:
        labels = container["Labels"]
        yield (
            f"LEFT  container {container['Names'][0]} of {labels[WORKER_ID]},"
            f" attempt {labels[ATTEMPT]}, {container['Status']}: {of(labels[RUN_ID])}"
        )
    for container in outcome.unknown:
        yield f"LEFT  processes of container {container}, which the engine does not know"
    for directory in outcome.directories:
        run_id = directory.name.rpartition(".")[0]
        yield f"LEFT  directory {directory.parent.name}/{directory.name}: {of(run_id)}"
    for run_id in outcome.strangers:
        yield f"DOUBLED  The server has a run that nobody handed in: {run_id}"


def clock(at: float) -> str:
    """Return minutes, seconds and milliseconds, as the logs have them."""
    return f"{int(at) // 60 % 60:02}:{at % 60:06.3f}"

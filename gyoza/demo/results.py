"""What the runs of the demo have come to: checked, and told."""

from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console
from rich.text import Text

from gyoza.demo.plan import Planned
from gyoza.models import EventType, FailureReason, OpRun, OpRunState

LOG_LINES = 5


@dataclass(frozen=True)
class Result:
    """A run as it ended, with its log."""

    planned: Planned
    run: OpRun
    log: str


@dataclass(frozen=True)
class Cancelled:
    """How the cancel went.

    Attributes:
        progress: Percent of its way that the run had gone.
        ran_s: Seconds it had run.
        gone_s: Seconds from the request until the worker was done with it.
        gone: Whether its container was gone then.
    """

    progress: int
    ran_s: float
    gone_s: float
    gone: bool


def find_problems(result: Result) -> list[str]:
    """Return a sentence for everything about a run that is not as planned."""
    planned, run, summary = result.planned, result.run, result.run.execution_summary
    if run.state is not planned.ends:
        why = summary.error_message or ""
        return [f"'{planned.name}' is {run.state}, not {planned.ends}. {why}".rstrip()]
    problems: list[str] = []
    if run.outputs != planned.outputs:
        problems.append(f"'{planned.name}' returned {run.outputs} instead of {planned.outputs}.")
    sent = {event.type for event in run.events}
    if run.state is OpRunState.FAILED:
        if summary.reason is not FailureReason.EXIT_CODE:
            problems.append(f"'{planned.name}' failed of {summary.reason}, not of its exit code.")
        if planned.says not in result.log:
            problems.append(f"The log of '{planned.name}' does not say '{planned.says}'.")
    elif not sent.issuperset({EventType.STARTED, EventType.INFO, EventType.PROGRESS}):
        problems.append(f"'{planned.name}' sent no events but {', '.join(sorted(sent))}.")
    return problems


def tell(console: Console, results: list[Result]) -> None:
    """Print the outputs, and why runs failed."""
    console.print("\n[bold]OUTPUTS[/bold]")
    for result in results:
        if result.run.state is OpRunState.COMPLETED:
            _print_cut(console, f"{result.planned.name:<24}{_short(result.run.outputs)}")
    for result in results:
        if result.run.state is OpRunState.FAILED:
            summary = result.run.execution_summary
            console.print(
                f"\n[bold]FAILED[/bold] {result.planned.name}, {summary.reason}: "
                f"{summary.error_message} Its log ends:"
            )
            for line in result.log.splitlines()[-LOG_LINES:]:
                _print_cut(console, f"  {line}", "dim")


def tell_cancelled(console: Console, cancelled: Cancelled) -> list[str]:
    """Print how the cancel went; return what is wrong with it."""
    if not cancelled.gone:
        return ["The cancelled run's container outlived the worker's interest in it."]
    console.print(
        f"\n[bold]CANCELLED[/bold] one after {cancelled.ran_s:.1f} s, at {cancelled.progress} %; "
        f"its container was gone {cancelled.gone_s:.1f} s later."
    )
    return []


def _short(outputs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_words(value)}" for name, value in outputs.items())


def _words(value: Any) -> str:
    return " ".join(map(str, cast("list[Any]", value))) if isinstance(value, list) else str(value)


def _print_cut(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style=style), no_wrap=True, overflow="ellipsis")

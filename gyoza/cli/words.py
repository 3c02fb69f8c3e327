"""Amounts, limits and the end of a run in words, for those who read them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from gyoza.models import Constraints, OpRun, OpRunState, RetryPolicy
from gyoza.models.definition import InputSpec, InputSpecs

ID_SHOWN = 8
"""Characters of a run's id in a sentence; enough for every command that takes one."""

_ENDS = {
    OpRunState.COMPLETED: ("completed", "in"),
    OpRunState.FAILED: ("FAILED", "after"),
    OpRunState.CANCELLED: ("was cancelled", "after"),
}


def ending(run: OpRun) -> str:
    """Return how a run ended, how long its last attempt took and where, in one sentence."""
    summary = run.execution_summary
    ended, within = _ENDS[run.state]
    sentence = f"Run {short_id(run.id)} {ended}"
    if summary.duration_ms is not None:
        sentence += f" {within} {took(summary.duration_ms)}"
    if worker := summary.worker_id or run.worker_id:
        sentence += f" on {worker}"
    if run.current_attempt > 1:
        sentence += f", attempt {run.current_attempt}"
    if run.state is OpRunState.FAILED and summary.error_message:
        return f"{sentence}: {summary.error_message}"
    return f"{sentence}."


def short_id(run_id: str) -> str:
    """Return the first characters of an id that a gyoza server made, and any other id whole."""
    return run_id[:ID_SHOWN] if re.fullmatch("[0-9a-f]{32}", run_id) else run_id


def took(duration_ms: int | None) -> str | None:
    """Return a duration in its largest units."""
    if duration_ms is None:
        return None
    if duration_ms < 59_950:
        return f"{duration_ms / 1000:.1f} s"
    minutes, seconds = divmod(round(duration_ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def seconds(number: float | None) -> str | None:
    """Return a limit in seconds."""
    return None if number is None else f"{number:g} s"


def cores(number: float) -> str:
    """Return a number of CPU cores, which may be a part of one."""
    return count(number, "core")


def count(number: float, noun: str) -> str:
    """Return a number of things."""
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"


def needs(constraints: Constraints) -> str:
    """Return what a run asks for."""
    told = [
        None if constraints.cpu is None else cores(constraints.cpu),
        None if constraints.ram_mb is None else f"{constraints.ram_mb} MB",
        None if constraints.vram_mb is None else f"{constraints.vram_mb} MB of GPU memory",
    ]
    return ", ".join(part for part in told if part)


def tries(policy: RetryPolicy) -> str:
    """Return how often a failing run is tried."""
    if policy.max_attempts == 1:
        return "1, no retry"
    told = f"{policy.max_attempts} at most"
    return f"{told}, {policy.backoff_s:g} s before the second" if policy.backoff_s else told


def takes_inputs(inputs: InputSpecs) -> str:
    """Return the inputs of a definition, each with its type and whether it must be given."""
    specs = inputs.specs.items()
    return "; ".join(f"{name}: {spec.type}, {_whether(spec)}" for name, spec in specs)


def _whether(spec: InputSpec) -> str:
    if spec.default is not None:
        return f"default {json.dumps(spec.default, ensure_ascii=False)}"
    return "required" if spec.required else "optional"


def has(resources: Mapping[str, Any]) -> str:
    """Return what a worker offers, as its heartbeat tells it."""
    gpus = cast("Sequence[Mapping[str, Any]]", resources.get("gpus") or [])
    return ", ".join(
        [
            cores(resources.get("cpu_cores") or 0),
            f"{resources.get('ram_mb') or 0:.0f} MB",
            f"GPUs: {'; '.join(map(_gpu, gpus)) or 'none'}",
        ]
    )


def _gpu(gpu: Mapping[str, Any]) -> str:
    tags = cast("Sequence[str]", gpu.get("tags") or [])
    told = [f"{gpu.get('vram_mb') or 0:.0f} MB", *tags]
    return f"{gpu.get('id')} ({', '.join(told)})"

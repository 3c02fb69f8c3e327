"""Amounts, limits and ends of runs as sentences say them."""

import pytest

from gyoza.cli.words import count, ending, has, needs, seconds, short_id, takes_inputs, took, tries
from gyoza.models import Constraints, ExecutionSummary, OpRun, OpRunState, RetryPolicy
from gyoza.models.definition import InputSpecs

ID = "60a8fb2d8e114f7dad76c0c950559abc"


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (
            OpRun(ID, OpRunState.COMPLETED, execution_summary=ExecutionSummary(8300, "new-a")),
            "Run 60a8fb2d completed in 8.3 s on new-a.",
        ),
        (
            OpRun("nightly-2026-01-31", OpRunState.CANCELLED),
            "Run nightly-2026-01-31 was cancelled.",
        ),
        (
            OpRun(
                ID,
                OpRunState.FAILED,
                current_attempt=3,
                worker_id="new-b",
                execution_summary=ExecutionSummary(61_000, error_message="Too slow."),
            ),
            "Run 60a8fb2d FAILED after 1 min 1 s on new-b, attempt 3: Too slow.",
        ),
        (OpRun(ID, OpRunState.FAILED), "Run 60a8fb2d FAILED."),
    ],
)
def test_one_sentence_says_how_a_run_ended(run: OpRun, sentence: str) -> None:
    assert ending(run) == sentence


def test_only_ids_that_a_server_made_are_shortened() -> None:
    assert short_id(ID) == "60a8fb2d"
    assert short_id("a-small-server-has-ids-of-its-own") == "a-small-server-has-ids-of-its-own"


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (None, None),
        (0, "0.0 s"),
        (59_949, "59.9 s"),
        (59_950, "1 min 0 s"),
        (125_000, "2 min 5 s"),
        (7_380_000, "2 h 3 min"),
    ],
)
def test_a_duration_is_told_in_its_largest_units(ms: int | None, text: str | None) -> None:
    assert took(ms) == text


def test_limits_are_told_with_their_units() -> None:
    assert (seconds(None), seconds(2.5)) == (None, "2.5 s")
    assert (count(0, "run"), count(1, "run"), count(2, "run")) == ("0 runs", "1 run", "2 runs")
    assert needs(Constraints()) == ""
    assert needs(Constraints(0.5, 1024, 8000)) == "0.5 cores, 1024 MB, 8000 MB of GPU memory"
    assert tries(RetryPolicy()) == "1, no retry"
    assert tries(RetryPolicy(3)) == "3 at most"
    assert tries(RetryPolicy(3, 5)) == "3 at most, 5 s before the second"


def test_what_a_worker_has_names_each_gpu() -> None:
    assert has({}) == "0 cores, 0 MB, GPUs: none"
    gpus = [{"id": 0, "vram_mb": 81559, "tags": ["cuda", "nvidia-h100"]}, {"id": 1}]
    told = has({"cpu_cores": 2.0, "ram_mb": 24105.4, "gpus": gpus})
    assert told == "2 cores, 24105 MB, GPUs: 0 (81559 MB, cuda, nvidia-h100); 1 (0 MB)"


def test_what_a_definition_takes_names_types_and_defaults() -> None:
    specs = {
        "text": {"type": "string"},
        "least": {"type": "int", "default": 1},
        "mode": {"type": "any", "required": False},
    }
    told = takes_inputs(InputSpecs.from_dict(specs))
    assert told == "text: string, required; least: int, default 1; mode: any, optional"

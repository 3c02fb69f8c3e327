"""The shared domain types: states, plain forms, input specs, retry delays, ids, GPUs."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gyoza.models import (
    TRANSITIONS,
    Constraints,
    EventDelivery,
    EventEntry,
    EventType,
    ExecutionSummary,
    FailureReason,
    InputSpec,
    InputSpecs,
    InputValidationError,
    InvalidIdError,
    OpAttempt,
    OpDefinition,
    OpRun,
    OpRunState,
    RetryPolicy,
    check_id,
    pick_gpus,
)
from gyoza.models.record import Record

PENDING, ASSIGNED, RUNNING, COMPLETED, FAILED, CANCELLED = OpRunState
NOON = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)

ALLOWED = {
    (PENDING, ASSIGNED),
    (PENDING, CANCELLED),
    (ASSIGNED, RUNNING),
    (ASSIGNED, PENDING),
    (ASSIGNED, CANCELLED),
    (ASSIGNED, FAILED),
    (RUNNING, COMPLETED),
    (RUNNING, FAILED),
    (RUNNING, CANCELLED),
    (RUNNING, PENDING),
    (FAILED, PENDING),
    (CANCELLED, PENDING),
}


@pytest.mark.parametrize("source", OpRunState)
@pytest.mark.parametrize("target", OpRunState)
def test_a_run_changes_state_only_along_the_table(source: OpRunState, target: OpRunState) -> None:
    assert source.can_become(target) == ((source, target) in ALLOWED)


def test_the_table_has_a_row_for_every_state() -> None:
    assert set(TRANSITIONS) == set(OpRunState)


def test_terminal_states_end_a_run_and_held_ones_reserve_resources() -> None:
    assert {state for state in OpRunState if state.terminal} == {COMPLETED, FAILED, CANCELLED}
    assert {state for state in OpRunState if state.held} == {ASSIGNED, RUNNING}


@pytest.mark.parametrize("enum", [OpRunState, EventType, FailureReason])
def test_names_are_their_values(enum: type[OpRunState | EventType | FailureReason]) -> None:
    assert all(member.value == member.name == str(member) for member in enum)


def full_run() -> OpRun:
    return OpRun(
        id="r1",
        state=FAILED,
        progress=40,
        current_attempt=2,
        priority=7,
        image="image:1",
        command=["run", "it"],
        inputs={"a": [1, {"b": None}]},
        outputs={"c": 0.5},
        env_vars={"K": "v"},
        constraints=Constraints(cpu=2, ram_mb=100, vram_mb=10),
        tags=["fast"],
        timeout_s=1.5,
        grace_s=0.0,
        retry_policy=RetryPolicy(max_attempts=3, backoff_s=2.0),
        event_delivery=EventDelivery("topic", {"x": 1}),
        op_definition="op",
        worker_id="w1",
        events=[
            EventEntry(NOON, EventType.STARTED, "started", state=RUNNING),
            EventEntry(NOON, EventType.PROGRESS, 0, {"k": "v"}, id=1, state=RUNNING),
        ],
        execution_summary=ExecutionSummary(5, "w1", "It failed.", 3, FailureReason.EXIT_CODE, [0]),
        created_at=NOON,
        updated_at=NOON + timedelta(microseconds=5),
    )


RECORDS: list[Record] = [
    full_run(),
    OpRun(id="least"),
    OpAttempt("a1", "r1", 1, RUNNING, events=full_run().events, started_at=NOON),
    OpDefinition("op", "image", command=[], input_specs={"n": {"type": "int"}}, created_at=NOON),
    EventEntry(NOON, "INFO", "text"),
    ExecutionSummary(),
    Constraints(),
    RetryPolicy(),
    EventDelivery(),
    InputSpec("int", required=False, default=3),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_its_plain_form(record: Record) -> None:
    assert type(record).from_dict(record.to_dict()) == record


def test_a_run_is_told_as_the_contract_says() -> None:
    plain = full_run().to_dict()
    assert list(plain) == [
        *("id", "state", "progress", "current_attempt", "priority", "image", "command"),
        *(
            "inputs",
            "outputs",
            "env_vars",
            "secrets",
            "constraints",
            "tags",
            "timeout_s",
            "grace_s",
        ),
        *("retry_policy", "event_delivery", "op_definition", "worker_id", "events"),
        "execution_summary",
        *("created_at", "updated_at", "created_by"),
    ]
    assert plain["state"] == "FAILED"
    assert type(plain["state"]) is str
    assert plain["constraints"] == {"cpu": 2, "ram_mb": 100, "vram_mb": 10}
    assert plain["created_at"] == "2026-01-02T12:00:00Z"
    assert plain["updated_at"] == "2026-01-02T12:00:00.000005Z"
    assert plain["events"][1] == {
        "t": "2026-01-02T12:00:00Z",
        "type": "PROGRESS",
        "msg": 0,
        "payload": {"k": "v"},
        "id": 1,
        "state": "RUNNING",
        "created_by": None,
    }
    assert plain["execution_summary"] == {
        "duration_ms": 5,
        "worker_id": "w1",
        "error_message": "It failed.",
        "exit_code": 3,
        "reason": "EXIT_CODE",
        "gpu_ids": [0],
    }


def test_times_are_told_in_utc() -> None:
    east = datetime(2026, 1, 2, 14, tzinfo=timezone(timedelta(hours=2)))
    naive = datetime(2026, 1, 2, 12)
    for moment in (east, naive):
        assert EventEntry(moment, "INFO", "x").to_dict()["t"] == "2026-01-02T12:00:00Z"


def test_the_few_fields_of_a_small_server_make_a_run() -> None:
    run = OpRun.from_dict(
        {
            "id": "r1",
            "image": "image",
            "inputs": {"a": 1},
            "constraints": {"cpu": None, "ram_mb": 64},
            "state": "ASSIGNED",
        }
    )
    assert run == OpRun(
        id="r1",
        image="image",
        inputs={"a": 1},
        constraints=Constraints(ram_mb=64),
        state=ASSIGNED,
    )
    assert run.current_attempt == 0


def test_unknown_and_null_fields_leave_the_defaults() -> None:
    given: dict[str, Any] = {
        "id": "r",
        "color": "red",
        "tags": None,
        "constraints": None,
        "retry_policy": {"jitter": 1},
    }
    assert OpRun.from_dict(given) == OpRun(id="r")


def test_a_run_without_an_id_or_with_an_unknown_state_is_an_error() -> None:
    with pytest.raises(TypeError, match="id"):
        OpRun.from_dict({"image": "x"})
    with pytest.raises(ValueError, match="PAUSED"):
        OpRun.from_dict({"id": "r", "state": "PAUSED"})


SPECS = InputSpecs.from_dict(
    {
        "path": {"type": "string", "required": True},
        "count": {"type": "int", "required": False, "default": 3},
        "note": {"type": "string", "required": False},
    }
)


def test_missing_inputs_get_their_defaults() -> None:
    given = {"path": "x"}
    assert SPECS.validate(given) == {"path": "x", "count": 3}
    assert given == {"path": "x"}
    assert SPECS.validate({"path": "x", "count": 0, "note": ""}) == {
        "path": "x",
        "count": 0,
        "note": "",
    }


def test_a_required_input_with_a_default_need_not_be_given() -> None:
    specs = InputSpecs({"n": InputSpec("int", default=0)})
    assert specs.validate({}) == {"n": 0}


def test_every_wrong_input_gets_a_sentence() -> None:
    with pytest.raises(InputValidationError) as caught:
        SPECS.validate({"count": "3", "size": 1})
    assert caught.value.errors == [
        "Input 'size' is unknown; this op takes count, note, path.",
        "Input 'path' (string) is required.",
        "Input 'count' must be of type int, not str.",
    ]
    assert str(caught.value) == " ".join(caught.value.errors)
    assert isinstance(caught.value, ValueError)


TYPES: list[tuple[str, list[Any], list[Any]]] = [
    ("string", ["", "x"], [1, None, ["x"]]),
    ("int", [0, -5], [True, 1.0, "1"]),
    ("float", [0.5, 2], [False, "1"]),
    ("bool", [True, False], [0, "true"]),
    ("list", [[], [1]], [(1,), "ab", {}]),
    ("dict", [{}, {"a": 1}], [[], "x"]),
    ("any", [None, 1, "x", []], []),
]


@pytest.mark.parametrize(("kind", "right", "wrong"), TYPES)
def test_an_input_must_be_of_its_type(kind: str, right: list[Any], wrong: list[Any]) -> None:
    specs = InputSpecs({"x": InputSpec(kind)})
    for value in right:
        assert specs.validate({"x": value}) == {"x": value}
    for value in wrong:
        with pytest.raises(InputValidationError, match=f"must be of type {kind}"):
            specs.validate({"x": value})


def test_a_definition_without_specs_takes_any_inputs() -> None:
    assert OpDefinition("op", "image").validate_inputs({"whatever": 1}) == {"whatever": 1}


def test_a_definition_checks_inputs_by_its_specs() -> None:
    definition = OpDefinition("op", "image", input_specs=SPECS.to_dict())
    assert definition.validate_inputs({"path": "x"}) == {"path": "x", "count": 3}
    with pytest.raises(InputValidationError):
        definition.validate_inputs({})


def test_specs_survive_their_plain_form() -> None:
    assert InputSpecs.from_dict(SPECS.to_dict()) == SPECS


@pytest.mark.parametrize(
    ("failures", "delay_s"), [(1, 2.0), (2, 4.0), (3, 8.0), (11, 2048.0), (12, 3600.0)]
)
def test_the_delay_doubles_up_to_an_hour(failures: int, delay_s: float) -> None:
    assert RetryPolicy(backoff_s=2.0).delay_s(failures) == delay_s


def test_any_number_of_failures_has_a_delay() -> None:
    assert RetryPolicy(backoff_s=0.5).delay_s(10**9) == 3600.0
    assert RetryPolicy().delay_s(10**9) == 0.0


@pytest.mark.parametrize("value", ["a", "0", "run_1.b-C", "x" * 63, "a..b"])
def test_an_id_of_letters_digits_and_a_few_signs_is_fine(value: str) -> None:
    assert check_id(value) == value


@pytest.mark.parametrize(
    "value",
    ["", ".", "..", "../x", "a/b", "/etc", "-rf", "_a", "a b", "a\n", "a\0", "ü", "x" * 64, "a:b"],
)
def test_an_id_that_could_be_something_else_is_refused_with_a_sentence(value: str) -> None:
    with pytest.raises(InvalidIdError, match="is not a valid run id: use 1 to 63 letters"):
        check_id(value, "run id")


@pytest.mark.parametrize(
    ("vram_mb", "chosen"),
    [
        (0, []),
        (-1, []),
        (10, [2]),  # the smallest that is large enough
        (20, [2]),
        (21, [0]),  # of two alike, the lower id
        (40, [0]),
        (41, [0, 1]),  # as few of the largest as it takes
        (80, [0, 1]),
        (81, [0, 1, 2]),
        (100, [0, 1, 2]),
        (101, None),
    ],
)
def test_gpus_are_picked_by_fit_then_by_size(vram_mb: int, chosen: list[int] | None) -> None:
    assert pick_gpus({0: 40, 1: 40, 2: 20}, vram_mb) == chosen


@pytest.mark.parametrize(
    ("vram_mb", "chosen"), [(40, [0]), (41, [2]), (60, [2]), (61, [0, 1]), (80, [0, 1]), (81, None)]
)
def test_parts_of_gpus_are_picked_alone(vram_mb: int, chosen: list[int] | None) -> None:
    assert pick_gpus({0: 40, 1: 40, 2: 60, 3: 60}, vram_mb, alone={2, 3}) == chosen


def test_where_there_are_no_gpus_only_nothing_can_be_picked() -> None:
    assert pick_gpus({}, 0) == []
    assert pick_gpus({}, 1) is None


@settings(deadline=None, database=None)
@given(st.dictionaries(st.integers(0, 15), st.integers(1, 100)), st.integers(1, 500))
def test_picked_gpus_suffice_and_none_of_them_is_spare(free: dict[int, int], vram_mb: int) -> None:
    chosen = pick_gpus(free, vram_mb)
    if chosen is None:
        assert sum(free.values()) < vram_mb
    else:
        total = sum(free[gpu] for gpu in chosen)
        assert total >= vram_mb
        assert all(total - free[gpu] < vram_mb for gpu in chosen)

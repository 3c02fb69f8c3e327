"""The documented public interface of the worker, held against the code.

The tables say what users were told: import paths, signatures, fields with types and defaults,
methods. `<factory>` is how dataclasses show a default that is made anew each time. Whether a step
is a plain or an async function is not part of it.
"""

import inspect
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from types import NoneType
from typing import Any, cast, get_type_hints

import pytest

from gyoza.models import OpRunState
from gyoza.worker.execution_pipeline import ExecutionContext
from gyoza.worker.worker_context import GPU, Resources, RunningOp

Dict = dict[str, Any]
WORKER = "gyoza.worker"
PIPELINE = "gyoza.worker.execution_pipeline"
STEPS = "gyoza.worker.execution_pipeline.steps"
CONTEXT = "gyoza.worker.worker_context"


@dataclass(frozen=True)
class Function:
    """A documented function: where it can be imported from, and what it takes and returns."""

    modules: list[str]
    signature: str
    types: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Class:
    """A documented class; `fields` only of a dataclass."""

    modules: list[str]
    signature: str
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    methods: dict[str, Function] = field(default_factory=dict[str, Function])


def method(signature: str, **types: Any) -> Function:
    """Return the entry of a method."""
    return Function([], signature, types)


STEP = {"ctx": ExecutionContext, "return": ExecutionContext}

FUNCTIONS = {
    "start": Function([WORKER, f"{WORKER}.runner"], "()", {"return": NoneType}),
    "detect_resources": Function([CONTEXT, f"{CONTEXT}.utils"], "()", {"return": Resources}),
    "pull_latest_image": Function([PIPELINE, f"{STEPS}.pull_latest_image"], "(ctx)", STEP),
    "start_oprun": Function([PIPELINE, f"{STEPS}.start_oprun"], "(ctx)", STEP),
    "complete_oprun": Function([f"{STEPS}.complete_oprun"], "(ctx)", STEP),
    "cleanup_op_dir": Function([f"{STEPS}.cleanup_op_dir"], "(ctx)", STEP),
}

CLASSES = {
    "ExecutionContext": Class(
        [WORKER, PIPELINE, f"{PIPELINE}.types.context"],
        "(oprun_id='', image='', constraints=<factory>, inputs=<factory>, outputs=<factory>, "
        "env_vars=<factory>, volumes=<factory>, logs='', exit_code=None, extras=<factory>)",
        {
            "oprun_id": str,
            "image": str,
            "constraints": Dict,
            "inputs": Dict,
            "outputs": Dict,
            "env_vars": dict[str, str],
            "volumes": dict[str, str],
            "logs": str,
            "exit_code": int | None,
            "extras": Dict,
        },
    ),
    "WorkerContext": Class(
        [WORKER, CONTEXT, f"{CONTEXT}.types"],
        "(worker_id='', resources=<factory>, tags=<factory>, running_ops=<factory>)",
        {
            "worker_id": str,
            "resources": Resources,
            "tags": list[str],
            "running_ops": list[RunningOp],
        },
        {
            "add_running_op": method(
                "(self, oprun_id, image, inputs, constraints=None)",
                oprun_id=str,
                image=str,
                inputs=Dict,
                constraints=Dict | None,
                **{"return": NoneType},
            ),
            "remove_running_op": method("(self, oprun_id)", oprun_id=str, **{"return": NoneType}),
            "set_run_state": method(
                "(self, run_id, state)", run_id=str, state=str, **{"return": NoneType}
            ),
            "get_run_state": method("(self, run_id)", run_id=str, **{"return": str | None}),
            "is_run_cancelled": method("(self, run_id)", run_id=str, **{"return": bool}),
            "clear_running_ops": method("(self)", **{"return": NoneType}),
            "to_heartbeat_payload": method("(self)", **{"return": Dict}),
        },
    ),
    "GPU": Class(
        [CONTEXT, f"{CONTEXT}.types"],
        "(id, vram_mb, tags=<factory>)",
        {"id": int, "vram_mb": int, "tags": list[str]},
        {"to_dict": method("(self)", **{"return": Dict})},
    ),
    "Resources": Class(
        [CONTEXT, f"{CONTEXT}.types"],
        "(cpu_cores=0, ram_mb=0, gpus=<factory>)",
        {"cpu_cores": int, "ram_mb": int, "gpus": list[GPU]},
        {"to_dict": method("(self)", **{"return": Dict})},
    ),
    "RunningOp": Class(
        [CONTEXT, f"{CONTEXT}.types"],
        "(id, image, inputs=<factory>, constraints=<factory>, state=None)",
        {"id": str, "image": str, "inputs": Dict, "constraints": Dict, "state": str | None},
        {"to_heartbeat_dict": method("(self)", **{"return": Dict})},
    ),
    "Pipeline": Class(
        [PIPELINE, f"{PIPELINE}.pipeline"],
        "(steps=None)",
        methods={
            "run": method(
                "(self, ctx=None)", ctx=ExecutionContext | None, **{"return": ExecutionContext}
            )
        },
    ),
    "Step": Class(
        [PIPELINE, f"{PIPELINE}.types.step"],
        "(*args, **kwargs)",
        methods={"__call__": method("(self, ctx)", ctx=ExecutionContext)},
    ),
    "PrepareInputs": Class(
        [f"{STEPS}.prepare_inputs"], "()", methods={"__call__": method("(self, ctx)", **STEP)}
    ),
    "RunContainer": Class(
        [f"{STEPS}.run_container"], "()", methods={"__call__": method("(self, ctx)", **STEP)}
    ),
}


def found(module: str, name: str) -> Any:
    return getattr(import_module(module), name)


def signature_of(function: Any) -> str:
    """Return the signature as documented, without annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def check_function(function: Any, documented: Function) -> None:
    assert signature_of(function) == documented.signature
    hints = get_type_hints(function)
    assert {name: hints.get(name) for name in documented.types} == documented.types


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_documented_function_is_what_the_documentation_says(name: str) -> None:
    documented = FUNCTIONS[name]
    check_function(found(documented.modules[0], name), documented)


@pytest.mark.parametrize("name", CLASSES)
def test_a_documented_class_is_made_as_the_documentation_says(name: str) -> None:
    documented = CLASSES[name]
    cls = found(documented.modules[0], name)
    assert inspect.isclass(cls)
    assert signature_of(cls) == documented.signature
    for method_name, entry in documented.methods.items():
        check_function(getattr(cls, method_name), entry)


@pytest.mark.parametrize("name", [name for name, entry in CLASSES.items() if entry.fields])
def test_a_documented_dataclass_has_its_fields_in_order(name: str) -> None:
    documented = CLASSES[name]
    cls = found(documented.modules[0], name)
    assert cls.__bases__ == (object,)
    assert is_dataclass(cls)
    assert [f.name for f in fields(cls)] == list(documented.fields)
    hints = get_type_hints(cls)
    assert {f.name: hints[f.name] for f in fields(cls)} == documented.fields


@pytest.mark.parametrize("name", [name for name, entry in CLASSES.items() if entry.fields])
def test_each_instance_has_containers_of_its_own(name: str) -> None:
    cls = found(CLASSES[name].modules[0], name)
    required = {
        p.name: "x" for p in inspect.signature(cls).parameters.values() if p.default is p.empty
    }
    one, other = cls(**required), cls(**required)
    assert one == other
    for attribute in CLASSES[name].fields:
        value = getattr(one, attribute)
        if isinstance(value, dict | list):
            assert not value
            assert cast("Any", value) is not getattr(other, attribute)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_all_import_paths_lead_to_the_same_object(name: str) -> None:
    modules = (FUNCTIONS.get(name) or CLASSES[name]).modules
    assert len({id(found(module, name)) for module in modules}) == 1


@pytest.mark.parametrize("module", [WORKER, f"{WORKER}.runner", PIPELINE, CONTEXT])
def test_a_package_exports_what_is_documented_there(module: str) -> None:
    documented = {name for name, entry in (FUNCTIONS | CLASSES).items() if module in entry.modules}
    assert documented <= set(import_module(module).__all__)


def test_step_is_a_protocol_that_functions_and_objects_follow() -> None:
    assert getattr(found(PIPELINE, "Step"), "_is_protocol", False)


def test_the_singletons_are_there() -> None:
    assert isinstance(found(PIPELINE, "execution_pipeline"), found(PIPELINE, "Pipeline"))
    assert isinstance(found(CONTEXT, "worker_context"), found(CONTEXT, "WorkerContext"))


def test_the_client_takes_the_worker_s_heartbeat_as_documented() -> None:
    heartbeat = found("gyoza.client", "gyoza_client").heartbeat
    payload = found(CONTEXT, "WorkerContext")(worker_id="w").to_heartbeat_payload()
    assert list(payload) == ["worker_id", "resources", "tags", "running_ops"]
    inspect.signature(heartbeat).bind(**payload)  # raises a TypeError if it does not fit


def test_the_documented_states_are_the_states() -> None:
    documented = {"PENDING", "ASSIGNED", "RUNNING", "CANCELLED", "COMPLETED", "FAILED"}
    assert {state.value for state in OpRunState} == documented

"""The worker context and its singleton."""

import json
import os
import subprocess
import sys
from typing import Any

from gyoza.worker.worker_context import GPU, Resources, RunningOp, WorkerContext


def test_the_heartbeat_payload_has_the_worker_s_whole_state() -> None:
    context = WorkerContext("w1", Resources(4, 8000, [GPU(0, 100, ["cuda"])]), tags=["fast"])
    context.add_running_op("r1", "image", {"a": 1}, {"cpu": 2})
    context.set_run_state("r1", "RUNNING")
    expected = {
        "worker_id": "w1",
        "resources": {
            "cpu_cores": 4,
            "ram_mb": 8000,
            "gpus": [{"id": 0, "vram_mb": 100, "tags": ["cuda"]}],
        },
        "tags": ["fast"],
        "running_ops": [
            {"id": "r1", "image": "image", "inputs": {"a": 1}, "constraints": {"cpu": 2}}
        ],
    }
    assert context.to_heartbeat_payload() == expected
    assert json.loads(json.dumps(expected)) == expected
    assert GPU(0, 100).to_dict() == {"id": 0, "vram_mb": 100, "tags": []}


def test_a_run_s_state_is_unknown_until_the_server_tells_it() -> None:
    context = WorkerContext()
    context.add_running_op("r1", "image", {})
    assert context.running_ops == [RunningOp("r1", "image")]
    assert context.get_run_state("r1") is None
    assert not context.is_run_cancelled("r1")
    context.set_run_state("r1", "CANCELLED")
    assert context.get_run_state("r1") == "CANCELLED"
    assert context.is_run_cancelled("r1")


def test_runs_that_are_not_listed_have_no_state() -> None:
    context = WorkerContext()
    context.set_run_state("r1", "RUNNING")
    context.remove_running_op("r1")
    assert context.get_run_state("r1") is None
    assert not context.is_run_cancelled("r1")
    assert context.running_ops == []


def test_removing_a_run_that_is_listed_twice_takes_the_older_entry() -> None:
    context = WorkerContext()
    context.add_running_op("r0", "other", {})
    context.add_running_op("r1", "image", {})
    context.set_run_state("r1", "CANCELLED")
    context.add_running_op("r1", "image", {})
    assert not context.is_run_cancelled("r1")
    context.remove_running_op("r1")
    assert [(op.id, op.state) for op in context.running_ops] == [("r0", None), ("r1", None)]


def test_clearing_removes_all_running_ops() -> None:
    context = WorkerContext()
    context.add_running_op("r1", "image", {})
    context.clear_running_ops()
    assert context.to_heartbeat_payload()["running_ops"] == []


def _singleton(code: str, **environ: str) -> Any:
    """Run `code` in a fresh interpreter and return the JSON it prints."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GYOZA_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | environ,
        capture_output=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_the_singleton_takes_its_id_and_tags_from_the_environment() -> None:
    code = """
import json
from gyoza.worker.worker_context import worker_context as w
print(json.dumps([w.worker_id, w.tags]))
"""
    given = _singleton(code, GYOZA_WORKER_ID="w9", GYOZA_WORKER_TAGS="gpu, fast,,")
    assert given == ["w9", ["gpu", "fast"]]
    assert _singleton(code) == ["", []]


def test_the_singleton_detects_its_resources_when_first_looked_at() -> None:
    code = """
import json, sys
from gyoza.worker.worker_context import Resources, worker_context as w
before = "pynvml" in sys.modules
found = w.resources
assert type(found) is Resources and w.resources is found and found.cpu_cores > 0
assert w.to_heartbeat_payload()["resources"] == found.to_dict()
w.resources = Resources(1, 2)
try:
    w.nonsense
except AttributeError as error:
    sentence = str(error)
print(json.dumps([before, "pynvml" in sys.modules, w.resources.ram_mb, sentence]))
"""
    before, after, ram_mb, sentence = _singleton(code)
    assert not before
    assert after
    assert ram_mb == 2
    assert "nonsense" in sentence


def test_the_singleton_is_a_worker_context_with_lazy_resources() -> None:
    from gyoza.worker.worker_context import worker_context

    assert isinstance(worker_context, WorkerContext)
    assert worker_context.resources.cpu_cores >= 1
    assert worker_context.resources is worker_context.resources
    assert not hasattr(worker_context, "nonsense")

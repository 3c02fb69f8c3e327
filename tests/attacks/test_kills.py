"""What ended an op: memory, its time limit, somebody else, itself. Nobody is blamed wrongly.

The engine's flag for memory says that *some* process of the container was killed; together with the
exit code, and with who has sent a signal, it tells what happened.
"""

from typing import Any

import pytest
import trio

from gyoza.worker.containers.docker_engine import open_docker_engine
from gyoza.worker.containers.labels import of_worker
from tests.e2e.conftest import OpenSystem, System, busybox_image, open_system, python_image

__all__ = ["busybox_image", "open_system", "python_image"]

pytestmark = pytest.mark.docker

LIMIT_S = 200
LIMIT = {"ram_mb": 24}
READY = 'echo ::gyoza::\'{"type":"PROGRESS","msg":1}\'; '
# A child of the shell that takes all the memory there is; the shell sees it die. Then it counts a
# while, without another process: until the memory is free again, and the engine has heard of it.
GREEDY_CHILD = "tail /dev/zero; code=$?; i=0; while [ $((i += 1)) -lt 150000 ]; do :; done; "
OF_MEMORY = "killed for using more memory than its limit of 24 MB"


async def begun(system: System, image: str, script: str, **options: Any) -> str:
    """Submit a run, and return its id once it is where it says so."""
    run_id = await system.run(image, command=["sh", "-c", script], **options)
    await system.until(run_id, lambda run: run["progress"] == 1)
    return run_id


async def end_of(system: System, image: str, command: list[str], **options: Any) -> dict[str, Any]:
    """Execute a run and return it."""
    return await system.end_of(await system.run(image, command=command, **options))


def failure(run: dict[str, Any]) -> tuple[str, int, str]:
    """Return why a run failed: reason, exit code, sentence."""
    assert run["state"] == "FAILED"
    summary = run["execution_summary"]
    return summary["reason"], summary["exit_code"], summary["error_message"]


def told(run: dict[str, Any]) -> list[str]:
    """Return the sentences of the run's INFO events."""
    return [event["msg"] for event in run["events"] if event["type"] == "INFO"]


async def test_an_op_that_takes_all_memory(
    open_system: OpenSystem, busybox_image: str, python_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            shell = await system.end_for_memory(busybox_image, ["tail", "/dev/zero"], **LIMIT)
            take = ["python", "-c", "bytearray(2**30)"]
            python = await system.end_for_memory(python_image, take, **LIMIT)
    expected = ("OUT_OF_MEMORY", 137, f"The op was {OF_MEMORY}.")
    assert failure(shell) == failure(python) == expected


async def test_a_child_that_takes_all_memory_under_an_op_that_goes_on(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            script = ["sh", "-c", GREEDY_CHILD + "exit 0"]
            run = await end_of(system, busybox_image, script, constraints=LIMIT)
    assert run["state"] == "COMPLETED"
    assert told(run).count(f"A process of the op was {OF_MEMORY}; the op went on.") == 1


@pytest.mark.parametrize(
    ("last", "reason", "code", "sentence"),
    [
        (
            "exit 1",
            "EXIT_CODE",
            1,
            f"The op exited with code 1. Before that one of its processes was {OF_MEMORY}.",
        ),
        ("exit $code", "OUT_OF_MEMORY", 137, f"The op was {OF_MEMORY}."),
    ],
)
async def test_a_child_that_takes_all_memory_under_an_op_that_fails_then(
    last: str,
    reason: str,
    code: int,
    sentence: str,
    open_system: OpenSystem,
    busybox_image: str,
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            script = ["sh", "-c", GREEDY_CHILD + last]
            run = await end_of(system, busybox_image, script, constraints=LIMIT)
    assert failure(run) == (reason, code, sentence)


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("kill -SEGV $$", 139, "ended by SIGSEGV (an invalid memory access)."),
        ("kill -ABRT $$", 134, "ended by SIGABRT (it gave itself up)."),
        ("kill -TERM $$", 143, "ended by SIGTERM, which gyoza did not send."),
        ("kill -KILL $$", 137, "ended by SIGKILL, which gyoza did not send; perhaps the machine"),
        ("exit 137", 137, "that of a program ended by SIGKILL, which gyoza did not send"),
        ("exit 200", 200, "The op exited with code 200."),
    ],
)
async def test_an_op_that_ends_itself_by_a_signal_or_pretends_to(
    script: str, code: int, words: str, open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run = await end_of(system, busybox_image, ["sh", "-c", script], constraints=LIMIT)
    reason, exit_code, sentence = failure(run)
    assert (reason, exit_code) == ("EXIT_CODE", code)
    assert words in sentence


@pytest.mark.parametrize(("signal", "code"), [("SIGKILL", 137), ("SIGTERM", 143)])
async def test_somebody_who_kills_the_container_while_the_worker_watches(
    signal: str, code: int, open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system, open_docker_engine() as engine:
            run_id = await begun(system, busybox_image, READY + "exec sleep 600")
            [container] = await engine.list(of_worker(system.worker.settings.worker_id))
            if signal == "SIGKILL":
                await engine.kill(container.id)
            else:
                await engine.ask_to_stop(container.id)
            run = await system.end_of(run_id)
    reason, exit_code, sentence = failure(run)
    assert (reason, exit_code) == ("EXIT_CODE", code)
    assert f"ended by {signal}, which gyoza did not send" in sentence


@pytest.mark.parametrize("grace_s", [0, 0.2])
async def test_an_op_past_its_time_limit_that_has_lost_a_child_for_memory(
    grace_s: float, open_system: OpenSystem, busybox_image: str
) -> None:
    script = "trap '' TERM; " + GREEDY_CHILD + READY + "sleep 600"
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run = await end_of(
                system,
                busybox_image,
                ["sh", "-c", script],
                constraints=LIMIT,
                timeout_s=8,
                grace_s=grace_s,
            )
    summary = run["execution_summary"]
    assert (run["state"], summary["reason"]) == ("FAILED", "TIMED_OUT")
    assert run["progress"] == 1
    assert summary["error_message"] == (
        "The op ran longer than its limit of 8 s. Before its end one of its processes was killed "
        "for memory."
    )


async def test_an_op_past_its_time_limit_that_only_our_own_kill_can_end(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run = await end_of(
                system,
                busybox_image,
                ["sh", "-c", "trap '' TERM; sleep 600"],
                constraints=LIMIT,
                timeout_s=0.5,
                grace_s=0.1,
            )
    summary = run["execution_summary"]
    assert (summary["reason"], summary["error_message"]) == (
        "TIMED_OUT",
        "The op ran longer than its limit of 0.5 s.",
    )


async def test_a_cancelled_op_that_takes_all_memory_while_it_is_stopped(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = "trap 'exec tail /dev/zero' TERM; " + READY + "while :; do sleep 0.05; done"
    with trio.fail_after(LIMIT_S):
        async with open_system() as system:
            run_id = await begun(system, busybox_image, script, constraints=LIMIT)
            await system.client.cancel_run(run_id)
            await system.worker.active.wait_until_gone(run_id)
            run = await system.client.get_run(run_id)
    assert run["state"] == "CANCELLED"
    assert "FAILED" not in [event["type"] for event in run["events"]]

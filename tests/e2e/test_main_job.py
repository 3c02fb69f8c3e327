"""The main job, end to end."""

import json

import pytest
import trio

from tests.e2e.conftest import OpenSystem

pytestmark = pytest.mark.docker

DOUBLE = """
import gyoza_op
gyoza_op.progress(50)
gyoza_op.info("doubling", n=gyoza_op.inputs()["n"])
print("ordinary words")
gyoza_op.outputs({"doubled": gyoza_op.inputs()["n"] * 2})
"""


async def test_a_python_op_gets_inputs_and_its_events_logs_and_outputs_arrive(
    open_system: OpenSystem, python_image: str
) -> None:
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(python_image, {"n": 21}, command=["python", "-c", DOUBLE])
            run = await system.end_of(run_id)
            logs = await system.client.get_logs(run_id)
    assert run["state"] == "COMPLETED"
    assert run["outputs"] == {"doubled": 42}
    assert run["progress"] == 100
    assert [e["type"] for e in run["events"] if e["type"] != "INFO"] == [
        "ASSIGNED",
        "STARTED",
        "PROGRESS",
        "COMPLETED",
    ]
    assert [e["payload"] for e in run["events"] if e["msg"] == "doubling"] == [{"n": 21}]
    assert logs == "ordinary words\n"
    summary = run["execution_summary"]
    assert (summary["exit_code"], summary["worker_id"]) == (0, run["worker_id"])
    assert summary["duration_ms"] > 0


async def test_a_shell_op_reads_json_and_its_environment(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = (
        'cat "$GYOZA_INPUT_JSON_PATH"; echo " $COLOUR $GYOZA_ATTEMPT"; '
        'echo \'{"done": true}\' > "$GYOZA_OUTPUT_PATH"'
    )
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(
                busybox_image,
                {"word": "gyōza"},
                command=["sh", "-c", script],
                env_vars={"COLOUR": "red"},
            )
            run = await system.end_of(run_id)
            logs = await system.client.get_logs(run_id)
    assert run["outputs"] == {"done": True}
    words, colour, attempt = logs.rsplit(maxsplit=2)
    assert json.loads(words) == {"word": "gyōza"}
    assert (colour, attempt) == ("red", "1")


async def test_a_cancel_reaches_the_container_and_the_slot_is_free_again(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = 'trap \'echo got it; exit 0\' TERM; echo ::gyoza::\'{"type":"PROGRESS","msg":1}\'; '
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(
                busybox_image, command=["sh", "-c", script + "while :; do sleep 0.1; done"]
            )
            await system.until(run_id, lambda run: run["progress"] == 1)
            await system.client.cancel_run(run_id)
            await system.worker.active.wait_until_gone(run_id)
            run = await system.client.get_run(run_id)
            logs = await system.client.get_logs(run_id)
            free = system.worker.active.free_slots
    assert run["state"] == "CANCELLED"
    assert "FAILED" not in [e["type"] for e in run["events"]]
    assert logs == "got it\n"
    assert free == 8


async def test_a_failing_op_says_why_with_its_last_words(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(busybox_image, command=["sh", "-c", "echo oh no >&2; exit 7"])
            run = await system.end_of(run_id)
    assert run["state"] == "FAILED"
    summary = run["execution_summary"]
    assert (summary["reason"], summary["exit_code"]) == ("EXIT_CODE", 7)
    assert summary["error_message"] == "The op exited with code 7."
    assert run["events"][-1]["payload"]["log_tail"] == "oh no"


async def test_a_failing_op_is_tried_again_as_its_policy_says(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = 'test "$GYOZA_ATTEMPT" = 2'
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(
                busybox_image,
                command=["sh", "-c", script],
                retry_policy={"max_attempts": 3, "backoff_s": 0},
            )
            run = await system.end_of(run_id)
            run = await system.until(run_id, lambda run: run["state"] == "COMPLETED")
            attempts = await system.client.get_attempts(run_id)
    assert run["current_attempt"] == 2
    assert [attempt["state"] for attempt in attempts] == ["FAILED", "COMPLETED"]


async def test_out_of_memory_and_time_out_are_told_apart(
    open_system: OpenSystem, python_image: str, busybox_image: str
) -> None:
    eat = "x = b'x' * (512 * 1024 * 1024)"
    with trio.fail_after(200):
        async with open_system(grace_s=0) as system:
            slow = await system.run(busybox_image, command=["sleep", "60"], timeout_s=0.5)
            greedy = await system.end_for_memory(python_image, ["python", "-c", eat], ram_mb=64)
            ends = [greedy, await system.end_of(slow)]
    reasons = [run["execution_summary"]["reason"] for run in ends]
    assert reasons == ["OUT_OF_MEMORY", "TIMED_OUT"]


async def test_a_missing_image_a_missing_program_and_bad_output_each_say_so(
    open_system: OpenSystem, busybox_image: str
) -> None:
    with trio.fail_after(200):
        async with open_system() as system:
            runs = [
                await system.run("gyoza-no-such-image"),
                await system.run(busybox_image, command=["no-such-program"]),
                await system.run(
                    busybox_image, command=["sh", "-c", 'echo nonsense > "$GYOZA_OUTPUT_PATH"']
                ),
            ]
            ends = [(await system.end_of(run_id))["execution_summary"] for run_id in runs]
    assert [end["reason"] for end in ends] == ["IMAGE_PULL", "EXIT_CODE", "OUTPUT_INVALID"]
    assert "gyoza-no-such-image" in ends[0]["error_message"]
    assert ends[1]["error_message"] == (
        "The op exited with code 127: its command was not found in the image."
    )
    assert all("Traceback" not in end["error_message"] for end in ends)


async def test_sixty_runs_at_concurrency_fifty_all_complete(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = 'sleep 3; echo "{\\"n\\": $0}" > "$GYOZA_OUTPUT_PATH"'
    with trio.fail_after(200):
        async with open_system(max_concurrency=50) as system:
            runs = [
                await system.run(busybox_image, command=["sh", "-c", script, str(n)])
                for n in range(60)
            ]
            ends = [await system.end_of(run_id) for run_id in runs]
    assert [end["outputs"] for end in ends] == [{"n": n} for n in range(60)]
    assert all(end["current_attempt"] == 1 for end in ends)


async def test_log_text_can_be_followed_while_the_op_runs(
    open_system: OpenSystem, busybox_image: str
) -> None:
    script = "echo first; while ! test -e /gyoza/go; do sleep 0.05; done; echo last"
    with trio.fail_after(200):
        async with open_system() as system:
            run_id = await system.run(busybox_image, command=["sh", "-c", script])
            text = ""
            async for piece in system.client.follow_logs(run_id):
                text += piece
                if text == "first\n":
                    [op_dir] = system.worker.settings.work_dir.iterdir()
                    await trio.Path(op_dir / "gyoza" / "go").touch()
            run = await system.end_of(run_id)
    assert text == "first\nlast\n"
    assert run["state"] == "COMPLETED"

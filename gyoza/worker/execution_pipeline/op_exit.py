"""What came of a container that has ended: the op's own exit, its time limit, or neither."""

from gyoza.models import ReleaseReason
from gyoza.worker.containers.engine import KILLED, ContainerEngine, ContainerExit
from gyoza.worker.errors import EngineError, RunInterrupted
from gyoza.worker.run_record import Exit, RunRecord

STOPPED = 143
"""Exit code of a container that was ended by SIGTERM, whoever sent it."""

LOST = 255
"""Exit code that an engine gives to a container whose end it has missed; many programs use it."""


async def op_exit(
    engine: ContainerEngine,
    record: RunRecord,
    container_id: str,
    exited: ContainerExit,
    *,
    watched: bool,
) -> Exit:
    """Return the op's own exit, or that at its time limit.

    Args:
        engine: The engine the container is on.
        record: Says whether an earlier life of the worker had begun to stop it.
        container_id: Its id.
        exited: How it ended.
        watched: Somebody of ours waited for it from before its end.

    Raises:
        RunInterrupted: If the engine, the machine or an earlier life of the worker ended it.
        EngineError: If the engine could not run it.
    """
    if record.stopping:
        return exit_of_stopped(record, exited.exit_code, exited.oom_killed)
    for_memory = exited.oom_killed and exited.exit_code == KILLED
    unseen = not for_memory and (exited.unseen or not watched)
    if unseen and await _ended_from_outside(engine, container_id, exited.exit_code):
        raise RunInterrupted(
            f"The container was ended (exit code {exited.exit_code}), and not by the op.",
            ReleaseReason.ENGINE_RESTARTED if exited.unseen else ReleaseReason.WORKER_RESTARTED,
        )
    if exited.error:
        raise EngineError(f"The engine could not run the container: {exited.error}")
    return Exit(exited.exit_code, exited.oom_killed)


def exit_of_stopped(record: RunRecord, exit_code: int = KILLED, oom_killed: bool = False) -> Exit:
    """Return the exit at the time limit of a container that the worker had begun to stop.

    The stop decides, whatever the container ended with: an op may answer a signal with any code.

    Raises:
        RunInterrupted: If it was stopped for another reason.
    """
    if record.timed_out or record.filled:
        return Exit(exit_code, oom_killed, record.timed_out, record.filled)
    raise RunInterrupted(
        "An earlier start of this worker had begun to stop it.", ReleaseReason.WORKER_RESTARTED
    )


async def _ended_from_outside(engine: ContainerEngine, container_id: str, exit_code: int) -> bool:
    """Return whether a container that nobody watched was killed, stopped or lost, it seems."""
    if exit_code == LOST:
        return not await engine.saw_exit(container_id)
    return exit_code in (KILLED, STOPPED)

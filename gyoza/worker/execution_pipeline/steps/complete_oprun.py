"""Complete OpRun step - sends COMPLETED or FAILED event to master."""

import logging

from gyoza.client import ApiError
from gyoza.models import EventType, FailureReason
from gyoza.worker.containers.engine import KILLED
from gyoza.worker.errors import LeaseLost, OutputInvalid
from gyoza.worker.execution_pipeline.run_scope import report_failed, scope_of, summary_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.op_io.outputs import read_outputs

# Codes of shells and of the engine's init. Signals are Linux's, whatever the worker runs on; a
# program may as well choose such a code by itself, which nobody can tell from outside.
_BY = ": that of a program ended by"
_MEANINGS = {
    126: ": its command could not be executed",
    127: ": its command was not found in the image",
    129: f"{_BY} SIGHUP",
    130: f"{_BY} SIGINT",
    131: f"{_BY} SIGQUIT",
    132: f"{_BY} SIGILL (an instruction that this processor does not know)",
    134: f"{_BY} SIGABRT (it gave itself up)",
    135: f"{_BY} SIGBUS (often /dev/shm or another memory file is full)",
    136: f"{_BY} SIGFPE (such as a division by zero)",
    KILLED: f"{_BY} SIGKILL, which gyoza did not send; perhaps the machine ran out of memory",
    139: f"{_BY} SIGSEGV (an invalid memory access)",
    141: f"{_BY} SIGPIPE",
    143: f"{_BY} SIGTERM, which gyoza did not send",
    152: f"{_BY} SIGXCPU (its limit of CPU time)",
    153: f"{_BY} SIGXFSZ (its limit of file size)",
    159: f"{_BY} SIGSYS (a system call that is not allowed)",
}

logger = logging.getLogger(__name__)


async def complete_oprun(ctx: ExecutionContext) -> ExecutionContext:
    """Send COMPLETED with the outputs, or FAILED, by the container's exit code.

    A server that answers 400 or 409 (the run has ended there, or went to another worker) is
    believed: the report is left out and nothing is raised.

    Args:
        ctx: Execution context with `exit_code` and `env_vars` set.

    Returns:
        The context, with `outputs` on success.

    Raises:
        OutputInvalid: If the op's outputs are not plain data, or the server finds them too large.
    """
    if ctx.exit_code != 0:
        await report_failed(ctx, *_failure(ctx))
        return ctx
    scope = scope_of(ctx)
    if ctx.extras.get("oom_killed"):
        told = f"A process of the op was killed for using {_too_much(ctx)}; the op went on."
        scope.reporter.note(EventType.INFO, told)
    ctx.outputs = await scope.in_thread(read_outputs, scope.record.directory)
    try:
        await scope.report_end(EventType.COMPLETED, "completed", ctx.outputs, summary_of(ctx))
    except LeaseLost as lost:
        logger.info("Run %s is not this worker's any more: %s", ctx.oprun_id, lost)
    except ApiError as refusal:
        if refusal.status != 400:
            raise OutputInvalid(f"The server refuses the outputs: {refusal}") from refusal
        scope.reporter.settled = True
    return ctx


def _failure(ctx: ExecutionContext) -> tuple[FailureReason, str]:
    """Return why a container with this exit code failed, and the sentence for it.

    The engine's flag alone tells no more than that some process was killed for memory: an op that
    lived on and chose its exit code may have failed of anything.
    """
    killed_for_memory = ctx.extras.get("oom_killed", False)
    if killed_for_memory and ctx.exit_code == KILLED:
        return FailureReason.OUT_OF_MEMORY, f"The op was killed for using {_too_much(ctx)}."
    meaning = _MEANINGS.get(ctx.exit_code or 0, "")
    sentence = f"The op exited with code {ctx.exit_code}{meaning}."
    if killed_for_memory:
        sentence += f" Before that one of its processes was killed for using {_too_much(ctx)}."
    return FailureReason.EXIT_CODE, sentence


def _too_much(ctx: ExecutionContext) -> str:
    limit = ctx.constraints.get("ram_mb")
    return f"more memory than {f'its limit of {limit} MB' if limit else 'what the machine had'}"

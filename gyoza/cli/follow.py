"""`gyoza run --follow`: one task reads a run's events, one its log, until the run has ended."""

import errno
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

import trio

from gyoza.cli.errors import ExitCode
from gyoza.cli.output import note, print_json, read_as
from gyoza.cli.views import View, open_view
from gyoza.client import Access, AsyncGyozaClient, GyozaClient
from gyoza.models import OpRun, OpRunState

POLL_S = 20.0
"""Seconds the server may hold back an answer that would say nothing new."""

LOG_TAIL_S = 10.0
"""Seconds the log may take to end once the run has."""


def follow_run(access: Access, run_id: str, as_json: bool = False) -> ExitCode:
    """Show a run until it has ended, then its outputs or why it failed.

    Ctrl-C on a terminal asks whether to cancel the run; a second one, or "no", leaves it running.

    Args:
        access: How the clients reach the server.
        run_id: The run.
        as_json: Print the run as it ended as one JSON document instead of logs and outputs.
    """
    note(f"Run {run_id}")
    run = _watch_until_interrupted(access, run_id, as_json)
    if run is None and _wants_cancel(run_id):
        with GyozaClient(access) as client:
            client.cancel_run(run_id)
        run = _watch_until_interrupted(access, run_id, as_json)
    if run is None:
        note(
            f"Run {run_id} goes on: `gyoza runs logs -f {run_id}` follows it, "
            f"`gyoza runs cancel {run_id}` ends it."
        )
        return ExitCode.INTERRUPTED
    return _conclude(run, as_json)


def _wants_cancel(run_id: str) -> bool:
    if not sys.stdin.isatty():
        return False
    with suppress(KeyboardInterrupt, EOFError):
        print(f"Cancel run {run_id}? [y/N] ", end="", file=sys.stderr, flush=True)
        return input().strip().lower() in ("y", "yes")
    print(file=sys.stderr)
    return False


def _conclude(run: OpRun, as_json: bool) -> ExitCode:
    if as_json:
        print_json(run.to_dict())
    elif run.state is OpRunState.COMPLETED:
        print_json(run.outputs)
    if run.state is OpRunState.COMPLETED:
        return ExitCode.OK
    why = run.execution_summary.error_message
    note(f"Run {run.id} is {run.state}" + (f": {why}" if why else "."))
    return ExitCode.FAILED


def _watch_until_interrupted(access: Access, run_id: str, as_json: bool) -> OpRun | None:
    """Return the run as it ended, or None if Ctrl-C came first."""
    try:
        return trio.run(_watch, access, run_id, as_json)
    except BaseExceptionGroup as group:
        if group.subgroup(BrokenPipeError) is None:
            raise
        # A reader like `head` has gone: known to typer, if it comes without its group.
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


async def _watch(access: Access, run_id: str, as_json: bool) -> OpRun | None:
    run = None
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with AsyncGyozaClient(access) as client, trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
            with open_view(as_json) as view:
                run = await _follow(client, run_id, view)
            nursery.cancel_scope.cancel()
    return run


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _follow(client: AsyncGyozaClient, run_id: str, view: View) -> OpRun:
    to_logs, attempts = trio.open_memory_channel[int](math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stream_logs, client, run_id, attempts, view)
        with to_logs:
            run = await _stream_events(client, run_id, to_logs, view)
        nursery.cancel_scope.deadline = trio.current_time() + LOG_TAIL_S
    return run


async def _stream_events(
    client: AsyncGyozaClient, run_id: str, attempts: trio.MemorySendChannel[int], view: View
) -> OpRun:
    run = read_as(OpRun.from_dict, await client.get_run(run_id))
    seen, attempt = -1, 0
    while True:
        while attempt < run.current_attempt:
            attempt += 1
            attempts.send_nowait(attempt)
        for event in run.events:
            if event.id > seen:
                seen = event.id
                view.event(event)
        view.run(run)
        if run.state.terminal:
            return run
        answer = await client.get_run(run_id, after_event=seen, wait_s=POLL_S)
        run = read_as(OpRun.from_dict, answer)


async def _stream_logs(
    client: AsyncGyozaClient, run_id: str, attempts: trio.MemoryReceiveChannel[int], view: View
) -> None:
    async for attempt in attempts:
        async with aclosing(client.follow_logs(run_id, attempt=attempt)) as chunks:
            async for text in chunks:
                view.log(text)
        view.end_of_log()

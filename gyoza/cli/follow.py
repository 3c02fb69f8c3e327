"""`gyoza run --follow`: one task reads a run's events, one its log, until the run has ended.

Whoever reads what is shown may be slow: it is written in threads, which Ctrl-C leaves behind, and
what he has not taken yet is asked for when he has.
"""

import errno
import math
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from gyoza.cli.errors import CliError, ExitCode
from gyoza.cli.outages import PATIENCE_S, Outages, is_away
from gyoza.cli.output import confirmed, note, print_json, read_as
from gyoza.cli.views import Streams, View, open_view
from gyoza.cli.words import ending
from gyoza.client import (
    Access,
    ApiError,
    AsyncGyozaClient,
    ClientError,
    GyozaClient,
    LogIncomplete,
    LogPiece,
    endpoints,
)
from gyoza.client.long_poll import LongPoll
from gyoza.client.retry import FOLLOW, NEVER
from gyoza.models import EventEntry, OpRun, OpRunState

POLL_S = 20.0
"""Seconds the server may hold back an answer that would say nothing new, unless that is cut."""


@dataclass
class _Shown:
    """How far a run has been shown, from one look at it to the next.

    Attributes:
        event: The id of the last event.
        attempt: The attempt whose log comes next.
        offset: Bytes of that log.
        gap: Why some of the log is missing.
    """

    event: int = -1
    attempt: int = 1
    offset: int = 0
    gap: LogIncomplete | None = None


def follow_run(access: Access, run_id: str, as_json: bool = False) -> ExitCode:
    """Show a run until it has ended, then its outputs, and how it ended.

    Ctrl-C on a terminal asks whether to cancel the run; a second one, or "no", leaves it running.

    Args:
        access: How the clients reach the server.
        run_id: The run.
        as_json: Print the run as it ended as one JSON document instead of logs and outputs.

    Raises:
        CliError: If the server is away for too long; says that the run goes on.
        ClientError: The same, of its log.
        ApiError: If the server refuses.
    """
    note(f"Run {run_id}")
    following = _Following(access, run_id, Streams.standard(as_json))
    run = following.watch()
    if run is None and _wants_cancel(run_id):
        with GyozaClient(access) as client:
            client.cancel_run(run_id)
        run = following.watch()
    if run is None:
        note(
            f"Run {run_id} goes on: `gyoza runs logs -f {run_id}` follows it, "
            f"`gyoza runs cancel {run_id}` ends it."
        )
        return ExitCode.INTERRUPTED
    if as_json:
        with GyozaClient(access) as client:  # what was followed is the news of it alone
            print_json(client.get_run(run_id))
    elif run.state is OpRunState.COMPLETED:
        print_json(run.outputs)
    sys.stdout.flush()  # what it ended with is said last, wherever both streams go
    gap = following.shown.gap
    if gap is not None:
        note(str(gap))
    note(ending(run))
    if run.state is not OpRunState.COMPLETED:
        return ExitCode.FAILED
    return ExitCode.OK if gap is None else ExitCode.SERVER


def _wants_cancel(run_id: str) -> bool:
    return sys.stdin.isatty() and confirmed(f"Cancel run {run_id}?")


class _Following:
    """One run as it is followed, with interruptions.

    Args:
        access: How the clients reach the server.
        run_id: The run.
        streams: Where it is shown.
    """

    def __init__(self, access: Access, run_id: str, streams: Streams) -> None:
        self._access = access
        self._run_id = run_id
        self._streams = streams
        self.shown = _Shown()

    def watch(self) -> OpRun | None:
        """Return the run as it ended, or None if Ctrl-C came first."""
        try:
            return trio.run(self._watch)
        except BaseExceptionGroup as group:
            if group.subgroup(BrokenPipeError) is None:
                raise
            # A reader like `head` has gone: known to typer, if it comes without its group.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None

    async def _watch(self) -> OpRun | None:
        run = None
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with AsyncGyozaClient(self._access) as client, trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
                with open_view(self._streams) as view:
                    look = _Look(client, self._run_id, self.shown, view, nursery)
                    run = await look.until_end()
                nursery.cancel_scope.cancel()
        return run


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


class _Look:
    """Looks at a run until it has ended.

    Args:
        client: Speaks to the server.
        run_id: The run.
        shown: How far it has been shown.
        view: Shows it.
        nursery: For what is said beside it.
    """

    def __init__(
        self,
        client: AsyncGyozaClient,
        run_id: str,
        shown: _Shown,
        view: View,
        nursery: trio.Nursery,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._shown = shown
        self._view = view
        self._poll = LongPoll(POLL_S)
        self._outages = Outages(
            lambda sentence: nursery.start_soon(self._show, view.message, sentence)
        )

    async def until_end(self) -> OpRun:
        """Return the run as it ended, once all of it is shown."""
        to_logs, attempts = trio.open_memory_channel[int](math.inf)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._show_logs, attempts)
            with to_logs:
                return await self._show_events(to_logs)

    async def _show(self, show: Callable[..., None], *what: Any) -> None:
        """Show something, for as long as that may take."""
        await trio.to_thread.run_sync(partial(show, *what), abandon_on_cancel=True)

    async def _show_events(self, attempts: trio.MemorySendChannel[int]) -> OpRun:
        run = await self._ask()
        begun = 0
        while True:
            while begun < run.current_attempt:
                begun += 1
                attempts.send_nowait(begun)
            for event in run.events:
                if event.id > self._shown.event:
                    await self._show(self._show_event, event)
            if run.state.terminal:
                return run
            await self._show(self._view.run, run)
            run = await self._ask(self._shown.event)

    async def _ask(self, after_event: int | None = None) -> OpRun:
        """Return the run, however long the server is away, within bounds.

        Args:
            after_event: Wait for a later event; None returns the run at once.
        """
        began, tried = trio.current_time(), 0
        tell = self._outages.teller()
        while True:
            tried += 1
            try:
                run = await self._ask_once(after_event)
            except (ApiError, ClientError) as error:
                failure = error
            else:
                tell(None)
                return run
            if not is_away(failure):
                raise failure
            if trio.current_time() - began > PATIENCE_S + POLL_S:
                raise CliError(
                    f"Run {self._run_id} goes on, but the server has been away for "
                    f"{PATIENCE_S:g} s: {str(failure).rstrip('.')}; `gyoza runs logs --follow "
                    f"{self._run_id}` follows it again.",
                    ExitCode.SERVER,
                ) from failure
            if tried > 1:
                tell(failure)
            await trio.sleep(FOLLOW.pause_s(tried))

    async def _ask_once(self, after_event: int | None) -> OpRun:
        if after_event is None:
            return await self._get()
        with self._poll.asking() as wait_s:
            return await self._get(after_event=after_event, wait_s=wait_s)

    async def _get(self, **what: Any) -> OpRun:
        call = replace(endpoints.get_run(self._run_id, **what), retry=NEVER)
        return read_as(OpRun.from_dict, await self._client.send(call))

    async def _show_logs(self, attempts: trio.MemoryReceiveChannel[int]) -> None:
        shown = self._shown
        async for attempt in attempts:
            if attempt < shown.attempt:
                continue
            if attempt > shown.attempt:
                shown.attempt, shown.offset = attempt, 0
            pieces = self._client.stream_logs(
                self._run_id,
                attempt=attempt,
                offset=shown.offset,
                follow=True,
                patience_s=PATIENCE_S,
                tell=self._outages.teller(),
            )
            try:
                async with aclosing(pieces):
                    async for piece in pieces:
                        await self._show(self._show_piece, piece)
            except LogIncomplete as gap:
                shown.gap = gap
            await self._show(self._view.end_of_log)

    def _show_event(self, event: EventEntry) -> None:
        self._shown.event = event.id
        self._view.event(event)

    def _show_piece(self, piece: LogPiece) -> None:
        # A thread that is left behind writes all the same as soon as it can.
        self._shown.offset = piece.offset
        self._view.log(piece.text)

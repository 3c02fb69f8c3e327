"""The record of one attempt: all that the worker's next start must know of it.

<work dir>/<worker>/<run>.<attempt>/   0700
  journal   facts in order: the run as claimed, reports, `starting`, `stopping`, `exited`
  mark      how far the container's output has been taken
  log       the log text on its way to the server
  sent      how far reports and log text have been taken by the server
  gyoza/    the folder that the container sees, see `op_io`

The journal is on the disk before what it tells of matters. `mark` and `sent` are not forced to the
disk: they outlive the process, and after a power cut some output may be told again.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, astuple, dataclass
from functools import partial
from pathlib import Path

from gyoza.models import OpRun, check_id
from gyoza.worker.logs.spool import LogSpool
from gyoza.worker.op_io.op_dir import remove_op_dir
from gyoza.worker.run_record.journal import Fact, Journal
from gyoza.worker.run_record.slot import Slot

MAX_JOURNAL = 64 * 1024 * 1024
"""Bytes; the events of an op beyond it are sent, but do not outlive the process."""

LIFE = 2**32
"""Sequence numbers of each life of the worker; the server wants them to grow, not to be dense."""

logger = logging.getLogger(__name__)


def run_dir(work_dir: Path, run_id: str, attempt: int) -> Path:
    """Return the directory of an attempt.

    Raises:
        InvalidIdError: If the run's id could not be a path.
    """
    return work_dir / f"{check_id(run_id, 'run id')}.{attempt}"


@dataclass(frozen=True)
class EventCount:
    """How many INFO and ERROR events an attempt has told, of the few that it may tell.

    Attributes:
        sent: Those that were, or will be, sent.
        size: Bytes of these.
        infos: INFO that were left out.
        errors: ERROR that were left out.
    """

    sent: int = 0
    size: int = 0
    infos: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Position:
    """How far a container's output has been taken: bytes of each stream that are dealt with.

    Attributes:
        line_starts: Whether each stream goes on at the beginning of a line.
        events: How many events were among them.
    """

    taken: Sequence[int] = (0, 0)
    line_starts: Sequence[bool] = (True, True)
    events: EventCount = EventCount()


@dataclass(frozen=True)
class Exit:
    """How the container ended: of itself, at its time limit, or stopped for what it had written.

    Attributes:
        filled: Which disk it had filled, in a sentence; empty if it was not stopped for that.
    """

    exit_code: int
    oom_killed: bool = False
    timed_out: bool = False
    filled: str = ""


class RunRecord:
    """The record of one attempt; its methods block and belong in a thread.

    A full disk costs what comes after it the safety across restarts, with a warning, not the run.

    Attributes:
        directory: The run directory.
        fresh: It was begun by this process.
        run: The run as claimed.
        spool: Its log text.
        position: How far its output has been taken.
        started_at: Seconds since 1970 when the container was about to start; None before that.
        gpu_ids: The GPUs it was given.
        stopping: Its container has been sent a signal, or is about to be.
        timed_out: It was first stopped at its time limit.
        filled: Which disk it was first stopped for, in a sentence.
        exited: How the container ended, once it has.
        end: The report of the attempt's end, once there is one.
        unsent: Reports that an earlier life has left, in order.
        log_sent: Bytes of log text that the server has.
    """

    def __init__(self, directory: Path, run: OpRun | None = None) -> None:
        self.directory = directory
        self.fresh = run is not None
        with ExitStack() as opened:  # what is open is closed again if the rest fails
            self._journal = opened.enter_context(closing(Journal(directory / "journal")))
            self._mark = opened.enter_context(closing(Slot(directory / "mark")))
            self._sent = opened.enter_context(closing(Slot(directory / "sent")))
            mark, sent = self._mark.read(), self._sent.read()
            self.started_at: float | None = None
            self.gpu_ids: list[int] = []
            self.stopping = self.timed_out = False
            self.filled = ""
            self.exited: Exit | None = None
            self.end: Fact | None = None
            told: Sequence[int] = mark.get("events", ())
            starts = mark.get("line_starts", (True, True))
            self.position = Position(mark.get("taken", (0, 0)), starts, EventCount(*told))
            self._event_seq: int = mark.get("seq", 0)
            self._seq_sent: int = sent.get("seq", 0)
            self.log_sent: int = sent.get("log", 0)
            self.unsent: list[Fact] = []
            self.next_seq = 1
            size, cut, ringed = (mark.get(name, 0) for name in ("log", "cut", "ring"))
            spool = LogSpool(directory / "log", size, cut, ringed=ringed)
            self.spool = opened.enter_context(closing(spool))
            if run is not None:
                self._journal.append({"fact": "claimed", "run": run.to_dict()}, sync=True)
                _sync_directory(directory)
                _sync_directory(directory.parent)
                self.run = run
            else:
                self._recall()
            opened.pop_all()

    @classmethod
    def create(cls, directory: Path, run: OpRun) -> "RunRecord":
        """Begin the record of a claimed run, in place of anything left there.

        Raises:
            OpDirNotRemoved: If what is there cannot be removed.
            OSError: If it cannot be written.
        """
        remove_op_dir(directory)
        directory.mkdir(mode=0o700, parents=True)
        return cls(directory, run)

    @classmethod
    def load(cls, directory: Path) -> "RunRecord":
        """Read what an earlier life of the worker has left.

        Raises:
            ValueError: If it holds no claimed run: then nothing had begun.
        """
        return cls(directory)

    @property
    def finished(self) -> bool:
        """Whether the container has ended or will never start: what is left is to tell."""
        return self.exited is not None or self.end is not None

    def note_starting(self, gpu_ids: list[int]) -> None:
        """Note that the container is about to be started; from now on it may be running."""
        self.started_at, self.gpu_ids = time.time(), gpu_ids
        self._note({"fact": "starting", "at": self.started_at, "gpu_ids": gpu_ids})

    def note_stopping(self, timed_out: bool, filled: str = "") -> None:
        """Note that the container is about to be stopped: what it exits with is our doing.

        The first stop counts. It outlives the process at once and a power cut after `sync`, for
        which no stop should wait.
        """
        if not self.stopping:
            self.stopping, self.timed_out, self.filled = True, timed_out, filled
            why = {"timed_out": timed_out, "filled": filled}
            self._note({"fact": "stopping", **why}, sync=False)

    def sync(self) -> None:
        """Force to the disk what was noted."""
        self._warn_of_refusal(self._journal.sync)

    def note_exit(self, exited: Exit) -> None:
        """Note how the container ended; from now on it may be removed."""
        self.exited = exited
        self._note({"fact": "exited", "exit": asdict(exited)})

    def note_report(self, report: Fact) -> None:
        """Note the report of the attempt's end; from now on it will be sent."""
        self.end = report
        self._note({"fact": "report", "ends": True, "report": report})

    def note_output(
        self, text: str, events: Sequence[Fact], position: Position, end: str | None = None
    ) -> None:
        """Take a block of output: its text, its events, and how far the output has been taken.

        Args:
            text: Goes to the spool.
            events: Reports of what the op told, to be sent after this.
            position: Where the output goes on after this block.
            end: The log's last text, if the output has ended.

        Raises:
            OSError: If there is no room for the text.
        """
        if text:
            self.spool.append(text)
        if end is not None:
            self.spool.finish(end)
        if events and self._journal.size < MAX_JOURNAL:
            self._note(*({"fact": "report", "report": event} for event in events), sync=False)
            self._event_seq = events[-1]["seq"]
        self.position = position
        spool = self.spool
        mark = {"log": spool.size, "cut": spool.cut, "ring": spool.ringed, "seq": self._event_seq}
        # The counts without their names: a slot has little room.
        self._mark.write(mark | asdict(position) | {"events": astuple(position.events)})

    def note_sent(self, *, seq: int = 0, log: int = 0) -> None:
        """Remember what the server has taken, so that it is not sent again."""
        self._seq_sent, self.log_sent = max(self._seq_sent, seq), max(self.log_sent, log)
        with suppress(OSError):  # then it is sent again, which is harmless
            self._sent.write({"seq": self._seq_sent, "log": self.log_sent})

    def close(self) -> None:
        """Close the files and leave them for the next start."""
        for file in (self._journal, self._mark, self._sent, self.spool):
            file.close()

    def _recall(self) -> None:
        facts = self._journal.facts
        if not facts or facts[0].get("fact") != "claimed":
            raise ValueError(f"{self.directory} holds no claimed run.")
        self.run = OpRun.from_dict(facts[0]["run"])
        lives = 1
        for fact in facts[1:]:
            match fact:
                case {"fact": "starting", "at": at, "gpu_ids": gpu_ids}:
                    self.started_at, self.gpu_ids = at, gpu_ids
                case {"fact": "stopping", "timed_out": timed_out}:
                    self.stopping, self.timed_out = True, timed_out
                    self.filled = fact.get("filled", "")
                case {"fact": "exited", "exit": ended}:
                    self.exited = Exit(**ended)
                case {"fact": "report", "report": report}:
                    self._recall_report(report, ends=fact.get("ends", False))
                case _:
                    lives += 1
                    self._forget_unmarked(fact.get("seq", 0))
        self._note({"fact": "taken up", "seq": self._event_seq}, sync=False)
        self.next_seq = lives * LIFE + 1

    def _forget_unmarked(self, marked: int) -> None:
        """Forget the events that a life has found without their mark: it told them anew."""
        self.unsent = [r for r in self.unsent if r is self.end or r["seq"] <= marked]

    def _recall_report(self, report: Fact, *, ends: bool) -> None:
        if ends:
            self.end = report
        elif report["seq"] > self._event_seq:
            return  # its place in the output was not marked: it will be read once more
        if report["seq"] > self._seq_sent:
            self.unsent.append(report)

    def _note(self, *facts: Fact, sync: bool = True) -> None:
        self._warn_of_refusal(partial(self._journal.append, *facts, sync=sync))

    def _warn_of_refusal(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            logger.warning(
                "Run %s: the disk refuses its record (%s); should the worker be killed now, the "
                "run begins anew.",
                self.run.id,
                error.strerror,
            )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

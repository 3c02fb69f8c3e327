"""One chaos run from its first fault to the verdict."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio

from gyoza.client.errors import ApiError
from gyoza.models import EventType, OpAttempt, OpRun
from tests.chaos.clock import Clock
from tests.chaos.engine import ADDRESS, MARKS_PORT
from tests.chaos.faults import Targets, make_faults
from tests.chaos.ops import plan_runs
from tests.chaos.plan import LEASE_S, plan_faults
from tests.chaos.processes import STARTING_S
from tests.chaos.report import Outcome, clock, last_line, report
from tests.chaos.stage import IMAGE, SLOTS, WORKERS, Stage, open_folder, open_stage
from tests.chaos.verdict import History
from tests.chaos.workload import TOPIC, Submitted, Workload, insist

COMING = 0.75
"""In this part of the time for faults the runs are handed in."""

STALLED_S = 90.0
"""Without faults some run must end within this time: a lost lease, the longest wait of a worker
after many failures in a row, and the longest op."""

SETTLE_S = LEASE_S + 50.0
"""How long containers and directories may take to go once all runs have ended."""

LOOK_S = 1.0


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        runs: How many runs are handed in.
        faults_s: For how many seconds faults happen, at most.
        gap_s: Mean time between two faults, in seconds.
        seed: Draws all there is to draw.
        keep: Whether logs, database and marks are kept.
    """

    runs: int
    faults_s: float
    gap_s: float
    seed: int
    keep: bool


class Teller:
    """Writes lines with the time of the hour and the seconds since it was made."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._began = time.monotonic()
        self.write = write

    def __call__(self, text: str) -> None:
        self.write(f"{clock(time.time())} {time.monotonic() - self._began:+7.1f} s  {text}")


async def play(options: Options, write: Callable[[str], None]) -> bool:
    """Play a chaos run and write what happened, the last line last.

    Returns:
        Whether all was as it should be.

    Raises:
        EngineDidNotStart: If this machine cannot have an engine of its own.
        ImageBuildError: If something for the image is missing here.
    """
    tell = Teller(write)
    async with open_folder(keep=options.keep) as folder:
        tell(f"seed {options.seed}: {options.runs} runs, {WORKERS} workers with {SLOTS} slots each")
        async with open_stage(folder) as stage:
            tell("engine, server and workers have been started")
            for left_out in _left_out(stage):
                tell(left_out)
            workload, surprises = await _make_trouble(stage, options, tell)
            tell(f"{workload.ended} of {options.runs} runs have ended")
            await _settle(stage, tell)
            outcome = Outcome(options.runs, await _collect(stage, workload))
            outcome.strangers = await _find_strangers(stage, workload)
            surprises += await _drain(stage, tell)
            outcome.containers = await stage.engine.containers()
            listed = [container["Id"] for container in outcome.containers]
            ghosts = [one for one in stage.engine.processes() if one.container_id not in listed]
            outcome.unknown = [one.container_id for one in ghosts if not one.torn]
            outcome.torn = [one.container_id for one in ghosts if one.torn]
            outcome.directories = stage.directories()
        outcome.logs = [service.log for service in stage.services]
        outcome.surprises = surprises + [s for one in stage.services for s in one.surprises]
        fine = report(outcome, write)
        if options.keep:
            write(f"Logs, database and marks are in {folder}")
        write(last_line(outcome))
        return fine


def _left_out(stage: Stage) -> list[str]:
    """Say which faults do not happen on this machine."""
    said: list[str] = []
    if not stage.database.can_be_full:
        said.append("left out: no disk can be mounted here that could be full")
    if not stage.clock.can_leap:
        said.append("left out: the server's clock cannot leap, as faketime is not installed")
    return said


async def _make_trouble(stage: Stage, options: Options, tell: Teller) -> tuple[Workload, list[str]]:
    rng = random.Random(options.seed)
    runs = plan_runs(rng, options.runs, COMING * options.faults_s)
    faults = plan_faults(rng, options.faults_s, WORKERS, options.gap_s)
    recorder = {"RECORDER_HOST": ADDRESS, "RECORDER_PORT": str(MARKS_PORT)}
    at_once = 2 * WORKERS * SLOTS
    workload = Workload(stage.client, runs, at_once, {"image": IMAGE, "env_vars": recorder})
    surprises: list[str] = []
    targets = Targets(
        stage.server,
        stage.workers,
        stage.proxies,
        stage.engine,
        stage.database,
        stage.clock,
        stage.noise,
        surprises,
        tell,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run)
        happened = await make_faults(faults, targets, workload.done)
        tell(f"{happened} faults are over, {workload.ended} of {options.runs} runs have ended")
        while not workload.done.is_set():
            with trio.move_on_after(STALLED_S) as stalled:
                await workload.next_end()
            if stalled.cancelled_caught:
                tell(f"no run has ended for {STALLED_S:g} s, so no more is waited for")
                nursery.cancel_scope.cancel()
                break
    return workload, surprises


async def _settle(stage: Stage, tell: Teller) -> None:
    """Wait until nothing is left, at most for the time that a sweep may take."""
    began = trio.current_time()
    youngest_s = min(worker.age_s for worker in stage.workers)
    await trio.sleep(max(0.0, STARTING_S - youngest_s))
    with trio.move_on_after(SETTLE_S):
        while True:
            if not (await stage.engine.containers() or stage.directories()):
                break
            await trio.sleep(LOOK_S)  # nobody tells when a directory goes
    tell(f"looked {trio.current_time() - began:.0f} s for containers and directories to go")


async def _drain(stage: Stage, tell: Teller) -> list[str]:
    tell("SIGTERM to all workers")
    surprises: list[str] = []

    async def end(number: int) -> None:
        worker = stage.workers[number]
        code = await worker.terminate()
        if code != 0:
            how = "by SIGKILL" if code is None else f"with exit code {code}"
            surprises.append(f"{worker.name} ended {how} at the last SIGTERM.")

    async with trio.open_nursery() as nursery:
        for number in range(WORKERS):
            nursery.start_soon(end, number)
    return surprises


async def _collect(stage: Stage, workload: Workload) -> list[History]:
    """Ask the server for all it knows of each run, and add what the containers said."""
    marks = stage.engine.marks()
    claims, away = stage.claims(), stage.away()
    histories: list[History] = []
    for submitted in sorted(workload.submitted, key=lambda one: one.planned.number):
        history = await _ask(stage, submitted)
        history.engine_away = stage.engine.away
        history.workers_away = away
        history.claims = claims
        history.marks = [mark for mark in marks if mark.run_id == submitted.run_id]
        histories.append(history)
    return histories


async def _ask(stage: Stage, submitted: Submitted) -> History:
    client, run_id = stage.client, submitted.run_id
    known = History(
        submitted.planned,
        run_id,
        None,
        cancel_asked=submitted.cancel_asked,
        cancel_granted=submitted.cancel_granted,
    )
    try:
        known.run = OpRun.from_dict(await insist(partial(client.get_run, run_id)))
        attempts = await insist(partial(client.get_attempts, run_id))
        known.attempts = [OpAttempt.from_dict(attempt) for attempt in attempts]
        _part_events(known.run, known.attempts)
        _correct_times(known.run, known.attempts, stage.clock)
        if known.attempts:
            began = trio.current_time()
            known.log = await insist(partial(client.get_logs, run_id))
            known.log_took_s = trio.current_time() - began
    except ApiError as error:
        if error.status != 404:
            raise
    return known


def _part_events(run: OpRun, attempts: list[OpAttempt]) -> None:
    """Give each attempt its events: from the ASSIGNED that begins it to the next."""
    number = 0
    for event in run.events:
        number += event.type == EventType.ASSIGNED
        if 0 < number <= len(attempts):
            attempts[number - 1].events.append(event)


def _correct_times(run: OpRun, attempts: list[OpAttempt], clock: Clock) -> None:
    """Replace what the server's clock told by what was true."""
    for event in run.events:
        event.t = clock.correct(event.t)
    for attempt in attempts:
        if attempt.finished_at is not None:
            attempt.finished_at = clock.correct(attempt.finished_at)


async def _find_strangers(stage: Stage, workload: Workload) -> list[str]:
    """Return the runs that the server has and nobody handed in."""
    known = {submitted.run_id for submitted in workload.submitted}
    strangers: list[str] = []
    last = None
    while True:
        page = await insist(partial(stage.client.list_runs, topic=TOPIC, starting_after=last))
        ids = [run["id"] for run in page["data"]]
        strangers += [run_id for run_id in ids if run_id not in known]
        if not page["has_more"]:
            return strangers
        last = ids[-1]

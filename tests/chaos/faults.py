"""What goes wrong while the runs go on: drawn beforehand, so that a seed means the same again."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import trio

from tests.chaos.engine import Engine
from tests.chaos.processes import Service
from tests.chaos.proxy import Proxy

LEASE_S = 10.0
TOO_LONG_S = LEASE_S + 3.0
"""A worker that is away for so long has lost its runs."""

STOPPED_BY_THIRD_SIGNAL = (128 + signal.SIGTERM, -signal.SIGTERM)
"""The same for a shell: by its own exit, or by the signal if it was about to exit anyway."""

STARTING_S = 5.0
"""Seconds in which a program that was started gets to listen for signals."""

LONG_FREEZE = 0.1


class Trouble(StrEnum):
    """What can happen."""

    KILL_WORKER = "SIGKILL to worker"
    LOSE_WORKER = "SIGKILL to worker for longer than its lease"
    TERM_WORKER = "SIGTERM to worker"
    TERM_TWICE = "SIGTERM twice to worker"
    TERM_THRICE = "SIGTERM three times to worker"
    KILL_SERVER = "SIGKILL to the server"
    DROP = "connections dropped"
    DELAY = "delays"
    CUT_ANSWERS = "answers cut"
    PART = "nothing comes through"
    FREEZE_ENGINE = "engine frozen"
    STOP_ENGINE = "engine restarted"
    KILL_ENGINE = "SIGKILL to the engine"


_DECK: dict[Trouble, tuple[int, float, float]] = {
    Trouble.KILL_WORKER: (3, 0.2, 3.0),
    Trouble.LOSE_WORKER: (1, TOO_LONG_S, TOO_LONG_S + 3.0),
    Trouble.TERM_WORKER: (2, 0.2, 2.0),
    Trouble.TERM_TWICE: (2, 0.2, 2.0),
    Trouble.TERM_THRICE: (1, 0.2, 2.0),
    Trouble.KILL_SERVER: (2, 0.2, 3.0),
    Trouble.DROP: (2, 0.0, 0.0),
    Trouble.DELAY: (1, 3.0, 8.0),
    Trouble.CUT_ANSWERS: (2, 2.0, 6.0),
    Trouble.PART: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.FREEZE_ENGINE: (1, 2.0, 8.0),
    Trouble.STOP_ENGINE: (1, 0.2, 3.0),
    Trouble.KILL_ENGINE: (2, 0.2, 3.0),
}
"""How many cards of each are in a deck, and how long it lasts at least and at most, in seconds."""


@dataclass(frozen=True)
class Planned:
    """One fault as it was drawn.

    Attributes:
        at_s: When, in seconds since the faults began.
        worker: Which worker, where one is meant.
        lasts_s: How long what it hits is away.
        pauses_s: What lies between signals, or the delay of each piece, in seconds.
        live_restore: Whether containers survive the engine's next end.
    """

    at_s: float
    trouble: Trouble
    worker: int
    lasts_s: float
    pauses_s: tuple[float, float]
    live_restore: bool


def plan_faults(rng: random.Random, budget_s: float, workers: int, gap_s: float) -> list[Planned]:
    """Draw faults for so many seconds: every kind comes once per deck, in any order.

    Args:
        rng: Draws.
        budget_s: Seconds that the faults may take.
        workers: How many workers there are.
        gap_s: Mean time between two faults, in seconds.
    """
    planned: list[Planned] = []
    deck: list[Trouble] = []
    at_s = rng.uniform(2, 5)
    while at_s < budget_s:
        if not deck:
            deck = [trouble for trouble, (cards, _, _) in _DECK.items() for _ in range(cards)]
            rng.shuffle(deck)
        planned.append(_draw(rng, round(at_s, 1), deck.pop(), workers, budget_s))
        at_s += rng.uniform(0.2, 2 * gap_s)
    return planned


def _draw(
    rng: random.Random, at_s: float, trouble: Trouble, workers: int, budget_s: float
) -> Planned:
    _, least, most = _DECK[trouble]
    lasts_s = rng.uniform(least, most)
    if trouble is Trouble.FREEZE_ENGINE and budget_s > 200 and rng.random() < LONG_FREEZE:
        lasts_s = 60.0  # longer than any call to the engine may take
    pauses_s = (round(rng.uniform(0.1, 2), 1), round(rng.uniform(0.1, 2), 1))
    worker = rng.randrange(workers)
    return Planned(at_s, trouble, worker, round(lasts_s, 1), pauses_s, rng.random() < 0.5)


@dataclass
class Targets:
    """What faults are made of.

    Attributes:
        surprises: Sentences about what should not have come of a fault.
        tell: Takes one line for every fault when it happens.
    """

    server: Service
    workers: list[Service]
    proxies: list[Proxy]
    engine: Engine
    surprises: list[str]
    tell: Callable[[str], None]


async def make_faults(plan: list[Planned], targets: Targets, stop: trio.Event) -> int:
    """Let the faults happen, one over the other, until all did or it is to stop.

    Each ends by itself, so that everything is whole again when this returns.

    Returns:
        How many happened.
    """
    began = trio.current_time()
    happened = 0
    async with trio.open_nursery() as nursery:
        for fault in plan:
            with trio.move_on_at(began + fault.at_s):
                await stop.wait()
            if stop.is_set():
                break
            nursery.start_soon(_happen, fault, targets)
            happened += 1
    return happened


async def _happen(fault: Planned, targets: Targets) -> None:
    worker, proxy = targets.workers[fault.worker], targets.proxies[fault.worker]
    match fault.trouble:
        case Trouble.KILL_WORKER | Trouble.LOSE_WORKER:
            await _kill(fault, worker, targets)
        case Trouble.KILL_SERVER:
            await _kill(fault, targets.server, targets)
        case Trouble.TERM_WORKER:
            await _terminate(fault, worker, targets, (), (0,))
        case Trouble.TERM_TWICE:
            await _terminate(fault, worker, targets, fault.pauses_s[:1], (0,))
        case Trouble.TERM_THRICE:
            codes = (0, *STOPPED_BY_THIRD_SIGNAL)
            await _terminate(fault, worker, targets, fault.pauses_s, codes)
        case Trouble.DROP:
            targets.tell(f"{worker.name}: {proxy.drop()} {fault.trouble}")
        case Trouble.DELAY | Trouble.CUT_ANSWERS | Trouble.PART:
            await _disturb(fault, worker.name, proxy, targets)
        case Trouble.FREEZE_ENGINE | Trouble.STOP_ENGINE | Trouble.KILL_ENGINE:
            await _trouble_engine(fault, targets)


async def _kill(fault: Planned, service: Service, targets: Targets) -> None:
    async with service.busy:
        targets.tell(f"SIGKILL to {service.name}, back after {fault.lasts_s} s")
        await service.kill()
        await trio.sleep(fault.lasts_s)
        await service.start()
        targets.tell(f"{service.name} is started again")


async def _terminate(
    fault: Planned,
    worker: Service,
    targets: Targets,
    pauses_s: tuple[float, ...],
    codes: tuple[int, ...],
) -> None:
    async with worker.busy:
        again = "".join(f", again after {pause_s} s" for pause_s in pauses_s)
        targets.tell(f"SIGTERM to {worker.name}{again}")
        code = await worker.terminate(pauses_s)
        too_early = code == -signal.SIGTERM and not worker.obeyed_signals
        if code is None:
            targets.surprises.append(f"{worker.name} did not end by SIGTERM and was killed.")
        elif code not in codes and not too_early:
            targets.surprises.append(f"{worker.name} ended with exit code {code} after SIGTERM.")
        await trio.sleep(fault.lasts_s)
        await worker.start()
        targets.tell(f"{worker.name} ended with {code} and is started again")


async def _disturb(fault: Planned, worker: str, proxy: Proxy, targets: Targets) -> None:
    async with proxy.busy:
        targets.tell(f"{worker}: {fault.trouble} for {fault.lasts_s} s")
        if fault.trouble is Trouble.DELAY:
            proxy.delay_s = fault.pauses_s[0]
        elif fault.trouble is Trouble.PART:
            proxy.part()
        else:
            proxy.cuts_answers = True
        cut = proxy.cut
        await trio.sleep(fault.lasts_s)
        proxy.heal()
        cut = proxy.cut - cut
        targets.tell(f"{worker} is connected again" + (f", {cut} answers were cut" if cut else ""))


async def _trouble_engine(fault: Planned, targets: Targets) -> None:
    engine = targets.engine
    async with engine.busy:
        if fault.trouble is Trouble.FREEZE_ENGINE:
            targets.tell(f"engine frozen for {fault.lasts_s} s")
            engine.freeze()
            await trio.sleep(fault.lasts_s)
            engine.thaw()
            targets.tell("engine goes on")
            return
        if fault.trouble is Trouble.STOP_ENGINE:
            targets.tell(f"SIGTERM to the engine{_how(engine.live_restore)}")
            if not await engine.stop():
                targets.tell("the engine did not end by SIGTERM and was killed")
        else:
            targets.tell("SIGKILL to the engine")
            await engine.kill()
        await trio.sleep(fault.lasts_s)
        await engine.start(live_restore=fault.live_restore)
        targets.tell(f"engine started again{_how(fault.live_restore)}")


def _how(live_restore: bool) -> str:
    return ", with live-restore" if live_restore else ", without live-restore"

"""What goes wrong while the runs go on, each fault from its beginning until all is whole again."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import trio

from tests.chaos import foreign
from tests.chaos.clock import LEAP_S, Clock
from tests.chaos.database import Database
from tests.chaos.engine import Engine
from tests.chaos.noise import Noise
from tests.chaos.plan import Planned, Trouble
from tests.chaos.processes import Service
from tests.chaos.proxy import Proxy

STOPPED_BY_THIRD_SIGNAL = (128 + signal.SIGTERM, -signal.SIGTERM)
"""The same for a shell: by its own exit, or by the signal if it was about to exit anyway."""

PAGES = {
    Trouble.ANSWER_521: foreign.WEB_SERVER_IS_DOWN,
    Trouble.ANSWER_413: foreign.TOO_LARGE,
    Trouble.ANSWER_409: foreign.CONFLICT,
    Trouble.ANSWER_404: foreign.NOT_FOUND,
    Trouble.ANSWER_401: foreign.UNAUTHORIZED,
    Trouble.ANSWER_LOGIN: foreign.LOGIN,
}
QUIET_S, LOOK_S = 2.0, 0.2
"""Connections are cut that were quiet for so long; they are looked at so often."""

BROKEN = 500
"""A server that answers noise with it has a mistake."""


@dataclass
class Targets:
    """What faults are made of.

    Attributes:
        clock: The server's.
        surprises: Sentences about what should not have come of a fault.
        tell: Takes one line for every fault when it happens.
    """

    server: Service
    workers: list[Service]
    proxies: list[Proxy]
    engine: Engine
    database: Database
    clock: Clock
    noise: Noise
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
        case Trouble.TERM_WORKER:
            await _terminate(fault, worker, targets, (), (0,))
        case Trouble.TERM_TWICE:
            await _terminate(fault, worker, targets, fault.pauses_s[:1], (0,))
        case Trouble.TERM_THRICE:
            codes = (0, *STOPPED_BY_THIRD_SIGNAL)
            await _terminate(fault, worker, targets, fault.pauses_s, codes)
        case Trouble.KILL_SERVER:
            await _kill(fault, targets.server, targets)
        case Trouble.FREEZE_SERVER | Trouble.FREEZE_SERVER_LONG:
            await _freeze(fault, targets.server, targets)
        case Trouble.CLOCK_FORTH | Trouble.CLOCK_BACK:
            await _set_clock(fault, targets)
        case Trouble.LOCK_DATABASE | Trouble.LOCK_DATABASE_LONG | Trouble.FILL_DISK:
            await _trouble_database(fault, targets)
        case Trouble.NOISE:
            await _make_noise(fault, targets)
        case Trouble.DROP:
            targets.tell(f"{worker.name}: {proxy.drop()} {fault.trouble}")
        case Trouble.FREEZE_ENGINE | Trouble.STOP_ENGINE | Trouble.KILL_ENGINE:
            await _trouble_engine(fault, targets)
        case _:
            await _disturb(fault, worker.name, proxy, targets)


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
        began, cut = time.time(), proxy.cut
        match fault.trouble:
            case Trouble.CUT_ANSWERS:
                proxy.cuts_answers = True
                await trio.sleep(fault.lasts_s)
                cut = proxy.cut - cut
            case Trouble.CUT_QUIET:
                cut = await _cut_quiet(proxy, fault.lasts_s)
            case _:
                cut = 0
                await _part(proxy, fault)
                proxy.parted.append((began, time.time()))
        proxy.heal()
        targets.tell(
            f"{worker} is connected again" + (f", {cut} connections were cut" if cut else "")
        )


async def _part(proxy: Proxy, fault: Planned) -> None:
    """Let no request through in time."""
    if fault.trouble is Trouble.DELAY:
        proxy.delay_s = fault.pauses_s[0]
    elif fault.trouble is Trouble.PART:
        proxy.part()
    else:
        proxy.page = PAGES[fault.trouble]
    await trio.sleep(fault.lasts_s)


async def _cut_quiet(proxy: Proxy, lasts_s: float) -> int:
    """Cut what is quiet, as some gateways do; return how many connections were cut."""
    cut = 0
    with trio.move_on_after(lasts_s):
        while True:
            cut += proxy.drop(QUIET_S)
            await trio.sleep(LOOK_S)
    return cut


async def _freeze(fault: Planned, service: Service, targets: Targets) -> None:
    async with service.busy:
        targets.tell(f"{service.name} frozen for {fault.lasts_s} s")
        service.freeze()
        await trio.sleep(fault.lasts_s)
        service.thaw()
        targets.tell(f"{service.name} goes on")


async def _set_clock(fault: Planned, targets: Targets) -> None:
    clock = targets.clock
    if not clock.can_leap:
        return
    async with clock.busy:
        targets.tell(f"{fault.trouble} by {LEAP_S / 60:g} minutes for {fault.lasts_s} s")
        ahead_s = LEAP_S if fault.trouble is Trouble.CLOCK_FORTH else -LEAP_S
        await clock.leap(ahead_s, fault.lasts_s)
        targets.tell("the server's clock is right again")


async def _trouble_database(fault: Planned, targets: Targets) -> None:
    database = targets.database
    full = fault.trouble is Trouble.FILL_DISK
    if full and not database.can_be_full:
        return
    async with database.busy:
        targets.tell(f"{fault.trouble} for {fault.lasts_s} s")
        await (database.fill if full else database.lock)(fault.lasts_s)
        targets.tell("there is room for the database again" if full else "database unlocked")


async def _make_noise(fault: Planned, targets: Targets) -> None:
    noise = targets.noise
    async with noise.busy:
        targets.tell(f"{fault.trouble} for {fault.lasts_s} s")
        calls, answers = await noise.make(fault.seed, fault.lasts_s)
        told = ", ".join(f"{times} times {status}" for status, times in sorted(answers.items()))
        targets.tell(f"noise ends after {calls} connections; answers: {told or 'none'}")
        if BROKEN in answers:
            targets.surprises.append(f"The server answered noise with {BROKEN}; see its log.")


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

"""Which faults come when: drawn beforehand, so that a seed means the same again."""

import random
from dataclasses import dataclass
from enum import StrEnum

LEASE_S = 10.0
TOO_LONG_S = LEASE_S + 3.0
"""A worker that is away for so long has lost its runs."""

LONG_FREEZE = 0.1


class Trouble(StrEnum):
    """What can happen."""

    KILL_WORKER = "SIGKILL to worker"
    LOSE_WORKER = "SIGKILL to worker for longer than its lease"
    TERM_WORKER = "SIGTERM to worker"
    TERM_TWICE = "SIGTERM twice to worker"
    TERM_THRICE = "SIGTERM three times to worker"
    KILL_SERVER = "SIGKILL to the server"
    FREEZE_SERVER = "server frozen"
    FREEZE_SERVER_LONG = "server frozen for longer than a lease"
    CLOCK_FORTH = "the server's clock leaps forth"
    CLOCK_BACK = "the server's clock leaps back"
    LOCK_DATABASE = "database locked"
    LOCK_DATABASE_LONG = "database locked for longer than a lease"
    FILL_DISK = "disk of the database full"
    NOISE = "noise on the server's port"
    DROP = "connections dropped"
    DELAY = "delays"
    CUT_ANSWERS = "answers cut"
    CUT_QUIET = "quiet connections cut"
    PART = "nothing comes through"
    ANSWER_521 = "all is answered with 521"
    ANSWER_413 = "all is answered with 413"
    ANSWER_409 = "all is answered with 409"
    ANSWER_404 = "all is answered with 404"
    ANSWER_401 = "all is answered with 401"
    ANSWER_LOGIN = "all is answered with a login page"
    FREEZE_ENGINE = "engine frozen"
    STOP_ENGINE = "engine restarted"
    KILL_ENGINE = "SIGKILL to the engine"


DECK: dict[Trouble, tuple[int, float, float]] = {
    Trouble.KILL_WORKER: (3, 0.2, 3.0),
    Trouble.LOSE_WORKER: (1, TOO_LONG_S, TOO_LONG_S + 3.0),
    Trouble.TERM_WORKER: (2, 0.2, 2.0),
    Trouble.TERM_TWICE: (2, 0.2, 2.0),
    Trouble.TERM_THRICE: (1, 0.2, 2.0),
    Trouble.KILL_SERVER: (2, 0.2, 3.0),
    Trouble.FREEZE_SERVER: (1, 1.0, LEASE_S - 2.0),
    Trouble.FREEZE_SERVER_LONG: (1, TOO_LONG_S, TOO_LONG_S + 3.0),
    Trouble.CLOCK_FORTH: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.CLOCK_BACK: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.LOCK_DATABASE: (1, 1.0, LEASE_S - 2.0),
    Trouble.LOCK_DATABASE_LONG: (1, TOO_LONG_S, TOO_LONG_S + 3.0),
    Trouble.FILL_DISK: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.NOISE: (1, 4.0, 8.0),
    Trouble.DROP: (2, 0.0, 0.0),
    Trouble.DELAY: (1, 3.0, 8.0),
    Trouble.CUT_ANSWERS: (2, 2.0, 6.0),
    Trouble.CUT_QUIET: (1, 5.0, 12.0),
    Trouble.PART: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.ANSWER_521: (1, 3.0, TOO_LONG_S + 3.0),
    Trouble.ANSWER_413: (1, 2.0, 6.0),
    Trouble.ANSWER_409: (1, 2.0, 6.0),
    Trouble.ANSWER_404: (1, 2.0, 6.0),
    Trouble.ANSWER_401: (1, 2.0, 6.0),
    Trouble.ANSWER_LOGIN: (1, 2.0, 6.0),
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
        lasts_s: How long it lasts, or what it hits is away.
        pauses_s: What lies between signals, or the delay of each piece, in seconds.
        live_restore: Whether containers survive the engine's next end.
        seed: Draws what is sent, where anything is.
    """

    at_s: float
    trouble: Trouble
    worker: int
    lasts_s: float
    pauses_s: tuple[float, float]
    live_restore: bool
    seed: int


def plan_faults(rng: random.Random, budget_s: float, workers: int, gap_s: float) -> list[Planned]:
    """Draw faults for so many seconds: every kind comes in every deck, in any order.

    What cannot be done on a machine is drawn all the same, so that the others are too.

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
            deck = [trouble for trouble, (cards, _, _) in DECK.items() for _ in range(cards)]
            rng.shuffle(deck)
        planned.append(_draw(rng, round(at_s, 1), deck.pop(), workers, budget_s))
        at_s += rng.uniform(0.2, 2 * gap_s)
    return planned


def _draw(
    rng: random.Random, at_s: float, trouble: Trouble, workers: int, budget_s: float
) -> Planned:
    _, least, most = DECK[trouble]
    lasts_s = rng.uniform(least, most)
    if trouble is Trouble.FREEZE_ENGINE and budget_s > 200 and rng.random() < LONG_FREEZE:
        lasts_s = 60.0  # longer than any call to the engine may take
    return Planned(
        at_s,
        trouble,
        worker=rng.randrange(workers),
        lasts_s=round(lasts_s, 1),
        pauses_s=(round(rng.uniform(0.1, 2), 1), round(rng.uniform(0.1, 2), 1)),
        live_restore=rng.random() < 0.5,
        seed=rng.randrange(10**6),
    )

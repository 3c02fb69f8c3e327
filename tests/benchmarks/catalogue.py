"""All benchmarks by name, in the order of the table."""

from collections.abc import Awaitable, Callable

from tests.benchmarks.backlog import backlog
from tests.benchmarks.cancels import cancel, cancel_storm
from tests.benchmarks.figures import Figure
from tests.benchmarks.fleet import fleet
from tests.benchmarks.hostile import hostile
from tests.benchmarks.logs import logs
from tests.benchmarks.resources import cpu, idle, memory
from tests.benchmarks.runs import latency, throughput, turnaround
from tests.benchmarks.soak import soak
from tests.benchmarks.stage import Stage
from tests.benchmarks.start_up import start_up

BENCHMARKS: dict[str, Callable[[Stage], Awaitable[list[Figure]]]] = {
    "latency": latency,
    "turnaround": turnaround,
    "throughput": throughput,
    "cancel": cancel,
    "cancel-storm": cancel_storm,
    "cpu": cpu,
    "memory": memory,
    "idle": idle,
    "start-up": start_up,
    "logs": logs,
    "fleet": fleet,
    "backlog": backlog,
    "hostile": hostile,
    "soak": soak,
}

BY_NAME_ONLY = ("soak",)
"""Take too long to be among all."""

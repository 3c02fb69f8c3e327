"""Every cap and time-out that keeps one client from taking the server away from the others."""

from dataclasses import dataclass

from gyoza.models.limits import BODY_BYTES, MIB, SMALL_BODY_BYTES


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the server puts up with; all times in seconds, all sizes in bytes.

    Attributes:
        idle_s: For the head of a request, and between two requests. Longer than clients keep a
            connection, so that it is never closed under their next request.
        body_bytes: Of a body that may be large.
        small_body_bytes: Of any other.
        bodies_bytes: Of all bodies in memory.
        bodies_of_many_values: Held in memory as values at a time.
        body_s: For a whole body to come, and a second more for each `body_rate` of it that came.
        body_rate: See `body_s`.
        send_s: Without a client taking anything of an answer that is under way.
        rate: Requests a second for each key; 0 for any number.
        burst_s: Seconds' worth of requests that may come at once.
        at_once: Requests that are worked on at a time, heartbeats aside.
        health_rate: Questions a second for the health, from each network.
    """

    idle_s: float = 75.0
    body_bytes: int = BODY_BYTES
    small_body_bytes: int = SMALL_BODY_BYTES
    bodies_bytes: int = 256 * MIB
    bodies_of_many_values: int = 2
    body_s: float = 30.0
    body_rate: int = 16 * 1024
    send_s: float = 30.0
    rate: float = 1000.0
    burst_s: float = 5.0
    at_once: int = 8
    health_rate: float = 200.0

"""Admission: how many connections there are, in all and of each address and key.

Whoever connects is a stranger until a request of his has shown a good key. Strangers make room for
who comes after them, the oldest first, and so do connections that wait for their next request; a
connection whose request is being answered stays. So silence never keeps anybody out. Where all
connections are being answered, a few more are let in, and serve nothing but heartbeats: no run
changes hands because others hold many connections.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import trio

RESERVE = 32
"""Connections beyond the bound, for heartbeats."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How many connections there may be.

    Attributes:
        in_all: Of everybody.
        per_address: Of one address without a good key.
        per_key: With one key.
    """

    in_all: int
    per_address: int
    per_key: int


@dataclass(eq=False)
class Seat:
    """The place of one connection.

    Attributes:
        address: Whose it is.
        scope: Ends the connection.
        key_id: The key that its last request has shown; None for a stranger.
    """

    address: str
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    key_id: str | None = None


class Admission:
    """The connections of a server. Belongs to the Trio thread."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._all: set[Seat] = set()
        # Each in order of age: the first has been there, or has been waiting, for longest.
        self._strangers: dict[Seat, None] = {}
        self._strangers_of: defaultdict[str, dict[Seat, None]] = defaultdict(dict)
        self._waiting: dict[Seat, None] = {}
        self._waiting_of: defaultdict[str, dict[Seat, None]] = defaultdict(dict)
        self._of_key: Counter[str] = Counter()

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._all) >= self._bounds.in_all

    def admit(self, address: str) -> Seat | None:
        """Give a new connection its place; None if there is none."""
        if len(self._strangers_of.get(address, ())) >= self._bounds.per_address:
            self._evict(next(iter(self._strangers_of[address])))
        if self.full and not self.make_room() and self._crowded:
            return None
        seat = Seat(address)
        self._all.add(seat)
        self._strangers[seat] = self._strangers_of[address][seat] = None
        return seat

    def make_room(self) -> bool:
        """End the connection that can best be missed; return whether there was one."""
        seat = next(iter(self._strangers), None) or next(iter(self._waiting), None)
        if seat:
            self._evict(seat)
        return seat is not None

    def begin(self, seat: Seat, key_id: str, *, vital: bool) -> bool:
        """Note that a request with a good key is answered from now on; return whether it may be.

        Args:
            seat: Its connection.
            key_id: The key.
            vital: It is a heartbeat, which is answered whatever there is.
        """
        self._settle(seat)
        if seat.key_id != key_id:
            if self._of_key[key_id] >= self._bounds.per_key and self._waiting_of.get(key_id):
                self._evict(next(iter(self._waiting_of[key_id])))
            self._set_key(seat, key_id)
        over = len(self._all) > self._bounds.in_all
        return vital or not (over or self._of_key[key_id] > self._bounds.per_key)

    def wait(self, seat: Seat) -> None:
        """Note that a connection waits for its next request."""
        if seat in self._all and seat.key_id is not None:
            self._waiting[seat] = self._waiting_of[seat.key_id][seat] = None

    def leave(self, seat: Seat) -> None:
        """Note that a connection has ended."""
        self._settle(seat)
        self._set_key(seat, None)
        self._all.discard(seat)

    @property
    def _crowded(self) -> bool:
        return len(self._all) >= self._bounds.in_all + RESERVE

    def _evict(self, seat: Seat) -> None:
        self.leave(seat)
        seat.scope.cancel()

    def _settle(self, seat: Seat) -> None:
        """Take a connection out of those that can be missed."""
        _remove(self._strangers, self._strangers_of, seat.address, seat)
        if seat.key_id is not None:
            _remove(self._waiting, self._waiting_of, seat.key_id, seat)

    def _set_key(self, seat: Seat, key_id: str | None) -> None:
        if seat.key_id is not None:
            self._of_key[seat.key_id] -= 1
            if not self._of_key[seat.key_id]:
                del self._of_key[seat.key_id]
        seat.key_id = key_id
        if key_id is not None:
            self._of_key[key_id] += 1


def _remove(
    seats: dict[Seat, None], groups: dict[str, dict[Seat, None]], group: str, seat: Seat
) -> None:
    seats.pop(seat, None)
    if group in groups:
        groups[group].pop(seat, None)
        if not groups[group]:
            del groups[group]

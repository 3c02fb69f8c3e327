"""The keys that the server takes, as digests in memory.

A key is `gyoza_ID_SECRET`. The secret has 256 random bits, so that a plain SHA-256 of it can be
stored: nobody can go through the secrets, however fast the digest is.
"""

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import cast

import trio
from starlette.types import Scope

from gyoza.server.json_text import write_text

OWN = "server"
"""Id of the server's own key."""

PREFIX = "gyoza"
SECRET_BYTES = 32


class Role(StrEnum):
    """What the holder of a key may do; see `gyoza.server.access`."""

    ADMIN = "admin"
    CLIENT = "client"
    WORKER = "worker"


@dataclass(frozen=True)
class Key:
    """What the server knows of a key.

    Attributes:
        id: Part of the key itself; `OWN` for the server's own.
        name: For people.
        role: What its holder may do.
        worker: Pattern of the ids of the workers that may use it; empty but for role worker.
        digest: SHA-256 of the whole key.
        created_at: Seconds since 1970.
        tags: The tags that its workers may have, patterns among them; None for any.
        max_runs: How many runs its workers may have together; None for any number.
        expires_at: Seconds since 1970; None for never.
        last_used_at: The same; None for not yet, as far as is known.
    """

    id: str
    name: str
    role: Role
    worker: str
    digest: bytes
    created_at: float = 0.0
    tags: tuple[str, ...] | None = None
    max_runs: int | None = None
    expires_at: float | None = None
    last_used_at: float | None = None

    @property
    def author(self) -> str:
        """Its id and name as JSON, to be kept with what was made with it."""
        return write_text({"id": self.id, "name": self.name})

    @property
    def may_report(self) -> bool:
        """Whether it may report by hand for runs that a worker holds."""
        return self.role == Role.ADMIN

    def allows_tag(self, tag: str) -> bool:
        """Return whether one of its workers may have a tag."""
        return self.tags is None or any(fnmatchcase(tag, allowed) for allowed in self.tags)

    def is_for(self, worker_id: object) -> bool:
        """Return whether this is the id of a worker that may use it."""
        return isinstance(worker_id, str) and fnmatchcase(worker_id, self.worker)


SCOPE_KEY = "gyoza.key"
"""Where the scope of a request has its key."""


def key_of(scope: Scope) -> Key:
    """Return the key of a request that needs one."""
    return cast("Key", scope[SCOPE_KEY])


def digest_of(key: bytes) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(key).digest()


def make_key() -> tuple[str, str]:
    """Return the id of a new key, and the key."""
    key_id = secrets.token_hex(6)
    return key_id, f"{PREFIX}_{key_id}_{secrets.token_urlsafe(SECRET_BYTES)}"


class Keyring:
    """The keys that are good now. Belongs to the Trio thread.

    Args:
        own: The server's own key, which may do everything.
        keys: The others.
        clock: Returns seconds since 1970.

    Attributes:
        used: When keys were used, by their ids, since somebody last took it away to store it.
    """

    def __init__(
        self, own: str, keys: Iterable[Key] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self.used: dict[str, float] = {}
        self._own = _own_key(own)
        self._keys = {key.id: key for key in keys}
        self._waiting: dict[str, set[trio.CancelScope]] = {}
        # Compared in place of a key that there is not, so that this takes the same time.
        self._nobody = Key("", "", Role.WORKER, "", secrets.token_bytes(32))

    def find(self, given: bytes) -> Key | None:
        """Return the key that was given, if it is good, in a time that tells nothing."""
        digest = digest_of(given)
        _, _, rest = given.partition(b"_")
        named = self._keys.get(rest.partition(b"_")[0].decode("latin-1"), self._nobody)
        good = [key for key in (self._own, named) if hmac.compare_digest(digest, key.digest)]
        if not good or not self.is_good(good[0]):
            return None
        if good[0] is not self._own:
            self.used[good[0].id] = self._clock()
        return good[0]

    def is_good(self, key: Key) -> bool:
        """Return whether a key that was found before is good still."""
        known = key is self._own or self._keys.get(key.id) is key
        return known and (key.expires_at is None or key.expires_at > self._clock())

    def add(self, key: Key) -> None:
        """Take a key from now on."""
        self._keys[key.id] = key

    def revoke(self, key_id: str) -> None:
        """Take a key no more, and end what its holder waits for or follows."""
        self._keys.pop(key_id, None)
        self._end_waits(key_id)

    def replace_own(self, own: str) -> None:
        """Take another own key in place of the one before, and end what its holder waits for."""
        self._own = _own_key(own)
        self._end_waits(self._own.id)

    @contextmanager
    def waiting(self, key: Key) -> Generator[trio.CancelScope]:
        """Cancel the block as soon as the key is good no more."""
        waits = self._waiting.setdefault(key.id, set())
        left_s = math.inf if key.expires_at is None else key.expires_at - self._clock()
        with trio.move_on_after(max(0.0, left_s)) as scope:
            waits.add(scope)
            try:
                yield scope
            finally:
                waits.discard(scope)
                if not waits:
                    self._waiting.pop(key.id, None)

    def _end_waits(self, key_id: str) -> None:
        for scope in self._waiting.get(key_id, ()):
            scope.cancel()


def _own_key(value: str) -> Key:
    return Key(OWN, "the server's own", Role.ADMIN, "", digest_of(value.encode()))

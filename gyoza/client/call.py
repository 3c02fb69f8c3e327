"""One request to the server, described for both clients."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx

from gyoza.client.parse import Json
from gyoza.client.retry import READ, RetryRule
from gyoza.models.limits import ANSWER_BYTES, MIB

T = TypeVar("T")

SMALL = MIB
"""Bytes of an answer that holds no run."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request to make, and how to read its answer.

    Attributes:
        text: The body, where that is plain text and no JSON.
        wait_s: Seconds for which the server may hold the answer back; added to the time-out.
        max_bytes: How large the answer may be.
    """

    method: str
    path: str
    parse: Callable[[httpx.Response], T]
    body: Json | None = None
    text: str | None = None
    params: dict[str, Any] = field(default_factory=dict[str, Any])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    retry: RetryRule = READ
    wait_s: float = 0.0
    max_bytes: int = ANSWER_BYTES

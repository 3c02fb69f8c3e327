"""Token buckets: how many requests somebody may make."""

import math
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

import trio

MAX_KNOWN = 4096
"""How many keys or networks are remembered: what they cost is bounded, whoever comes."""


class Rates:
    """A token bucket for each name; the names not heard of for longest are forgotten.

    Args:
        rate: Tokens a second; 0 for any number.
        burst: Tokens in a full bucket.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._step = 1 / rate if rate else 0.0
        self._depth = self._step * max(burst, 1.0)
        # For each bucket when it will be full again: all that has to be known of it.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, name: str) -> float:
        """Take a token; return 0, or the seconds until there will be one."""
        now = trio.current_time()
        full_at = max(self._full_at.pop(name, now), now) + self._step
        wait = full_at - self._depth - now
        self._full_at[name] = full_at if wait <= 1e-9 else full_at - self._step
        if len(self._full_at) > MAX_KNOWN:
            self._full_at.popitem(last=False)
        return wait if wait > 1e-9 else 0.0


def network_of(address: str) -> str:
    """Return what one guesser has: an IPv4 address, or the 64 bits that an IPv6 host is given."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is None:
        return ip.exploded[:19]
    return str(getattr(ip, "ipv4_mapped", None) or ip)


def retry_after(wait_s: float) -> bytes:
    """Return the header's value: whole seconds, at least one."""
    return str(max(1, math.ceil(wait_s))).encode()

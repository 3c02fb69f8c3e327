"""Which proxy is on the way to a server, as the usual variables say."""

from collections.abc import Generator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.request import getproxies, proxy_bypass

import httpx

from gyoza.client.errors import InvalidProxy


def proxy_of(url: httpx.URL) -> str | None:
    """Return the URL of the proxy for a server; None if it is reached directly.

    `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` name it, or what the system has set up. No proxy
    stands between this machine and itself, whatever they say.
    """
    found = getproxies()
    proxy = found.get(url.scheme) or found.get("all")
    if not proxy or _is_direct(url, found.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_direct(url: httpx.URL, no_proxy: str) -> bool:
    """Whether `NO_PROXY` names the server: by name, domain, address or network."""
    port = url.port or (443 if url.scheme == "https" else 80)
    address = _address(url.host)
    if address is None:
        return url.host == "localhost" or bool(proxy_bypass(f"{url.host}:{port}"))
    return (
        address.is_loopback
        or bool(proxy_bypass(url.host))
        or any(_holds(entry.strip(), address, port) for entry in no_proxy.split(","))
    )


def _holds(entry: str, address: IPv4Address | IPv6Address, port: int) -> bool:
    """Whether an entry is the address, one with its port, or a network that it is in."""
    if entry == "*":
        return True
    if "/" in entry:
        try:
            return address in ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            return False
    # With a port an IPv6 address stands in brackets; without one its colons are its own.
    host, colon, told = entry.rpartition(":")
    if colon and (host.endswith("]") or ":" not in host):
        return _address(host) == address and told == str(port)
    return _address(entry) == address


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None


@contextmanager
def proxies_from_env() -> Generator[None]:
    """Tell what is wrong with the variables for proxies.

    Raises:
        InvalidProxy: If one of them is.
    """
    try:
        yield
    except ImportError as error:
        raise InvalidProxy(
            "A proxy of the kind SOCKS needs the package socksio; run `pip install httpx[socks]`, "
            "or set ALL_PROXY, HTTPS_PROXY and HTTP_PROXY to one that speaks HTTP."
        ) from error
    except (ValueError, httpx.InvalidURL):
        raise InvalidProxy(
            "The proxy that ALL_PROXY, HTTPS_PROXY or HTTP_PROXY names is no URL like "
            "http://proxy.example:3128; correct it."
        ) from None  # the error shows the URL, and its password

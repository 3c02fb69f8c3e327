"""nginx and HAProxy as docs/behind-a-reverse-proxy.md sets them up, as processes of nobody."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import trio

from gyoza.client import Access
from tests.server.api import KEY
from tests.support.authority import Authority

PAGE = Path(__file__).parents[2] / "docs" / "behind-a-reverse-proxy.md"
MARKED = re.compile(r"^<!-- tested: (\S+) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)

Change = tuple[str, str]

_NGINX = """
daemon off;
pid pid;
error_log stderr notice;
worker_processes 1;
events {{}}
http {{
    log_format test '$request_method $request_uri $status';
    access_log syslog:server=127.0.0.1:{log},nohostname test;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{page}
}}
"""
_HAPROXY_LOG = """defaults
    log 127.0.0.1:{log} format raw local0
    log-format "%HM %HU %ST"
"""
_PLAIN = {"nginx": "    listen 80;\n", "haproxy": "    bind :80\n"}
_NO_PREFIX = {
    "nginx": "    location / {\n        proxy_pass http://gyoza;\n",
    "haproxy": "    default_backend gyoza\n",
}
_COMMANDS = {
    "nginx": ("nginx", "-p", "{folder}", "-e", "stderr", "-c", "{file}"),
    "haproxy": ("haproxy", "-W", "-db", "-f", "{file}"),
}
_LISTENS = {"nginx": b"start worker process ", "haproxy": b"Loading success."}


def blocks() -> dict[str, str]:
    """Return the configurations of the page by the names that they have there."""
    return dict(MARKED.findall(PAGE.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Setup:
    """A set-up of the page.

    Attributes:
        program: The proxy.
        tls: Clients come by TLS.
        asks_for_certificates: Clients show certificates.
        prefix: What the proxy does with the prefix `/gyoza`; empty if there is none.
        changes: What is written in place of what is on the page.
    """

    program: Literal["nginx", "haproxy"]
    tls: bool = False
    asks_for_certificates: bool = False
    prefix: Literal["", "taken-off", "passed-on"] = ""
    changes: tuple[Change, ...] = ()

    def but(self, *changes: Change) -> "Setup":
        """Return it with further changes."""
        return replace(self, changes=(*self.changes, *changes))

    @property
    def path(self) -> str:
        """Where clients find the server below the proxy's address."""
        return "/gyoza" if self.prefix else ""

    def text(self) -> str:
        """Return the configuration as somebody who reads the page would write it."""
        page = blocks()
        begin, tls = page[self.program], page[f"{self.program}-tls"]
        changes: list[Change] = []
        if self.tls:
            changes.append((_PLAIN[self.program], tls))
        if self.asks_for_certificates:
            certificates = page[f"{self.program}-client-certificates"]
            changes.append((tls, tls + certificates if self.program == "nginx" else certificates))
        if self.prefix and self.program == "nginx":
            changes.append((_NO_PREFIX["nginx"], page[f"nginx-prefix-{self.prefix}"]))
        elif self.prefix:
            changes.append((_NO_PREFIX["haproxy"], page["haproxy-prefix-passed-on"]))
        if (self.program, self.prefix) == ("haproxy", "taken-off"):
            backend = "backend gyoza\n"
            changes.append((backend, backend + page["haproxy-prefix-taken-off"]))
        return changed(begin, [*changes, *self.changes])

    def text_for(self, place: "Place") -> str:
        """Return the configuration with the files and addresses of a test."""
        text = changed(self.text(), [("127.0.0.1:5555", f"127.0.0.1:{place.upstream}")])
        for path, own in place.files.items():
            text = text.replace(path, own)
        if self.program == "nginx":
            text = re.sub(r"listen \d+", f"listen 127.0.0.1:{place.port}", text)
            return _NGINX.format(page=text, log=place.log)
        text = re.sub(r"bind :\d+", f"bind 127.0.0.1:{place.port}", text)
        return changed(text, [("defaults\n", _HAPROXY_LOG.format(log=place.log))])


NGINX, HAPROXY = Setup("nginx"), Setup("haproxy")
HTTP_1_0 = NGINX.but(
    ("        proxy_http_version 1.1;\n", ""),
    ('        proxy_set_header Connection "";\n', ""),
)


def each(setups: dict[str, Setup]) -> pytest.MarkDecorator:
    """Run a test once with each of these as its argument `setup`."""
    return pytest.mark.parametrize("setup", setups.values(), ids=setups.keys())


def changed(text: str, changes: list[Change]) -> str:
    """Return the text with each of these put in the place of what is there, once."""
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


class Place:
    """What a proxy of a test has for its own.

    Attributes:
        folder: Its files.
        port: Where it listens.
        upstream: Where its server listens.
        log: Where it sends what it tells of its requests.
        files: Paths of the page, each with the file that stands for it.
        ca_file: Who has issued its certificate and that of its client.
        client: The client's certificate.
    """

    def __init__(self, folder: Path, upstream: int, log: int) -> None:
        authority = Authority(folder / "authority")
        own = authority.issue("127.0.0.1")
        both = folder / "both.pem"
        both.write_bytes(Path(own.cert).read_bytes() + Path(own.key).read_bytes())
        self.folder = folder
        self.port = free_port()
        self.upstream = upstream
        self.log = log
        self.ca_file = authority.ca_file
        self.client = authority.issue("client")
        self.files = {
            "/etc/ssl/gyoza/fullchain.pem": own.cert,
            "/etc/ssl/gyoza/key.pem": own.key,
            "/etc/ssl/gyoza/clients-ca.pem": authority.ca_file,
            "/etc/haproxy/gyoza.pem": str(both),
            "/etc/haproxy/clients-ca.pem": authority.ca_file,
        }
        for path in (folder, *folder.rglob("*")):
            _give_to_nobody(path)


class ReverseProxy:
    """A proxy before a server, which may have several lives at one address.

    Attributes:
        access: How a client reaches the server through it.
        answered: Method, path with query, and status of each request that it is done with.
    """

    def __init__(self, setup: Setup, place: Place, nursery: trio.Nursery) -> None:
        self._program = setup.program
        self._folder = place.folder
        self._file = place.folder / "proxy.conf"
        self._file.write_text(setup.text_for(place))
        self._nursery = nursery
        self._process: trio.Process | None = None
        self._news = trio.Event()
        self.answered: list[tuple[str, str, str]] = []
        scheme = "https" if setup.tls else "http"
        self.access = Access(
            url=f"{scheme}://127.0.0.1:{place.port}{setup.path}",
            api_key=KEY,
            ca_file=place.ca_file if setup.tls else None,
            client_cert=place.client.cert if setup.asks_for_certificates else None,
            client_key=place.client.key if setup.asks_for_certificates else None,
        )

    async def start(self) -> None:
        """Run it; it listens after this."""
        with trio.fail_after(200):
            await self._nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[None]) -> None:
        said = b""
        self._process = process = await trio.lowlevel.open_process(
            self._command(), stderr=subprocess.PIPE, cwd=self._folder, **_as_nobody()
        )
        try:
            assert isinstance(process.stderr, trio.abc.ReceiveStream)
            async for part in process.stderr:
                if _LISTENS[self._program] in said + part and _LISTENS[self._program] not in said:
                    task_status.started()
                said += part
        finally:
            with trio.move_on_after(10, shield=True):
                process.terminate()
                await process.wait()
            process.kill()
            print(said.decode())  # noqa: T201
        assert self._process is not process, "the proxy has ended"

    def _command(self) -> list[str]:
        name, *arguments = _COMMANDS[self._program]
        program = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
        package = {"nginx": "nginx-light"}.get(name, name)
        assert program, f"install the package {package}; .ci/with-engine does"
        return [program, *(a.format(folder=self._folder, file=self._file) for a in arguments)]

    async def stop(self) -> None:
        """End it, and with it every connection."""
        process, self._process = self._process, None
        assert process is not None
        process.terminate()
        await process.wait()

    async def answers(self, path: str, *statuses: int, times: int = 1) -> None:
        """Wait until it is done with so many more requests, of a path with this in it.

        Args:
            path: Part of the path.
            statuses: With one of these; with any if there are none.
            times: How many.
        """
        begin = len(self.answered)
        wanted = {str(status) for status in statuses}
        while True:
            of_path = [a for a in self.answered[begin:] if path in a[1]]
            if sum(not wanted or status in wanted for _, _, status in of_path) >= times:
                return
            await self._news.wait()

    async def read_log(self, log: trio.socket.SocketType) -> None:
        """Take in what it tells of its requests."""
        while True:
            words = (await log.recv(65536)).decode().split()
            method, target, status = words[-3:]
            self.answered.append((method, target, status))
            self._news.set()
            self._news = trio.Event()


def free_port() -> int:
    """Return a port of the loopback interface where nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _give_to_nobody(path: Path) -> None:
    if as_nobody := _as_nobody():
        os.chown(path, as_nobody["user"], as_nobody["group"])


@asynccontextmanager
async def open_reverse_proxy(setup: Setup, upstream: int) -> AsyncGenerator[ReverseProxy]:
    """Run the proxy before the server that listens on a port of this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="gyoza-proxy.") as name,
        trio.socket.socket(type=socket.SOCK_DGRAM) as log,
    ):
        await log.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            proxy = ReverseProxy(setup, Place(Path(name), upstream, log.getsockname()[1]), nursery)
            nursery.start_soon(proxy.read_log, log)
            await proxy.start()
            yield proxy
            nursery.cancel_scope.cancel()

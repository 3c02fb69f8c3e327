"""The network of gyoza's own on the Docker Engine: ops in it do not reach each other.

It is made when it is first needed, and again after somebody has removed it. Its interface on the
machine is named after the engine, and an engine takes each name once: of two workers that make the
network at the same time, one makes it and the other finds it.
"""

import hashlib
import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import docker.errors

from gyoza.worker.containers.docker_client import OUTAGES, words_of
from gyoza.worker.containers.docker_http import EngineHttp
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.engine import OWN_NETWORK
from gyoza.worker.errors import ContainerNotFound, EngineFailed

_errors: Any = docker.errors

INTERFACE = "gyoza-"
"""How the name of its interface on the machine begins, for rules of a firewall."""

LABELS = {"gyoza.network": "own"}
ICC = "com.docker.network.bridge.enable_icc"
NAME = "com.docker.network.bridge.name"

logger = logging.getLogger(__name__)


class OwnNetwork:
    """The network on one engine.

    Args:
        docker: The engine.
    """

    def __init__(self, docker: DockerThreads) -> None:
        self._docker = docker
        self._name: str | None = None

    async def name(self) -> str:
        """Return the name of the network to use, made if it is not there.

        An engine that refuses it gets a plain one of that name, and if it refuses that, too, the
        containers are in its default network; the log says so.

        Raises:
            EngineUnavailable: If the engine does not answer.
        """
        if self._name is None:
            self._name = await self._docker.ask(_ensured, slow=True)
        return self._name

    @contextmanager
    def looked_for_again(self) -> Generator[None]:
        """Look for it anew after a refusal in the block: somebody may have removed it."""
        try:
            yield
        except ContainerNotFound:
            self._name = None
            raise
        except EngineFailed as error:
            if self._name is None or f"network {self._name} not found" not in str(error):
                raise
            self._name = None
            raise ContainerNotFound(str(error)) from error


def _ensured(client: EngineHttp) -> str:
    refusal = ""
    for own in (True, False):
        try:
            if _is_there(client):  # perhaps made by another worker meanwhile
                return OWN_NETWORK
            client.ask("POST", "/networks/create", body=_body(_options(client) if own else {}))
            if not own:
                _warn(f"its own network does not keep ops from each other ({refusal})")
            return OWN_NETWORK
        except _errors.APIError as error:
            refusal = words_of(error)
            if error.status_code > 500 or refusal.endswith(OUTAGES):  # it is about to end
                raise
    try:
        if _is_there(client):
            return OWN_NETWORK
    except _errors.APIError as error:
        refusal = words_of(error)
    _warn(f"it has no network of gyoza's own and ops are in `bridge` ({refusal})")
    return "bridge"


def _is_there(client: EngineHttp) -> bool:
    try:
        return client.ask("GET", f"/networks/{OWN_NETWORK}")["Name"] == OWN_NETWORK
    except _errors.NotFound:
        return False


def _options(client: EngineHttp) -> dict[str, str]:
    engine = str(client.ask("GET", "/info").get("ID"))
    interface = INTERFACE + hashlib.sha256(engine.encode()).hexdigest()[:6]
    return {ICC: "false", NAME: interface}


def _body(options: dict[str, str]) -> dict[str, Any]:
    return {
        "Name": OWN_NETWORK,
        "CheckDuplicate": True,
        "Driver": "bridge",
        "Options": options,
        "Labels": LABELS,
    }


def _warn(what: str) -> None:
    logger.warning(
        "The Docker Engine refuses what keeps ops from each other: %s. An op can reach what other "
        "ops listen on; see docs/security.md.",
        what,
    )

"""The docker-py client: made from the environment, its errors told in our own words."""

import http.client
import os
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import docker.tls
import docker.utils
import requests
import requests.adapters
import urllib3.exceptions
from docker.constants import MINIMUM_DOCKER_API_VERSION

from gyoza.worker.containers.docker_address import EngineAddress
from gyoza.worker.containers.docker_call import tell_calls
from gyoza.worker.containers.docker_faults import is_engines_fault
from gyoza.worker.containers.docker_http import EngineHttp
from gyoza.worker.errors import (
    ContainerNotFound,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    ImageNotFound,
)

_docker: Any = docker
_errors: Any = docker.errors
_tls: Any = docker.tls
_utils: Any = docker.utils

# How a refusal ends that says no more than that the engine goes down, or lacks its containerd.
OUTAGES = ("unavailable", "transport is closing", "context canceled", "ttrpc: closed")


def connect(address: EngineAddress, timeout_s: float, pool_size: int) -> EngineHttp:
    """Return a client for an engine.

    It speaks the API version of the engine, unless another is set, and ends the connection after
    every request: none is found broken after a restart of the engine, and each can be shut down by
    its `Call`.

    Args:
        address: Where the engine is.
        timeout_s: Longest wait for a connection and for each part of an answer.
        pool_size: How many requests may be under way at once.

    Raises:
        EngineUnavailable: If the variables ask for TLS that trusts everybody.
    """
    settings = _settings(address)
    if "tls" in settings and not settings["tls"].verify:
        raise EngineUnavailable(
            "With DOCKER_CERT_PATH alone any engine would be believed; set DOCKER_TLS_VERIFY=1."
        )

    def client_for(version: str) -> Any:
        client = _docker.APIClient(
            **settings, version=version, timeout=timeout_s, max_pool_size=pool_size
        )
        client.headers["Connection"] = "close"
        # requests would let REQUESTS_CA_BUNDLE overrule DOCKER_CERT_PATH.
        client.trust_env = False
        if client.base_url.startswith("http:") or client.base_url.startswith("https:"):
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=pool_size)
            client.mount(client.base_url, adapter)
        tell_calls(client.get_adapter(client.base_url))
        return client

    asker = client_for(MINIMUM_DOCKER_API_VERSION)
    version: str = address.version or asker.version(api_version=False)["ApiVersion"]
    return EngineHttp(client_for(version), client_for(version))


def _settings(address: EngineAddress) -> dict[str, Any]:
    """Return docker-py's arguments for an address."""
    if address.context is None:
        return _utils.kwargs_from_env()
    folder = address.certificates
    if folder is None:
        return {"base_url": address.host}
    files = {name: str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")}
    there = {name: file for name, file in files.items() if os.path.exists(file)}
    own = (files["cert.pem"], files["key.pem"]) if "cert.pem" in there else None
    tls = _tls.TLSConfig(client_cert=own, ca_cert=there.get("ca.pem"), verify=True)
    return {"base_url": address.host, "tls": tls}


@contextmanager
def own_errors(host: str) -> Generator[None]:
    """Raise what docker-py and its transport raise as errors of our tree."""
    try:
        yield
    except (
        *(OSError, ValueError, KeyError, MemoryError),
        *(http.client.HTTPException, urllib3.exceptions.HTTPError),
    ) as error:
        # The errors of requests, and of docker-py for refusals, are OSErrors.
        raise _translate(error, host) from error
    except _errors.DockerException as error:
        raise EngineUnavailable(f"The Docker settings cannot be used: {error}") from error


def words_of(error: Any) -> str:
    """Return the engine's explanation for a refusal, without its full stop."""
    words = str(getattr(error, "explanation", None) or error).strip().rstrip(".")
    if words.startswith("<"):  # the page of a proxy before the engine
        return f"{error.status_code} {error.response.reason}"
    return words


def _translate(error: Exception, host: str) -> EngineError:
    if isinstance(error, _errors.APIError):
        return _refusal(error, host)
    causes = list(_causes(error))

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    # First, since the error about a certificate is a ValueError as well.
    if caused_by(ssl.SSLError, requests.exceptions.SSLError):
        return EngineUnavailable(
            f"No secure connection to the Docker Engine at {host};"
            f" check DOCKER_TLS_VERIFY and DOCKER_CERT_PATH ({causes[-1]})."
        )
    if caused_by(ValueError, KeyError):  # an answer that makes no sense
        return EngineUnavailable(f"What answers at {host} is not a Docker Engine.")
    if caused_by(PermissionError):
        return EngineUnavailable(
            f"The Docker Engine at {host} does not permit access; add your user to the group"
            " docker and log in again, or use sudo."
        )
    if caused_by(FileNotFoundError, ConnectionRefusedError, urllib3.exceptions.NameResolutionError):
        return EngineUnavailable(
            f"No Docker Engine answers at {host}; start Docker or set DOCKER_HOST."
        )
    if caused_by(TimeoutError, requests.Timeout, urllib3.exceptions.TimeoutError):
        return EngineUnavailable(f"The Docker Engine at {host} did not answer in time.")
    # An engine that refuses a certificate may be gone before its reason is read.
    hint = "; see whether it accepts the certificate in DOCKER_CERT_PATH"
    return EngineUnavailable(
        f"The connection to the Docker Engine at {host} broke: {causes[-1]}"
        f"{hint if os.environ.get('DOCKER_TLS_VERIFY') else ''}."
    )


def _refusal(error: Any, host: str) -> EngineError:
    words = words_of(error)
    if isinstance(error, _errors.ImageNotFound):
        return ImageNotFound(f"{words}.")
    if "could not select device driver" in words and "gpu" in words:
        words += "; install the NVIDIA container toolkit for GPUs in containers"
    if is_engines_fault(error.status_code, words) and not _is_outage(error, words):
        return EngineFailed(f"The Docker Engine failed: {words}.")
    if error.status_code == 404:
        return ContainerNotFound(f"{words}.")
    if _is_outage(error, words):
        return EngineUnavailable(f"The Docker Engine at {host} is not ready: {words}.")
    if "HTTPS server" in words:
        return EngineUnavailable(
            f"The Docker Engine at {host} wants TLS; set DOCKER_TLS_VERIFY and DOCKER_CERT_PATH."
        )
    return EngineError(f"The Docker Engine refused: {words}.")


def _is_outage(error: Any, words: str) -> bool:
    status: int = error.status_code
    return status > 500 or (status == 500 and words.endswith(OUTAGES))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what led to it; requests and urllib3 keep that in several places."""
    seen: list[BaseException] = []
    pending: list[Any] = [error]
    while pending:
        cause = pending.pop(0)
        if isinstance(cause, BaseException) and cause not in seen:
            seen.append(cause)
            yield cause
            pending += [*cause.args, getattr(cause, "reason", None)]
            pending += [cause.__cause__, cause.__context__]

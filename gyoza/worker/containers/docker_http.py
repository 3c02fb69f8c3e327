"""Requests to the engine on docker-py's connections, without the machinery in between.

docker-py finds the engine, its TLS and its API version, and makes the connections. To send, it goes
through requests, which takes several times the CPU of all else in a call; a worker makes seven
calls for each run.
"""

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import docker.errors
import requests
import urllib3

_errors: Any = docker.errors

Response = urllib3.HTTPResponse


class EngineHttp:
    """Sends requests to one engine.

    Args:
        api: A `docker.APIClient` of its own: its pool of connections is used for nothing else.
        docker_py: The client for what is asked for seldom.

    Attributes:
        docker_py: See the arguments.
        timeout_s: Longest wait for a connection and for each part of an answer.
    """

    def __init__(self, api: Any, docker_py: Any) -> None:
        self.docker_py = docker_py
        self.timeout_s: float = api.timeout
        adapter: Any = api.get_adapter(api.base_url)
        request = requests.Request("GET", api.base_url).prepare()
        self._pool: Any = adapter.get_connection_with_tls_context(
            request, api.verify, cert=api.cert
        )
        adapter.cert_verify(self._pool, api.base_url, api.verify, api.cert)
        self._prefix = f"{urlsplit(str(api.base_url)).path.rstrip('/')}/v{api.api_version}"
        configured: dict[str, str] = api._general_configs.get("HttpHeaders") or {}
        self._headers: dict[str, str] = {**api.headers, **configured}
        self._api = api

    def close(self) -> None:
        """Release the connections; none outlives its call anyway."""
        self._api.close()
        self.docker_py.close()

    def send(
        self,
        method: str,
        path: str,
        params: dict[str, Any] | None = None,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        endless: bool = False,
    ) -> Response:
        """Send a request and return the response when its head has arrived; the body may last.

        Args:
            method: Of HTTP.
            path: Without the API version.
            params: What stands behind the question mark.
            body: Of the request.
            headers: Beside those of every request.
            endless: Any time may pass between two parts of the answer.

        Raises:
            docker.errors.APIError: If the engine refuses.
        """
        target = self._prefix + quote(path) + (f"?{urlencode(params)}" if params else "")
        response: Response = self._pool.urlopen(
            method,
            target,
            body=body,
            headers={**self._headers, **(headers or {})},
            timeout=urllib3.Timeout(self.timeout_s, None if endless else self.timeout_s),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        if response.status >= 400:
            raise _refusal(response)
        return response

    def ask(
        self, method: str, path: str, params: dict[str, Any] | None = None, body: Any = None
    ) -> Any:
        """Send a request, with JSON if there is a body, and return the JSON of the answer.

        Raises:
            docker.errors.APIError: If the engine refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else None
        answer = self.send(method, path, params, body=data, headers=headers).data
        return json.loads(answer) if answer else None


def _refusal(response: Response) -> Exception:
    """Return docker-py's error for an answer."""
    text = response.data.decode(errors="replace").strip()
    try:
        words: str = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        words = text
    kind = _errors.APIError
    if response.status == 404:
        kind = _errors.ImageNotFound if "no such image" in words.lower() else _errors.NotFound
    told = SimpleNamespace(status_code=response.status, reason=response.reason, url="")
    return kind(words, response=told, explanation=words)

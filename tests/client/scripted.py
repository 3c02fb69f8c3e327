"""A server over real HTTP that answers what a test tells it, and remembers what it was asked."""

import json
import ssl
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Request:
    method: str
    path: str
    headers: Message
    body: Any


@dataclass
class Answer:
    """What to answer; a status of 0 drops the connection without a word."""

    body: Any = field(default_factory=dict[str, Any])
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    cut: bool = False  # promise more of the body than is sent

    @property
    def content(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


DROP = Answer(status=0)


@dataclass
class Scripted:
    """The last answer is given again and again."""

    url: str
    answers: list[Answer] = field(default_factory=list[Answer])
    requests: list[Request] = field(default_factory=list[Request])


class _Server(ThreadingHTTPServer):
    script: Scripted


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def _answer(self) -> None:
        script = self.server.script
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        told = json.loads(body) if body and self.command != "PUT" else body.decode() or None
        asked = Request(self.command, self.path, self.headers, told)
        script.requests.append(asked)
        answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
        self.close_connection = True
        if answer.status == 0:
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(len(answer.content) + answer.cut))
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked does not want all of it
            self.wfile.write(answer.content)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def scripted_server(*answers: Answer, tls: ssl.SSLContext | None = None) -> Generator[Scripted]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        scheme = "http"
        if tls is not None:
            scheme, server.socket = "https", tls.wrap_socket(server.socket, server_side=True)
        server.script = Scripted(f"{scheme}://127.0.0.1:{server.server_port}", list(answers))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.script
        finally:
            server.shutdown()
            thread.join()

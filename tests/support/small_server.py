"""The small server: the least a worker must be able to live with, over real HTTP.

It answers heartbeats with `{}`, hands out each run once, tells a run's state, takes events, and
answers 404 to everything else.
"""

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import parse_qs

import trio

from gyoza.server.http import Bounds, serve_http
from gyoza.server.http.admission import Admission
from gyoza.server.http.connection import Service

Json = dict[str, Any]


@dataclass
class SmallServer:
    """The state of the server, for tests to fill and to look at."""

    runs: dict[str, Json] = field(default_factory=dict[str, Json])
    events: list[Json] = field(default_factory=list[Json])
    heartbeats: list[Json] = field(default_factory=list[Json])
    drained: bool = False
    requests: list[str] = field(default_factory=list[str])
    url: str = ""
    on_claim: Callable[[], None] | None = None
    generous: bool = False
    hand_out: Any = None
    odd_answer: Any = None
    keeps_logs: bool = False
    keeps_batches: bool = False
    logs: dict[str, str] = field(default_factory=dict[str, str])
    changes: list[Json] = field(default_factory=list[Json])
    told_at_heartbeats: dict[str, str] = field(default_factory=dict[str, str])
    lease_s: float | None = None
    whole_logs: set[str] = field(default_factory=set[str])
    takes_back: bool = False
    most_text: int | None = None
    releases: list[Json] = field(default_factory=list[Json])
    claims: list[Json] = field(default_factory=list[Json])
    waits: list[float] = field(default_factory=list[float])
    _foreign: dict[str, tuple[int, bytes]] = field(default_factory=dict[str, tuple[int, bytes]])
    _dripping: set[str] = field(default_factory=set[str])
    _drops: set[str] = field(default_factory=set[str])
    _refusals: dict[tuple[str, str], list[tuple[int, Json]]] = field(
        default_factory=dict[tuple[str, str], list[tuple[int, Json]]]
    )
    _claimed: set[str] = field(default_factory=set[str])
    _news: trio.Event = field(default_factory=trio.Event)

    def submit(self, run_id: str, image: str, **fields: Any) -> None:
        """Queue a run with no more fields than a small server's runs have."""
        run: Json = {
            "id": run_id,
            "image": image,
            "inputs": {},
            "constraints": {},
            "state": "PENDING",
        }
        self.runs[run_id] = run | fields
        self._tell()

    @property
    def told(self) -> list[str]:
        """The types of all events taken, in order."""
        return [event["type"] for event in self.events]

    def cancel(self, run_id: str) -> None:
        """Cancel a run."""
        self.runs[run_id]["state"] = "CANCELLED"

    def refuse(self, method: str, path: str, status: int, detail: str, times: int = 99) -> None:
        """Answer the next requests of this kind with an error."""
        self._refusals[method, path] = [(status, {"detail": detail})] * times

    def refuse_type(self, event_type: str, status: int, detail: str) -> None:
        """Answer every event of this type with an error."""
        self._refusals["event", event_type] = [(status, {"detail": detail})] * 99

    def hide(self, *requests: str, status: int, body: bytes = b"<html>Not me.</html>") -> None:
        """Let something else on the way answer these requests, `METHOD /path`, until `reveal`."""
        self._foreign |= dict.fromkeys(requests, (status, body))

    def drip(self, *requests: str) -> None:
        """Answer these requests byte by byte, without end, until `reveal`."""
        self._dripping.update(requests)

    def reveal(self) -> None:
        """Answer every request again."""
        self._foreign.clear()
        self._dripping.clear()

    def drop(self, *requests: str) -> set[str]:
        """Leave one of each of these requests without an answer; return those still to drop."""
        self._drops = set(requests)
        return self._drops

    def hand_out_again(self, run_id: str) -> None:
        """Give the run in the next claim once more, as if the answer had been lost."""
        self._claimed.discard(run_id)

    def take(self, *run_ids: str) -> None:
        """Hand these runs out no more, as if a worker had claimed them."""
        self._claimed.update(run_ids)

    async def wait_until(self, holds: Callable[[], bool]) -> None:
        """Wait until a request has made the condition true."""
        while not holds():
            await self._news.wait()

    async def wait_for_event(self, kind: str, run_id: str) -> Json:
        """Wait for an event of a run and return it."""

        def matching() -> list[Json]:
            return [e for e in self.events if e["type"] == kind and e["run_id"] == run_id]

        await self.wait_until(lambda: bool(matching()))
        return matching()[0]

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    def answer(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        """Answer one request."""
        if refusals := self._refusals.get((method, path)):
            return refusals.pop()
        match method, path.strip("/").split("/"):
            case _, ["workers", *_, "heartbeat" | "changes"] if self.odd_answer is not None:
                return 200, self.odd_answer
            case "POST", ["workers", "heartbeat"]:
                self.heartbeats.append(body)
                states = self.told_at_heartbeats
                lease: Json = {"lease_s": self.lease_s} if self.lease_s else {}
                drain: Json = {"drain": True} if self.drained else {}
                return 200, lease | drain | ({"states": states} if states else {})
            case "POST", ["workers", _, "claim"]:
                self.claims.append(body)
                if self.hand_out is not None:
                    given, self.hand_out = self.hand_out, None
                    return 200, {"runs": given}
                free = [r for r in self.runs.values() if r["id"] not in self._claimed]
                given = free if self.generous else free[: body["max_runs"]]
                self._claimed |= {run["id"] for run in given}
                if given and self.on_claim:
                    self.on_claim()
                for run in given:
                    if run["state"] == "PENDING":
                        run["state"] = "ASSIGNED"
                return 200, {"runs": given}
            case "POST", ["runs", _, "logs"] if (
                self.most_text and len(body["data"]) > self.most_text
            ):
                return 413, {}
            case "POST", ["runs", run_id, "logs"] if self.keeps_logs:
                text = self.logs.get(run_id, "").encode()[: body["offset"]].decode()
                self.logs[run_id] = text + body["data"]
                if body.get("final"):
                    self.whole_logs.add(run_id)
                return 200, {"offset": len(self.logs[run_id].encode())}
            case "POST", ["runs", run_id, "release"] if self.takes_back:
                self.releases.append(body | {"run_id": run_id})
                self._claimed.discard(run_id)
                self.runs[run_id] |= {"state": "PENDING", "current_attempt": body["attempt"] + 1}
                return 200, {"id": run_id, "state": "PENDING"}
            case "GET", ["workers", _, "changes"] if self.changes:
                return 200, self.changes.pop(0) if len(self.changes) > 1 else self.changes[0]
            case "GET", ["runs", run_id] if run_id in self.runs:
                return 200, self.runs[run_id]
            case "POST", ["runs", run_id, "events", "batch"] if self.keeps_batches:
                for event in body["events"]:
                    self.events.append(event | {"run_id": run_id})
                return 200, {"state": self.runs[run_id]["state"]}
            case "POST", ["runs", run_id, "events"] if run_id in self.runs:
                return self._take_event(self.runs[run_id], body)
            case _:
                return 404, {"detail": "Not Found"}

    def _take_event(self, run: Json, body: Json) -> tuple[int, Json]:
        if refusals := self._refusals.get(("event", body["type"])):
            return refusals.pop()
        if run["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
            return 409, {"detail": "The run has ended."}
        self.events.append(body | {"run_id": run["id"]})
        moves = {"STARTED": "RUNNING", "COMPLETED": "COMPLETED", "FAILED": "FAILED"}
        run["state"] = moves.get(body["type"], run["state"])
        return 200, run

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak ASGI."""
        data = b""
        more = True
        while more:
            message = await receive()
            data += message.get("body", b"")
            more = message.get("more_body", False)
        if wait_s := parse_qs(scope["query_string"].decode()).get("wait_s"):
            self.waits.append(float(wait_s[0]))
        if (request := f"{scope['method']} {scope['path']}") in self._drops:
            self._drops.remove(request)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            return
        if request in self._dripping:
            self.requests.append(request)
            self._tell()
            await _drip(send)
        if request in self._foreign:
            status, body = self._foreign[request]
        else:
            told: Json = {} if scope["method"] == "PUT" else json.loads(data or b"{}")
            status, answer = self.answer(scope["method"], scope["path"], told)
            body = json.dumps(answer).encode()
        self.requests.append(request)
        headers = [(b"content-type", b"text/html" if body[:1] == b"<" else b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._tell()


async def _drip(send: Any) -> NoReturn:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b" ", "more_body": True})
        await trio.sleep(0.01)


@asynccontextmanager
async def open_small_server() -> AsyncGenerator[SmallServer]:
    """Serve a small server on a free port of the loopback for as long as the block lasts."""
    server = SmallServer()
    admission = Admission(Bounds(in_all=1000, per_address=1000, per_key=1000))
    service = Service(app=server, admission=admission, idle_s=60.0, send_s=60.0)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_http, service, listeners, None, 0.1)
        yield server
        nursery.cancel_scope.cancel()

"""What things on the way to a server say in its place: proxies, gates, pages to log in on."""

from dataclasses import dataclass

import h11
import trio

BLOCK = 65536


@dataclass(frozen=True)
class Page:
    """An answer that is not the server's.

    Attributes:
        status: Its HTTP status.
        reason: The words beside it.
        text: HTML.
        headers: Headers besides those of every answer.
    """

    status: int
    reason: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()


def _nginx(status: int, reason: str) -> Page:
    line = f"{status} {reason}"
    text = (
        f"<html>\r\n<head><title>{line}</title></head>\r\n<body>\r\n"
        f"<center><h1>{line}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )
    return Page(status, reason, text, (("Server", "nginx"),))


WEB_SERVER_IS_DOWN = Page(
    521,
    "",
    "<!DOCTYPE html><html><head><title>example.org | 521: Web server is down</title></head>"
    "<body><h1>Web server is down</h1><span>Error code 521</span></body></html>",
    (("Server", "cloudflare"), ("Cache-Control", "no-store")),
)
TOO_LARGE = _nginx(413, "Request Entity Too Large")
CONFLICT = _nginx(409, "Conflict")
NOT_FOUND = _nginx(404, "Not Found")
UNAUTHORIZED = Page(
    401,
    "Authorization Required",
    _nginx(401, "Authorization Required").text,
    (("Server", "nginx"), ("WWW-Authenticate", 'Basic realm="staff"')),
)
LOGIN = Page(
    200,
    "OK",
    "<!DOCTYPE html><html><head><title>Log in</title></head><body><form method=post action=/login>"
    "<input name=user><input name=password type=password></form></body></html>",
    (("Set-Cookie", "session=0; Path=/; HttpOnly"),),
)


async def answer(client: trio.SocketStream, begun: bytes, page: Page) -> None:
    """Read a request to its end and answer it with a page; say nothing to what is no request.

    Args:
        client: Who asks.
        begun: What has been read of the request, perhaps nothing.
        page: The answer.
    """
    http = h11.Connection(h11.SERVER)
    try:
        if begun:  # to h11 nothing is the end
            http.receive_data(begun)
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.ConnectionClosed):
                return
            if event is h11.NEED_DATA:
                http.receive_data(await client.receive_some(BLOCK))
    except h11.RemoteProtocolError:
        return  # the rest of a request that began before
    body = page.text.encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
        *page.headers,
    ]
    response = h11.Response(status_code=page.status, reason=page.reason, headers=headers)
    for event in (response, h11.Data(data=body), h11.EndOfMessage()):
        await client.send_all(http.send(event) or b"")

"""HTTP/1.1 and 1.0 on Trio: h11 reads and writes the protocol, ASGI applications answer.

`serving` accepts connections and guards each, `admission` bounds how many there are, `connection`
is one of them with its requests one after the other, `exchange` one request with its answer, and
`wire` the bytes between h11 and the stream.
"""

from gyoza.server.http.admission import Bounds, Seat
from gyoza.server.http.serving import serve_http

__all__ = ["Bounds", "Seat", "serve_http"]

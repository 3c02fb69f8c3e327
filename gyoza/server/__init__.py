"""The server: keeps op definitions and op runs, and hands runs to workers.

Example:
    >>> from gyoza.server import start
    >>> start(port=5555)
"""

from gyoza.server.errors import ServerError, StartError
from gyoza.server.main import start
from gyoza.server.serve import serve
from gyoza.server.settings import ServerSettings

__all__ = ["ServerError", "ServerSettings", "StartError", "serve", "start"]

"""Worker main loop.

Entry point called by `gyoza worker start`.
"""

from gyoza.worker.runner.main import start

__all__ = ["start"]

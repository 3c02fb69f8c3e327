"""docker-py as a user's script has it."""

from typing import Any

import docker
import docker.utils

_utils: Any = docker.utils


def connect(**options: Any) -> Any:
    """Return a low-level client of the engine that the Docker variables name, as gyoza does.

    Args:
        options: More arguments of `docker.APIClient`.
    """
    return docker.APIClient(version="auto", **_utils.kwargs_from_env(), **options)

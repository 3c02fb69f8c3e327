"""Target: ids that a server gives and that become paths and the names of containers."""

import re
from pathlib import Path

from gyoza.models import InvalidIdError
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.run_record import run_dir
from tests.fuzz.target import Target

CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
"""As the Docker Engine has it."""


def check_id(data: bytes) -> None:
    """An id is refused, or is a folder right in the work directory and names a container."""
    run_id = data.decode(errors="surrogateescape")
    work_dir = Path("/runs")
    try:
        directory = run_dir(work_dir, run_id, 1)
    except InvalidIdError:
        return
    assert directory.parent == work_dir
    assert directory.name == f"{run_id}.1"
    assert CONTAINER_NAME.match(ContainerIdentity("worker", run_id, 1).name)


IDS = Target(check_id, (b"run_1", b"a" * 63, b"../x", b"a/b", b".", b"a\n", b"r\xff"), longest=100)

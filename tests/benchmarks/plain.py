"""What the floors do: docker-py's low-level client, and no call more than the work needs."""

from typing import Any

from tests.benchmarks.stage import IMAGE


def create(docker: Any, command: list[str], name: str) -> str:
    """Create a container and return its id."""
    config = docker.create_host_config(log_config={"Type": "local", "Config": {}})
    created = docker.create_container(IMAGE, command, labels={"bench": name}, host_config=config)
    return created["Id"]


def run_and_remove(docker: Any, command: list[str], name: str) -> None:
    """Run a container to its end, and remove it."""
    container_id = create(docker, command, name)
    docker.start(container_id)
    assert docker.wait(container_id)["StatusCode"] == 0
    docker.remove_container(container_id, v=True)

"""The Docker Engine behind the contract of `engine.py`, by docker-py in threads."""

import json
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker.errors
import trio

from gyoza.models import ImageName, InvalidImageError
from gyoza.worker.containers.docker_client import words_of
from gyoza.worker.containers.docker_disk import written
from gyoza.worker.containers.docker_exits import Exits, killed_for_memory, saw_exit
from gyoza.worker.containers.docker_files import replace_folders
from gyoza.worker.containers.docker_http import EngineHttp
from gyoza.worker.containers.docker_login import login_headers
from gyoza.worker.containers.docker_network import OwnNetwork
from gyoza.worker.containers.docker_pull import pull_error, read_pull
from gyoza.worker.containers.docker_requests import container_body, refuse_sockets
from gyoza.worker.containers.docker_streams import attach, logs
from gyoza.worker.containers.docker_threads import DockerThreads
from gyoza.worker.containers.docker_wait import wait_for_exit
from gyoza.worker.containers.engine import (
    OWN_NETWORK,
    ContainerEngine,
    ContainerExit,
    ContainerInfo,
    ContainerSpec,
    EngineInfo,
    ImageInfo,
    LogStream,
)
from gyoza.worker.errors import ImagePullError, NameTaken
from gyoza.worker.op_io.disk_use import DiskUse

_errors: Any = docker.errors

LIMITS = {"cpu": "CpuCfsQuota", "memory": "MemoryLimit", "processes": "PidsLimit"}
"""What of a container is limited, by the field in which the engine says whether it can."""

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_docker_engine(
    concurrency: int = 200, deadline_s: float = 30.0
) -> AsyncGenerator["DockerEngine"]:
    """Use the Docker Engine that the variables and contexts of `docker` name.

    It is first spoken to by the first call, so that a worker may start before Docker does.

    Args:
        concurrency: How many containers may run at once.
        deadline_s: How long a call may take, in seconds; create, start and remove four times that.

    Raises:
        SettingsError: If these mean something that is not done here.
    """
    engine = DockerEngine(concurrency, deadline_s)
    try:
        yield engine
    finally:
        engine.close()


class DockerEngine:
    """The Docker Engine; see `ContainerEngine` for the methods and `open_docker_engine`."""

    def __init__(self, concurrency: int = 200, deadline_s: float = 30.0) -> None:
        self._docker = DockerThreads(concurrency, deadline_s)
        self._exits = Exits()
        self._network = OwnNetwork(self._docker)

    def close(self) -> None:
        """Release the client; no connection outlives its call anyway."""
        self._docker.close()

    async def info(self) -> EngineInfo:
        """See `ContainerEngine.info`."""
        info = await self._docker.ask(lambda client: client.docker_py.info())
        unlimited = tuple(what for what, limit in LIMITS.items() if not info.get(limit, True))
        runtimes: dict[str, Any] | None = info.get("Runtimes")
        plugins: dict[str, list[str] | None] = info.get("Plugins") or {}
        log_drivers = plugins.get("Log")
        init: dict[str, str] = info.get("InitCommit") or {}
        return EngineInfo(
            info["ServerVersion"],
            info["DockerRootDir"],
            unlimited,
            cpus=info.get("NCPU"),
            runtimes=None if runtimes is None else tuple(runtimes),
            log_drivers=None if log_drivers is None else tuple(log_drivers),
            # It asks the program for its version, and tells this if it cannot be run.
            has_init=init.get("ID") != "N/A",
        )

    async def has_network(self, network: str) -> bool:
        """See `ContainerEngine.has_network`."""
        if network in ("none", "host"):  # ways of having none of one's own
            return True

        def look(client: EngineHttp) -> bool:
            try:
                client.ask("GET", f"/networks/{network}")
            except _errors.APIError as error:
                if error.status_code == 404:
                    return False
                if error.status_code != 403:  # by what is before its socket
                    raise
            return True

        return await self._docker.ask(look)

    async def find_image(self, image: str) -> ImageInfo | None:
        """See `ContainerEngine.find_image`."""

        def find(client: EngineHttp) -> Any:
            try:
                return client.ask("GET", f"/images/{image}/json")
            except _errors.APIError as error:
                if error.status_code in (400, 404):
                    return None
                raise

        found = await self._docker.ask(find)
        return found and ImageInfo(id=found["Id"], repo_digests=_pulled_digests(found))

    async def image_labels(self, image: str) -> dict[str, str]:
        """Return the labels of a local image; empty if there is none."""

        def read(client: EngineHttp) -> dict[str, str]:
            try:
                return client.docker_py.inspect_image(image)["Config"]["Labels"] or {}
            except _errors.NotFound:
                return {}

        return await self._docker.ask(read)

    async def import_image(self, image: str, archive: Path, changes: list[str]) -> None:
        """Make an image of a tar archive of its root directory.

        Args:
            image: Name and tag.
            archive: The tar file.
            changes: Instructions as in a Dockerfile: `ENV`, `CMD`, `LABEL` and the like.
        """
        name, _, tag = image.rpartition(":")
        await self._docker.ask(
            lambda client: client.docker_py.import_image_from_file(
                str(archive), name, tag, changes
            ),
            slow=True,
        )

    async def remove_image(self, image: str) -> None:
        """Remove a name of an image, and the image with its last name; nothing if absent."""

        def remove(client: EngineHttp) -> None:
            with suppress(_errors.NotFound):
                client.docker_py.remove_image(image, force=True)

        await self._docker.ask(remove, slow=True)

    async def pull(self, image: str, on_progress: Callable[[str], None]) -> None:
        """See `ContainerEngine.pull`."""

        def tell(sentence: str) -> None:
            trio.from_thread.run_sync(on_progress, sentence)

        try:
            name = ImageName.parse(image)
        except InvalidImageError as error:
            raise ImagePullError(f"Cannot pull {image}: {error}") from error

        def pull(client: EngineHttp) -> None:
            params = {"fromImage": name.repository, "tag": name.version}
            headers, trouble = login_headers(name.registry)
            if trouble:
                logger.warning("%s %s is pulled without one.", trouble, image)
            try:
                response = client.send(
                    "POST", "/images/create", params, headers=headers, endless=True
                )
            except _errors.APIError as error:
                raise pull_error(image, words_of(error), trouble) from error
            with response:
                read_pull(image, map(json.loads, response), tell, trouble)

        await self._docker.run(pull, self._docker.pulls)

    async def create(self, spec: ContainerSpec) -> str:
        """See `ContainerEngine.create`; once sent it is not cancelled, so that the id is known."""
        await trio.lowlevel.checkpoint()
        refuse_sockets(spec.volumes, self._docker.host)
        if spec.network == OWN_NETWORK:
            spec = replace(spec, network=await self._network.name())
        body = container_body(spec)

        def create(client: EngineHttp) -> Any:
            try:
                return client.ask("POST", "/containers/create", {"name": spec.name}, body)
            except _errors.APIError as error:
                if error.status_code == 409:
                    raise NameTaken(f"The Docker Engine refused: {words_of(error)}.") from error
                raise

        with self._network.looked_for_again():
            created = await self._docker.ask(create, slow=True, shield=True)
        warnings: list[str] = created.get("Warnings") or []
        for warning in warnings:
            logger.warning("The Docker Engine warns of container %s: %s", spec.name, warning)
        return created["Id"]

    def attach(self, container_id: str) -> AbstractAsyncContextManager[LogStream]:
        """See `ContainerEngine.attach`."""
        return attach(self._docker, container_id)

    def logs(self, container_id: str, *, follow: bool) -> AbstractAsyncContextManager[LogStream]:
        """See `ContainerEngine.logs`."""
        return logs(self._docker, container_id, follow=follow)

    async def start(self, container_id: str) -> None:
        """See `ContainerEngine.start`."""
        with self._network.looked_for_again():
            await self._docker.ask(
                lambda client: client.ask("POST", f"/containers/{container_id}/start"), slow=True
            )

    async def wait(self, container_id: str) -> ContainerExit:
        """See `ContainerEngine.wait`."""
        return await wait_for_exit(self._docker, self._exits, container_id)

    async def killed_for_memory(self, container_id: str) -> bool:
        """See `ContainerEngine.killed_for_memory`."""
        return await killed_for_memory(self._docker, container_id)

    async def saw_exit(self, container_id: str) -> bool:
        """See `ContainerEngine.saw_exit`."""
        return await saw_exit(self._docker, container_id)

    async def hear_exits(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `ContainerEngine.hear_exits`."""
        await self._exits.hear(self._docker, task_status)

    async def ask_to_stop(self, container_id: str) -> None:
        """See `ContainerEngine.ask_to_stop`."""

        def stop(client: EngineHttp) -> None:
            found = client.ask("GET", f"/containers/{container_id}/json")
            _kill(client, container_id, found["Config"].get("StopSignal") or "SIGTERM")
            _unpause(client, found)

        await self._signal(stop)

    async def kill(self, container_id: str) -> None:
        """See `ContainerEngine.kill`."""

        def kill(client: EngineHttp) -> None:
            _kill(client, container_id, "SIGKILL")
            _unpause(client, client.ask("GET", f"/containers/{container_id}/json"))

        await self._signal(kill)

    async def _signal(self, send: Callable[[EngineHttp], None]) -> None:
        def send_if_running(client: EngineHttp) -> None:
            try:
                send(client)
            except _errors.APIError as error:
                if error.status_code not in (404, 409):
                    raise

        await self._docker.ask(send_if_running)

    async def remove(self, container_id: str) -> None:
        """See `ContainerEngine.remove`; the container's name will do as well as its id."""

        def remove(client: EngineHttp) -> None:
            path = f"/containers/{container_id}"
            while True:
                try:
                    return client.ask("DELETE", path, {"v": True, "force": True})
                except _errors.NotFound:
                    return None
                except _errors.APIError as error:
                    if error.status_code != 409:
                        raise
                # Somebody else is removing it: wait until it is gone, and make sure.
                try:
                    client.ask("POST", f"{path}/wait", {"condition": "removed"})
                except _errors.NotFound:
                    return None

        await self._docker.ask(remove, slow=True)

    async def replace_folders(self, container_id: str, folder: str, names: list[str]) -> None:
        """See `ContainerEngine.replace_folders`."""
        await self._docker.ask(
            lambda client: replace_folders(client, container_id, folder, names), slow=True
        )

    async def written(self, container_id: str) -> DiskUse:
        """See `ContainerEngine.written`."""
        return await self._docker.ask(lambda client: written(client, container_id), slow=True)

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """See `ContainerEngine.list`."""
        wanted = [f"{name}={value}" if value else name for name, value in labels.items()]
        which = {"all": 1, "filters": json.dumps({"label": wanted})}
        found = await self._docker.ask(lambda client: client.ask("GET", "/containers/json", which))
        return [_container_info(container) for container in found]


def _kill(client: EngineHttp, container_id: str, signal: str) -> None:
    client.ask("POST", f"/containers/{container_id}/kill", {"signal": signal})


def _unpause(client: EngineHttp, container: dict[str, Any]) -> None:
    """Let a container that somebody has paused go on: else it never gets its signal."""
    if container["State"].get("Paused"):
        with suppress(_errors.APIError):  # some engines do this by themselves
            client.ask("POST", f"/containers/{container['Id']}/unpause")


def _pulled_digests(image: dict[str, Any]) -> list[str]:
    """Return the digests of an image that was pulled.

    Engines with the containerd image store give digests to images that were built, too, and
    tell the origin in `Identity`.
    """
    identity = image.get("Identity")
    if identity is not None and not identity.get("Pull"):
        return []
    return image.get("RepoDigests") or []


def _container_info(container: dict[str, Any]) -> ContainerInfo:
    names: list[str] = container["Names"] or [""]
    return ContainerInfo(
        id=container["Id"],
        name=names[0].removeprefix("/"),
        state=container["State"],
        labels=container["Labels"] or {},
        created_at=datetime.fromtimestamp(container["Created"], UTC),
    )


_checked: type[ContainerEngine] = DockerEngine

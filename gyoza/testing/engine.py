"""The fake engine: the contract's methods in memory."""

import shutil
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from gyoza.testing.containers import FakeContainer
from gyoza.testing.controls import EngineControls, require, tagged
from gyoza.worker.containers.engine import (
    ContainerEngine,
    ContainerExit,
    ContainerInfo,
    ContainerSpec,
    EngineInfo,
    ImageInfo,
    LogStream,
)
from gyoza.worker.errors import ContainerNotFound, ImagePullError
from gyoza.worker.op_io.disk_use import DiskUse


class FakeContainerEngine(EngineControls):
    """A `ContainerEngine` in memory; see `gyoza.testing`, and `ContainerEngine` for the methods."""

    async def info(self) -> EngineInfo:
        """See `ContainerEngine.info`."""
        await self._called("info")
        return replace(self.description, unlimited=self.unlimited)

    async def has_network(self, network: str) -> bool:
        """See `ContainerEngine.has_network`."""
        await self._called("has_network", network)
        return network in self.networks

    async def find_image(self, image: str) -> ImageInfo | None:
        """See `ContainerEngine.find_image`."""
        await self._called("find_image", image)
        found = self._images.get(tagged(image))
        if found is None or not found.local:
            return None
        repository = tagged(image).rpartition(":")[0]
        digests = [f"{repository}@sha256:{'0' * 64}"] if found.pulled else []
        return ImageInfo(id=f"sha256:{tagged(image)}", repo_digests=digests)

    async def pull(self, image: str, on_progress: Callable[[str], None]) -> None:
        """See `ContainerEngine.pull`."""
        await self._called("pull", image)
        found = self._images.get(tagged(image))
        if found is None or not found.in_registry:
            raise ImagePullError(f"Cannot pull {image}: the registry does not have it.")
        for sentence in found.pull_progress:
            on_progress(sentence)
            await trio.sleep(1)
            self._require_available()
        found.local = found.pulled = True

    async def create(self, spec: ContainerSpec) -> str:
        """See `ContainerEngine.create`."""
        await self._called("create", spec.name)
        container = self._add(spec)
        self._answer("create")
        return container.id

    @asynccontextmanager
    async def attach(self, container_id: str) -> AsyncGenerator[LogStream]:
        """See `ContainerEngine.attach`."""
        container = await self._found("attach", container_id)
        require(container.state != "exited", "attach after the container's end")
        with container.output.attach() as stream:
            yield stream

    @asynccontextmanager
    async def logs(self, container_id: str, *, follow: bool) -> AsyncGenerator[LogStream]:
        """See `ContainerEngine.logs`."""
        container = await self._found("logs", container_id)
        with container.output.logs(follow=follow) as stream:
            yield stream

    async def start(self, container_id: str) -> None:
        """See `ContainerEngine.start`."""
        container = await self._found("start", container_id)
        require(container.state == "created", "start twice")
        self._run(container)
        self._answer("start")

    async def wait(self, container_id: str) -> ContainerExit:
        """See `ContainerEngine.wait`."""
        await self._called("wait", container_id)
        before = outages = self._outages - int(self.unavailable)
        while True:
            while self.unavailable:
                await self._available.wait()
            lost, outages = outages != self._outages, self._outages
            container = self._named(container_id)
            if container is None:
                raise ContainerNotFound(f"No such container: {container_id}.")
            require(container.state != "created", "wait before start")
            if container.state == "exited":
                return ContainerExit(
                    container.exit_code,
                    container.oom_killed,
                    unseen=lost,
                    disturbed=before != self._outages,
                )
            await container.news.wait()

    async def killed_for_memory(self, container_id: str) -> bool:
        """See `ContainerEngine.killed_for_memory`."""
        await self._called("killed_for_memory", container_id)
        container = self._named(container_id)
        return container is not None and (container.oom_killed or container.oom_told_late)

    async def saw_exit(self, container_id: str) -> bool:
        """See `ContainerEngine.saw_exit`."""
        container = await self._found("saw_exit", container_id)
        require(container.state == "exited", "saw_exit before the container's end")
        return container.exit_seen

    async def hear_exits(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """See `ContainerEngine.hear_exits`; `wait` needs no telling here."""
        self._require_available()
        task_status.started()
        await self._gone.wait()

    async def ask_to_stop(self, container_id: str) -> None:
        """See `ContainerEngine.ask_to_stop`."""
        await self._signal("ask_to_stop", container_id, 15)

    async def kill(self, container_id: str) -> None:
        """See `ContainerEngine.kill`."""
        await self._signal("kill", container_id, 9)

    async def remove(self, container_id: str) -> None:
        """See `ContainerEngine.remove`."""
        await self._called("remove", container_id)
        container = self._named(container_id)
        if container is not None:
            container.signal(9)
            if container.state == "running":
                await container.ended.wait()
            self.containers.pop(container.id, None)
            container.output.break_off()
            container.tell()
        self._answer("remove")

    async def replace_folders(self, container_id: str, folder: str, names: list[str]) -> None:
        """See `ContainerEngine.replace_folders`."""
        container = await self._found("replace_folders", container_id)
        require(container.state == "created", "replace_folders after start")
        [host] = [Path(path) for path, target in container.spec.volumes.items() if target == folder]
        host.chmod(0o777)
        for name in names:
            shutil.rmtree(host / name)
            (host / name).touch()

    async def written(self, container_id: str) -> DiskUse:
        """See `ContainerEngine.written`."""
        return (await self._found("written", container_id)).written

    async def list(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        """See `ContainerEngine.list`."""
        await self._called("list")
        return [
            ContainerInfo(
                container.id,
                container.spec.name,
                container.state,
                container.spec.labels,
                container.created_at,
            )
            for container in self.containers.values()
            if all(
                name in container.spec.labels and value in ("", container.spec.labels[name])
                for name, value in labels.items()
            )
        ]

    async def _signal(self, method: str, container_id: str, number: int) -> None:
        await self._called(method, container_id)
        container = self._named(container_id)
        if container is not None:
            container.signal(number)
        self._answer(method)

    async def _found(self, method: str, container_id: str) -> FakeContainer:
        await self._called(method, container_id)
        container = self._named(container_id)
        if container is None:
            raise ContainerNotFound(f"No such container: {container_id}.")
        return container


@asynccontextmanager
async def open_fake_engine() -> AsyncGenerator[FakeContainerEngine]:
    """Use a `FakeContainerEngine`; its containers end with the block."""
    async with trio.open_nursery() as nursery:
        yield FakeContainerEngine(nursery)
        nursery.cancel_scope.cancel()


_checked: type[ContainerEngine] = FakeContainerEngine

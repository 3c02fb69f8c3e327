"""One attempt's container: from wherever it is to its exit, and then gone.

What exists is looked up first: nothing (create it), a created container (start it), a running or
exited one (take it up). So the same way leads on after an outage of the engine, after a restart of
the worker, and after somebody has removed a container that had not begun. It is known by its labels
and its id: an administrator may rename it or pause it.
"""

import logging
import math
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from secrets import token_hex

import trio

from gyoza.models import ReleaseReason
from gyoza.worker.containers.engine import (
    KILLED,
    ContainerExit,
    ContainerInfo,
    ContainerSpec,
)
from gyoza.worker.containers.gpus import devices_in_use
from gyoza.worker.containers.labels import of_gpus
from gyoza.worker.containers.stop import end_containers, remove_container, stop_container
from gyoza.worker.errors import (
    ContainerNotFound,
    EngineError,
    EngineFailed,
    EngineUnavailable,
    GpusTaken,
    NameTaken,
    RunInterrupted,
    WorkerLacks,
)
from gyoza.worker.execution_pipeline.op_exit import exit_of_stopped, op_exit
from gyoza.worker.execution_pipeline.op_output import op_output
from gyoza.worker.execution_pipeline.run_scope import RunScope, grace_of
from gyoza.worker.execution_pipeline.types import ExecutionContext
from gyoza.worker.lacks import lack_of
from gyoza.worker.logs.output import ContainerOutput
from gyoza.worker.run_record import Exit

ENGINE_S = 120.0
"""Seconds that stopping and removing may take besides the grace period; the sweep goes on then."""

CREATIONS = 5
"""Times that a container is created of which somebody removes one after the other unstarted."""

GONE = "Its container was removed meanwhile."

logger = logging.getLogger(__name__)


async def note_stopping(scope: RunScope, *, timed_out: bool = False, filled: str = "") -> None:
    """Note that the run's container is about to be stopped, before it is sent a signal.

    The stop does not wait for the disk, which takes the note meanwhile.

    Args:
        scope: The run's scope.
        timed_out: It is stopped at its time limit.
        filled: Which disk it is stopped for, in a sentence.
    """
    await scope.in_thread(scope.record.note_stopping, timed_out, filled)
    scope.tasks.start_soon(scope.in_thread, scope.record.sync)


class OpContainer:
    """The container of one attempt.

    Args:
        scope: The run's scope.
        ctx: Tells what to run; gets the end of the output as `logs`.
        gpus: Names of the GPUs it may use, by their ids; of no matter for one that exists.
    """

    def __init__(self, scope: RunScope, ctx: ExecutionContext, gpus: Mapping[int, str]) -> None:
        self._scope = scope
        self._ctx = ctx
        self._gpus = gpus
        self._engine = scope.tools.engine
        self._run_id, self._name = scope.identity.run_id, scope.identity.name
        self._grace_s = grace_of(ctx)

        self._may_exist = not scope.record.fresh
        self._id: str | None = None
        self._asked_to_start = False
        self._never_started = False
        self._ended = False

    async def run(self) -> Exit:
        """Bring it to its exit; a cancel stops it first.

        If it has exited by itself, the run's nursery removes it while that is reported.

        Raises:
            LeaseLost: If the run is not this worker's (any more): then it is not started.
            RunInterrupted: If the engine or the machine ended it.
            GpusTaken: If it is not started, for want of the GPUs.
            EngineError: If the engine cannot run it.
        """
        self._scope.container_left = True
        try:
            exited = await self._scope.through_outages(self._run_to_its_exit)
        except BaseException:
            with trio.move_on_after(self._grace_s + ENGINE_S, shield=True):
                await self._remove()
            raise
        self._scope.removal = trio.Event()
        self._scope.tasks.start_soon(self._remove_meanwhile, self._scope.removal)
        return exited

    async def _run_to_its_exit(self) -> Exit:
        """Run it; one that somebody removes before it has started is created again.

        Raises:
            RunInterrupted: If it was removed later, or again and again.
        """
        left = CREATIONS
        while True:
            try:
                return await self._run_from_where_it_is()
            except ContainerNotFound as error:
                left -= 1
                if self._scope.container_id or not left:  # it was started, or it never can be
                    sentence = f"Somebody has removed its container, or what that needs: {error}"
                    raise RunInterrupted(sentence, ReleaseReason.CONTAINER_GONE) from error
                logger.warning("Run %s has its container created again: %s", self._run_id, error)
            await remove_container(self._engine, self._id or self._name)
            self._asked_to_start, self._never_started = False, True

    async def _run_from_where_it_is(self) -> Exit:
        found = await self._find()
        self._may_exist = True
        if found and found.state != "created":
            async with op_output(self._scope, self._ctx, found.id, attach=False) as output:
                watched = found.state not in ("exited", "dead")
                exited = await self._wait(found.id, output, watched=watched)
        elif self._scope.record.stopping:
            async with op_output(
                self._scope, self._ctx, self._id or self._name, attach=False
            ) as output:
                output.container_exited(disturbed=False)
            exited = exit_of_stopped(self._scope.record)
        else:
            exited = await self._start_and_wait(found)
        await self._scope.in_thread(self._scope.record.note_exit, exited)
        return exited

    async def _find(self) -> ContainerInfo | None:
        if not self._may_exist:
            return None
        found = await self._engine.list(self._scope.identity.key)
        record = self._scope.record
        stopped = record.timed_out or record.filled
        begun = record.started_at is not None and not self._never_started
        if not found and begun and not stopped:
            # Maybe by the worker's earlier life, killed before it could give the run back.
            raise RunInterrupted(GONE, ReleaseReason.CONTAINER_GONE)
        self._id = found[0].id if found else None
        return found[0] if found else None

    async def _start_and_wait(self, found: ContainerInfo | None) -> Exit:
        if found and self._asked_to_start:
            # An engine that is killed can forget that it has started it, and even its exit.
            raise RunInterrupted(
                "The engine has lost the container's start.", ReleaseReason.ENGINE_RESTARTED
            )
        container_id = self._id = found.id if found else await self._create()
        if self._gpus:
            await self._require_gpus(container_id)
        async with op_output(self._scope, self._ctx, container_id, attach=True) as output:
            await self._start(container_id)
            return await self._wait(container_id, output)

    async def _create(self) -> str:
        try:
            return await self._engine.create(self._spec())
        except NameTaken:
            for late in await self._engine.list(self._scope.identity.key):
                return late.id
            # By a container that is not ours.
            spec = self._spec()
            return await self._engine.create(replace(spec, name=f"{spec.name}-{token_hex(4)}"))
        except EngineError:
            # Perhaps the name is taken: an engine that was frozen may do late what it was asked.
            for late in await self._engine.list(self._scope.identity.key):
                return late.id
            raise

    async def _require_gpus(self, container_id: str) -> None:
        """Look again now that others can see whose the GPUs are.

        Raises:
            GpusTaken: If somebody else has chosen the same meanwhile. Two may both give way; that
                the earlier one went on would not do, since the engine does not tell who it was.
        """
        in_use = await devices_in_use(self._engine, but=container_id)
        if both := in_use.intersection(self._gpus.values()):
            raise GpusTaken(f"{', '.join(sorted(both))} went to another container.")

    async def _start(self, container_id: str) -> None:
        record = self._scope.record
        await self._scope.start_confirmed()
        again = record.started_at is not None
        await self._scope.in_thread(record.note_starting, [*self._gpus] or record.gpu_ids)
        self._asked_to_start = True
        try:
            # Shielded so that it is known whether the container runs; the call has a deadline.
            with trio.CancelScope(shield=True):
                await self._engine.start(container_id)
            self._scope.tools.faults.end(self._run_id)
        except EngineUnavailable as error:
            if lack := lack_of(error):  # the engine was not even asked
                raise WorkerLacks(lack) from error
            raise
        except ContainerNotFound:  # it, or its network
            raise
        except EngineError as error:
            if not again:
                self._require_own_user(error)
                raise
            # An engine that was killed in the middle of a start cannot make up its mind about it.
            raise RunInterrupted(str(error), ReleaseReason.ENGINE_RESTARTED) from error

    def _require_own_user(self, error: EngineError) -> None:
        """Do nothing unless the image lacks the user that the worker gives to all.

        Raises:
            EngineFailed: If so.
        """
        user = self._scope.tools.settings.policy.user
        if user is not None and "unable to find" in str(error):
            raise EngineFailed(f"{error} The worker's setting user is {user}.") from error

    async def _wait(
        self, container_id: str, output: ContainerOutput, *, watched: bool = True
    ) -> Exit:
        """Wait for the exit; on a cancel or at the time limit stop the container first.

        Args:
            container_id: A container that was started.
            output: Told of the exit.
            watched: It has not ended before somebody of ours looked.

        Raises:
            RunInterrupted: If not the op ended it, nor its time limit.
            EngineError: If the engine could not run it.
        """
        record = self._scope.record
        exited: ContainerExit | None = None
        stopped: ContainerExit | None = None
        limit = trio.move_on_after(self._time_left() if watched else math.inf)
        self._scope.container_id, self._scope.limit = container_id, limit
        try:
            with limit:
                exited = await self._engine.wait(container_id)
                if exited.exit_code == KILLED and not (exited.oom_killed or exited.unseen):
                    late = await self._engine.killed_for_memory(container_id)
                    exited = replace(exited, oom_killed=late)
                    if not late and not record.stopping:
                        await self._require_not_removed()
        finally:
            if exited is None:
                with self._told(), trio.move_on_after(self._grace_s + ENGINE_S, shield=True):
                    filled = self._scope.filled
                    timed_out = limit.cancelled_caught and not filled
                    await note_stopping(self._scope, timed_out=timed_out, filled=filled)
                    # An op that has filled a disk gets no time in which it could go on with that.
                    grace_s = 0 if filled else self._grace_s
                    stopped = await stop_container(self._engine, container_id, grace_s)
                    self._ended = True
            output.container_exited(disturbed=exited is not None and exited.disturbed)
        self._ended = True
        if exited is None:
            for_memory = stopped is not None and stopped.oom_killed
            return exit_of_stopped(record, KILLED, for_memory)
        return await op_exit(self._engine, record, container_id, exited, watched=watched)

    async def _require_not_removed(self) -> None:
        """Do nothing if the container that was killed is still there.

        Raises:
            RunInterrupted: If somebody has removed it, which kills what runs in it first.
        """
        for found in await self._engine.list(self._scope.identity.key):
            if found.state != "removing":
                return
        raise RunInterrupted(GONE, ReleaseReason.CONTAINER_GONE)

    def _time_left(self) -> float:
        """Return the seconds until it is stopped, by the clock that outlives the worker."""
        if self._scope.record.stopping:  # an earlier life has begun to
            return 0.0
        started_at = self._scope.record.started_at or time.time()
        timeout_s: float = self._ctx.extras.get("timeout_s") or math.inf
        return max(0.0, started_at + timeout_s - time.time())

    def _spec(self) -> ContainerSpec:
        policy = self._scope.tools.settings.policy
        cpu, ram_mb = self._ctx.constraints.get("cpu"), self._ctx.constraints.get("ram_mb")
        policy.require_allowed(self._ctx.image, cpu, ram_mb)
        return ContainerSpec(
            name=self._name,
            image=self._ctx.image,
            command=self._ctx.extras.get("command"),
            env=self._ctx.env_vars,
            labels=self._scope.identity.labels | of_gpus(self._gpus.values()),
            volumes=self._ctx.volumes,
            cpu=cpu or policy.max_cpu,
            ram_mb=ram_mb or policy.max_ram_mb,
            gpus=[*self._gpus.values()],
            network=policy.network,
            user=policy.user,
            runtime=policy.runtime,
            read_only=policy.read_only,
            pids_limit=policy.pids_limit,
            shm_mb=policy.shm_mb,
        )

    async def _remove_meanwhile(self, over: trio.Event) -> None:
        try:
            with trio.move_on_after(ENGINE_S, shield=True):
                await self._remove()
        finally:
            over.set()

    async def _remove(self) -> None:
        """Remove the container, by its labels should its creation have broken off."""
        with self._told():
            if self._may_exist and not self._ended:  # cancelled while the engine was away
                key, note = self._scope.identity.key, partial(note_stopping, self._scope)
                await end_containers(self._engine, key, self._grace_s, note)
            else:
                await remove_container(self._engine, self._id or self._name)
            self._scope.container_left = False

    @contextmanager
    def _told(self) -> Generator[None]:
        """Tell what the engine refuses of a clean-up; it must not hide why there is one."""
        try:
            yield
        except EngineError as error:
            logger.info("Run %s, its container: %s", self._run_id, error)

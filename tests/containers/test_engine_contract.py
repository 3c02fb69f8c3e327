"""What `ContainerEngine` promises, held by the fake and by Docker alike."""

from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from gyoza.testing import ContractBroken
from gyoza.worker.containers.engine import LOG_DRIVER, ContainerExit, ContainerSpec
from gyoza.worker.containers.stop import remove_container, stop_container
from gyoza.worker.errors import (
    ContainerNotFound,
    EngineError,
    ImageNotFound,
    ImagePullError,
)
from tests.containers.bench import MANY, Bench, read_to_end

NOWHERE = "f" * 64
SLOW = 200


async def test_an_engine_says_what_it_is(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        info = await bench.engine.info()
    assert info.version
    assert info.data_root.startswith("/")
    assert info.has_init
    assert info.cpus
    assert info.runtimes
    assert info.log_drivers is None or LOG_DRIVER in info.log_drivers


async def test_an_engine_has_the_networks_that_it_says_and_no_others(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        assert await bench.engine.has_network("none")
        assert not await bench.engine.has_network("gyoza-test-absent")


async def test_an_image_that_is_here_is_found_and_another_is_not(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        found = await bench.engine.find_image(bench.image or "sleeps")
        assert found is not None
        assert found.id.startswith("sha256:")
        assert found.repo_digests == []
        assert await bench.engine.find_image("gyoza-test-absent") is None


async def test_the_exit_code_is_the_programs(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        ended, _, _ = await bench.run("exits-3")
    assert ended == ContainerExit(3)


async def test_output_attached_before_the_start_comes_by_stream_and_to_the_last_byte(
    bench: Bench,
) -> None:
    with trio.fail_after(SLOW):
        ended, stdout, stderr = await bench.run("writes")
    assert (ended.exit_code, stdout, stderr) == (0, b"out\nunfinished", b"err\n")


async def test_much_output_comes_whole(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        _, stdout, _ = await bench.run("writes-much")
    assert stdout == MANY


async def test_two_streams_of_one_container_both_get_everything(bench: Bench) -> None:
    async with bench.created("writes") as container_id:
        with trio.fail_after(SLOW):
            async with (
                bench.engine.attach(container_id) as one,
                bench.engine.attach(container_id) as other,
            ):
                await bench.engine.start(container_id)
                assert len(await read_to_end(one)) == len(await read_to_end(other)) > 0


async def test_a_stream_that_is_left_early_does_not_stop_the_container(bench: Bench) -> None:
    async with bench.created("writes-much") as container_id:
        with trio.fail_after(SLOW):
            async with bench.engine.attach(container_id) as stream:
                await bench.engine.start(container_id)
                await stream.receive()
            assert await bench.engine.wait(container_id) == ContainerExit(0)


async def test_the_end_of_a_stream_may_be_asked_for_again(bench: Bench) -> None:
    async with bench.created("writes") as container_id:
        with trio.fail_after(SLOW):
            async with bench.engine.attach(container_id) as stream:
                await bench.engine.start(container_id)
                await read_to_end(stream)
                assert await stream.receive() == b""


async def test_a_cancelled_receive_closes_the_stream(bench: Bench) -> None:
    async with bench.created("sleeps") as container_id:
        with trio.fail_after(SLOW):
            async with bench.engine.attach(container_id) as stream:
                with trio.move_on_after(0.1) as scope:
                    await stream.receive()
                assert scope.cancelled_caught
                assert await stream.receive() == b""


async def test_many_containers_are_stopped_at_once(bench: Bench) -> None:
    async def stop(container_id: str) -> None:
        await stop_container(bench.engine, container_id, grace_s=0.5)
        assert (await bench.engine.wait(container_id)).exit_code == 137

    with trio.fail_after(SLOW):
        async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
            for _ in range(10):
                container_id = await stack.enter_async_context(bench.running("ignores-stop"))
                nursery.start_soon(stop, container_id)


async def test_a_container_that_is_gone_needs_no_stop_and_no_removal(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        for grace_s in (0, 10):
            await stop_container(bench.engine, NOWHERE, grace_s)
        await remove_container(bench.engine, NOWHERE)


async def test_a_container_that_ends_when_asked_is_not_killed(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("ends-well-when-asked") as container_id:
            await stop_container(bench.engine, container_id, grace_s=SLOW)
            assert await bench.engine.wait(container_id) == ContainerExit(0)
            await remove_container(bench.engine, container_id)
            with pytest.raises(ContainerNotFound):
                await bench.engine.wait(container_id)


async def test_a_container_sees_its_variables_and_its_volumes(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    with trio.fail_after(SLOW):
        _, stdout, _ = await bench.run("shows-env", env={"GREETING": "a = b"})
        assert stdout == b"a = b"
        ended, _, _ = await bench.run("writes-file", volumes={str(tmp_path): "/data"})
    assert ended.exit_code == 0
    assert (tmp_path / "out").read_text() == "content"


async def test_a_container_of_an_image_that_is_not_here_is_refused(bench: Bench) -> None:
    with trio.fail_after(SLOW), pytest.raises(ImageNotFound, match="gyoza-test-absent"):
        await bench.engine.create(ContainerSpec(name="x", image="gyoza-test-absent"))


async def test_a_name_is_given_once(bench: Bench) -> None:
    name = f"gyoza-test-{uuid4().hex}"
    with trio.fail_after(SLOW):
        async with bench.created("sleeps", name=name):
            with pytest.raises(EngineError, match=name):
                await bench.engine.create(bench.spec("sleeps", name=name))


async def test_what_is_gone_cannot_be_attached_to_started_or_waited_for(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        with pytest.raises(ContainerNotFound):
            async with bench.engine.attach(NOWHERE):
                pass
        with pytest.raises(ContainerNotFound):
            await bench.engine.start(NOWHERE)
        for follow in (False, True):
            with pytest.raises(ContainerNotFound):
                async with bench.engine.logs(NOWHERE, follow=follow):
                    pass
        with pytest.raises(ContainerNotFound):
            await bench.engine.wait(NOWHERE)


async def test_waiting_for_what_was_never_started_is_refused(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("sleeps") as container_id:
            with pytest.raises((EngineError, ContractBroken)):
                await bench.engine.wait(container_id)


async def test_a_wait_after_the_end_returns_at_once(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("exits-3") as container_id:
            await bench.engine.start(container_id)
            assert await bench.engine.wait(container_id) == ContainerExit(3)
            assert await bench.engine.wait(container_id) == ContainerExit(3)


async def test_a_cancelled_wait_leaves_the_container_alone(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("sleeps") as container_id:
            with trio.move_on_after(0.1) as scope:
                await bench.engine.wait(container_id)
            assert scope.cancelled_caught
            await bench.engine.kill(container_id)
            assert (await bench.engine.wait(container_id)).exit_code == 137


async def test_a_wait_ends_when_the_container_is_removed(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("sleeps") as container_id, trio.open_nursery() as nursery:
            nursery.start_soon(bench.engine.remove, container_id)
            with suppress(ContainerNotFound):  # unless its end is seen before it is gone
                assert (await bench.engine.wait(container_id)).exit_code == 137
        with pytest.raises(ContainerNotFound):
            await bench.engine.wait(container_id)


@pytest.mark.parametrize(("script", "exit_code"), [("sleeps", 143), ("ends-well-when-asked", 0)])
async def test_a_container_that_is_asked_to_stop_ends_in_its_own_way(
    bench: Bench, script: str, exit_code: int
) -> None:
    with trio.fail_after(SLOW):
        async with bench.running(script) as container_id:
            await bench.engine.ask_to_stop(container_id)
            assert (await bench.engine.wait(container_id)).exit_code == exit_code


async def test_a_container_that_does_not_stop_can_be_killed(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("ignores-stop") as container_id:
            await bench.engine.ask_to_stop(container_id)
            with trio.move_on_after(0.3) as scope:
                await bench.engine.wait(container_id)
            assert scope.cancelled_caught
            await bench.engine.kill(container_id)
            assert await bench.engine.wait(container_id) == ContainerExit(137)


async def test_a_container_that_exceeds_its_memory_is_reported_so_if_not_at_once(
    bench: Bench,
) -> None:
    told = False
    with trio.fail_after(SLOW):
        while not told:  # a busy engine may lose the kernel's word
            async with bench.created("takes-all-memory", ram_mb=16) as container_id:
                await bench.engine.start(container_id)
                ended = await bench.engine.wait(container_id)
                assert ended.exit_code == 137
                told = ended.oom_killed or await bench.engine.killed_for_memory(container_id)


async def test_a_container_that_was_killed_by_hand_was_not_killed_for_memory(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("sleeps") as container_id:
            await bench.engine.kill(container_id)
            assert await bench.engine.wait(container_id) == ContainerExit(137)
            assert not await bench.engine.killed_for_memory(container_id)


async def test_an_exit_with_the_code_of_lost_containers_is_told_from_a_loss(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("exits-255") as container_id:
            await bench.engine.start(container_id)
            assert await bench.engine.wait(container_id) == ContainerExit(255)
            assert await bench.engine.saw_exit(container_id)
        with pytest.raises(ContainerNotFound):
            await bench.engine.saw_exit(container_id)


async def test_signals_to_what_is_not_running_do_nothing(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("exits-3") as container_id:
            await bench.engine.ask_to_stop(container_id)
            await bench.engine.kill(container_id)
            await bench.engine.start(container_id)
            await bench.engine.wait(container_id)
            await bench.engine.ask_to_stop(container_id)
            await bench.engine.kill(container_id)
        await bench.engine.ask_to_stop(container_id)
        await bench.engine.kill(container_id)


@pytest.mark.parametrize("state", ["created", "running", "exited", "gone"])
async def test_remove_works_in_every_state(bench: Bench, state: str) -> None:
    label = {"gyoza.test": uuid4().hex}
    with trio.fail_after(SLOW):
        container_id = await bench.engine.create(bench.spec("sleeps", labels=label))
        if state != "created":
            await bench.engine.start(container_id)
        if state == "exited":
            await bench.engine.kill(container_id)
            await bench.engine.wait(container_id)
        if state == "gone":
            await bench.engine.remove(container_id)
        await bench.engine.remove(container_id)
        assert await bench.engine.list(label) == []


async def test_a_container_is_removed_by_its_name_too(bench: Bench) -> None:
    label = {"gyoza.test": uuid4().hex}
    with trio.fail_after(SLOW):
        spec = bench.spec("sleeps", labels=label)
        await bench.engine.create(spec)
        await bench.engine.remove(spec.name)
        assert await bench.engine.list(label) == []


async def test_all_who_remove_a_container_return_when_it_is_gone(bench: Bench) -> None:
    label = {"gyoza.test": uuid4().hex}

    async def remove(container_id: str) -> None:
        await bench.engine.remove(container_id)
        assert await bench.engine.list(label) == []

    with trio.fail_after(SLOW):
        async with (
            bench.running("ignores-stop", labels=label) as container_id,
            trio.open_nursery() as nursery,
        ):
            for _ in range(4):
                nursery.start_soon(remove, container_id)


async def test_containers_are_listed_by_their_labels_whatever_their_state(bench: Bench) -> None:
    value = uuid4().hex
    labels = {"gyoza.test": value, "gyoza.other": "1"}
    with trio.fail_after(SLOW):
        async with (
            bench.created("exits-3", labels=labels) as ended,
            bench.created("sleeps", labels={"gyoza.test": value}) as fresh,
            bench.created("sleeps"),
        ):
            await bench.engine.start(ended)
            await bench.engine.wait(ended)
            both = await bench.engine.list({"gyoza.test": value})
            assert {(info.id, info.state) for info in both} == {
                (ended, "exited"),
                (fresh, "created"),
            }
            one = await bench.engine.list({"gyoza.test": value, "gyoza.other": ""})
            assert [info.id for info in one] == [ended]
            assert labels.items() <= one[0].labels.items()
            assert one[0].name.startswith("gyoza-test-")
            assert abs(datetime.now(UTC) - one[0].created_at) < timedelta(minutes=5)
            assert await bench.engine.list({"gyoza.test": "another"}) == []


async def test_an_image_that_cannot_be_pulled_is_an_error_with_its_name(bench: Bench) -> None:
    with (
        trio.fail_after(SLOW),
        pytest.raises(ImagePullError, match=r"Cannot pull 127\.0\.0\.1:1/no"),
    ):
        await bench.engine.pull("127.0.0.1:1/no", lambda _: None)


async def test_many_containers_run_at_once(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                ended, stdout, _ = await bench.run("writes")
                assert (ended.exit_code, stdout) == (0, b"out\nunfinished")

            for _ in range(10):
                nursery.start_soon(run)


async def test_folders_that_others_own_are_cleared_and_links_and_files_stay(
    bench: Bench, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    beyond = tmp_path / "beyond"
    odd = "an odd\nname \udcff"
    for folder in (shared / "theirs" / "deeper", shared / odd, beyond):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (shared / "file").write_text("kept")
    (shared / "link").symlink_to(beyond)
    shared.chmod(0o700)
    with trio.fail_after(SLOW):
        async with bench.created("sleeps", volumes={str(shared): "/gyoza"}) as container_id:
            await bench.engine.replace_folders(container_id, "/gyoza", ["theirs", odd])
    assert shared.stat().st_mode & 0o777 == 0o777
    assert all((shared / name).is_file() for name in ("theirs", odd))
    assert (shared / "file").read_text() == "kept"
    assert (beyond / "file").exists()


async def test_what_a_container_has_written_to_its_own_file_system_is_told(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.running("fills-its-disk") as container_id:
            use = await bench.engine.written(container_id)
        with pytest.raises(ContainerNotFound):
            await bench.engine.written(container_id)
    assert 5_000_000 <= use.size < 50_000_000
    assert use.inodes < 100

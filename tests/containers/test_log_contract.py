"""What `ContainerEngine.logs` promises, held by the fake and by Docker alike."""

from uuid import uuid4

import trio

from tests.containers.bench import MANY, ODD, Bench, demultiplexed, read_to_end

SLOW = 200


async def test_the_log_has_each_streams_bytes_as_they_were_written(bench: Bench) -> None:
    async with bench.created("writes-odd") as container_id:
        with trio.fail_after(SLOW):
            async with bench.engine.attach(container_id) as stream:
                await bench.engine.start(container_id)
                attached = demultiplexed(await read_to_end(stream))
            await bench.engine.wait(container_id)
            assert attached == (ODD, b"err\n")
            assert await bench.logs(container_id) == attached
            assert await bench.logs(container_id) == attached


async def test_much_output_is_kept_whole(bench: Bench) -> None:
    async with bench.created("writes-much") as container_id:
        with trio.fail_after(SLOW):
            await bench.engine.start(container_id)
            await bench.engine.wait(container_id)
            assert await bench.logs(container_id) == (MANY, b"")


async def test_the_log_of_a_running_container_has_its_complete_lines(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("sleeps", name=f"gyoza-test-{uuid4().hex}") as container_id:
            assert await bench.logs(container_id) == (b"", b"")
            async with bench.engine.attach(container_id) as stream:
                await bench.engine.start(container_id)
                await stream.receive()
            async with bench.engine.logs(container_id, follow=True) as stream:
                await stream.receive()  # so that it is kept
            [found] = [info for info in await bench.engine.list({}) if info.id == container_id]
            assert await bench.logs(found.name) == (b"ready\n", b"")


async def test_a_log_that_is_followed_ends_with_the_container(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with (
            bench.running("writes-when-asked") as container_id,
            bench.engine.logs(container_id, follow=True) as stream,
        ):
            first = await stream.receive()
            await bench.engine.ask_to_stop(container_id)
            rest = await read_to_end(stream)
            assert demultiplexed(first + rest) == (b"ready\nasked\n", b"")
            assert await stream.receive() == b""


async def test_a_log_can_be_followed_after_the_end(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with bench.created("writes-much") as container_id:
            await bench.engine.start(container_id)
            await bench.engine.wait(container_id)
            async with bench.engine.logs(container_id, follow=True) as stream:
                assert demultiplexed(await read_to_end(stream)) == (MANY, b"")


async def test_a_log_that_is_followed_can_be_left(bench: Bench) -> None:
    with trio.fail_after(SLOW):
        async with (
            bench.running("sleeps") as container_id,
            bench.engine.logs(container_id, follow=True) as stream,
        ):
            await stream.receive()
            with trio.move_on_after(0.1) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            assert await stream.receive() == b""

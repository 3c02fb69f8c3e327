"""Programs of fake containers that several tests run."""

import trio

from gyoza.testing import FakeContainer


async def sleep_for_ever(container: FakeContainer) -> int:
    await trio.sleep_forever()
    raise AssertionError

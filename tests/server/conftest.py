import logging
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from .api import Api, serving, settings_in


@pytest.fixture
async def api(tmp_path: Path) -> AsyncGenerator[Api, None]:
    """A server with a fresh database."""
    async with serving(settings_in(tmp_path)) as api:
        yield api


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing a client does makes the server log an error."""
    yield
    records = caplog.get_records("call") + caplog.get_records("teardown")
    assert [r.getMessage() for r in records if r.levelno >= logging.ERROR] == []

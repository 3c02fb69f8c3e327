"""The server's own key in a file that a setting names."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import trio

from gyoza.server import serve
from gyoza.server.auth import ensure_api_key
from gyoza.server.errors import ApiKeyError

from .api import settings_in


async def test_another_key_in_the_named_file_is_taken_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("gyoza.server.serve"), "RENEW_S", 0.02)
    file = tmp_path / "key"
    file.write_text("old\n")
    settings = replace(settings_in(tmp_path), api_key="", api_key_file=str(file))
    with trio.fail_after(200):
        async with trio.open_nursery() as nursery:
            url: str = await nursery.start(serve, settings)
            async with httpx.AsyncClient(base_url=url) as client:

                async def status(key: str) -> int:
                    return (await client.get("/runs", headers={"X-API-Key": key})).status_code

                assert await status("old") == 200
                file.unlink()  # for a moment, as some tools replace files
                assert await status("old") == 200
                file.write_text("new\n")
                while await status("new") != 200:
                    pass
                assert await status("old") == 401
            nursery.cancel_scope.cancel()


def test_a_named_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    settings = replace(settings_in(tmp_path), api_key="", api_key_file=str(tmp_path / "none"))
    with pytest.raises(ApiKeyError, match="--api-key-file"):
        ensure_api_key(settings)

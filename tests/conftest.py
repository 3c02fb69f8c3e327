"""What all tests share: an environment of their own."""

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the user's settings, key and data out of the tests, and the tests' out of theirs."""
    for name in os.environ:
        if name.startswith("GYOZA_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))

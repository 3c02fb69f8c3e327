import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Condition

import pytest

from gyoza.cli.main import main


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line on standard error, without the program's name; nothing may be on stdout."""
        assert self.out == ""
        assert self.err.startswith("gyoza: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("gyoza: ").rstrip("\n")


Gyoza = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without settings, a server, a key or a data directory; the working directory too."""
    for name in ("SERVER_URL", "API_KEY", "API_KEY_FILE", "WORK_DIR", "LOG_LEVEL", "PORT"):
        monkeypatch.delenv(f"GYOZA_{name}", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Whatever a command sets up for its log is undone."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    root.handlers[:] = []  # not closed when the command brings its own
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


class Watched(io.StringIO):
    """Standard output that others can wait at for something to be written."""

    def __init__(self) -> None:
        super().__init__()
        self._news = Condition()

    def write(self, text: str, /) -> int:
        with self._news:
            written = super().write(text)
            self._news.notify_all()
            return written

    def wait_for(self, text: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: text in self.getvalue(), timeout=60), text


@pytest.fixture
def gyoza(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Gyoza:
    """Runs a command in this process, as a person without a terminal."""

    def run(*arguments: str, stdin: str = "") -> Result:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> str:
    """A port of this machine where nothing listens, and retries that follow each other at once."""

    def none(_low: float, _high: float) -> float:
        return 0.0

    monkeypatch.setattr("random.uniform", none)
    url = "http://127.0.0.1:9"
    monkeypatch.setenv("GYOZA_SERVER_URL", url)
    return url

"""Sets up logging for the commands that keep running."""

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from gyoza.models.record import format_time


class LogLevel(StrEnum):
    """The levels of `logging` that make sense for a service."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class LogFormat(StrEnum):
    """How a log line looks."""

    TEXT = "text"
    JSON = "json"


Level = Annotated[
    LogLevel,
    typer.Option("--log-level", envvar="GYOZA_LOG_LEVEL", help="What is logged, on stderr."),
]
Format = Annotated[
    LogFormat,
    typer.Option(
        "--log-format", envvar="GYOZA_LOG_FORMAT", help="text, or one JSON object a line."
    ),
]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message and, if there is one, the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        line = {
            "t": format_time(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def teller(form: LogFormat, logger: str) -> Callable[[str], object]:
    """Return what tells people where a service is: on stdout, unless all is to be JSON.

    Args:
        form: How log lines look.
        logger: Whose line it is.
    """
    if form is LogFormat.JSON:
        return logging.getLogger(logger).info

    def tell(sentence: str) -> None:
        with suppress(OSError):  # a standard output that takes nothing
            print(sentence, flush=True)

    return tell


def configure_logging(level: LogLevel, form: LogFormat) -> None:
    """Send log lines to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter()
        if form is LogFormat.JSON
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # One line for every request would drown what the services say themselves.
    for noisy in ("httpx", "httpcore", "urllib3", "docker"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.root.level))

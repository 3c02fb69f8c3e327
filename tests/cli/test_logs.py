import json
import logging

import pytest

from gyoza.cli.logs import LogFormat, LogLevel, configure_logging

logger = logging.getLogger("gyoza.worker.test")


def test_lines_go_to_standard_error_from_the_level_up(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogLevel.INFO, LogFormat.TEXT)
    logger.debug("unseen")
    logger.info("seen")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(" INFO    gyoza.worker.test: seen\n")
    assert "unseen" not in err


def test_requests_are_not_logged_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogLevel.DEBUG, LogFormat.TEXT)
    logging.getLogger("httpx").info("HTTP Request: ...")
    assert capsys.readouterr().err == ""


def test_as_json_every_line_is_an_object_with_the_exception(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogLevel.INFO, LogFormat.JSON)
    logger.info("two\nlines")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed")
    plain, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (plain["level"], plain["logger"], plain["msg"]) == (
        "INFO",
        "gyoza.worker.test",
        "two\nlines",
    )
    assert plain["t"].endswith("Z")
    assert failed["exception"].endswith("ValueError: bad")

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest

from gyoza.cli.output import Column, ago, fit, print_table
from gyoza.cli.text_output import TextOutput
from gyoza.cli.views import MAX_HELD, LiveView, PlainView, Streams, open_view
from gyoza.models import EventEntry, EventType, OpRun, OpRunState


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def event(kind: EventType, msg: str | int) -> EventEntry:
    return EventEntry(datetime(2026, 1, 1, tzinfo=UTC), kind, msg)


def plain_view(log: io.StringIO, rest: io.StringIO) -> PlainView:
    return PlainView(Streams(TextOutput(log), TextOutput(rest)))


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make both standard streams one terminal."""
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (90_000, "1 d")],
)
def test_ages_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert ago(datetime.now(UTC) - timedelta(seconds=seconds)) == text


def test_an_unknown_age_is_not_told() -> None:
    assert ago(None) == ""


def test_a_plain_view_tells_states_and_progress_once_each() -> None:
    rest = io.StringIO()
    view = plain_view(io.StringIO(), rest)
    view.run(OpRun("r"))
    for progress in (0, 0, 40):
        view.run(OpRun("r", OpRunState.RUNNING, progress, current_attempt=2))
    assert rest.getvalue().splitlines() == [
        "Run r PENDING, waiting for a worker",
        "Run r RUNNING, attempt 2, 0 %",
        "Run r RUNNING, attempt 2, 40 %",
    ]


def test_events_that_say_nothing_in_words_are_not_told() -> None:
    rest = io.StringIO()
    view = plain_view(io.StringIO(), rest)
    for kind in EventType:
        view.event(event(kind, "text"))
    assert rest.getvalue().splitlines() == ["RETRIED: text", "INFO: text", "ERROR: text"]


def test_log_text_is_shown_as_it_comes() -> None:
    log = io.StringIO()
    view = plain_view(log, io.StringIO())
    for text, shown in (("o", "o"), ("ne\ntwo\nth", "one\ntwo\nth"), ("", "one\ntwo\nth")):
        view.log(text)
        assert log.getvalue() == shown
    view.end_of_log()
    view.end_of_log()
    assert log.getvalue() == "one\ntwo\nth\n"


def test_a_line_that_is_written_over_and_over_is_shown_as_it_changes() -> None:
    log = io.StringIO()
    view = plain_view(log, io.StringIO())
    for percent in (10, 20, 30):
        view.log(f"\r{percent} %")
        assert log.getvalue().endswith(f"\r{percent} %")
    view.end_of_log()
    assert log.getvalue() == "\r10 %\r20 %\r30 %\n"


def shared_view(file: io.StringIO) -> PlainView:
    """A view of which log and sentences go to the same file."""
    output = TextOutput(file)
    return PlainView(Streams(output, output))


def test_where_sentences_go_to_the_same_file_none_stands_within_a_line_of_the_log() -> None:
    file = io.StringIO()
    view = shared_view(file)
    view.log("on")
    view.message("hello")
    view.log("e\n\r10 %")
    view.log("\r20 %")
    view.message("again")
    view.end_of_log()
    assert file.getvalue() == "hello\none\n\r10 %\ragain\n20 %\n"


def test_a_line_that_does_not_end_is_not_held_for_ever() -> None:
    file = io.StringIO()
    view = shared_view(file)
    view.log("x" * MAX_HELD)
    assert file.getvalue() == ""
    view.log("y")
    assert file.getvalue() == "x" * MAX_HELD + "y"
    view.end_of_log()
    assert file.getvalue().endswith("y\n")


def test_a_line_that_one_view_has_begun_is_ended_by_the_next() -> None:
    log = io.StringIO()
    streams = Streams(TextOutput(log), TextOutput(io.StringIO()))
    PlainView(streams).log("one, ")
    PlainView(streams).log("two\n")
    assert log.getvalue() == "one, two\n"


def test_on_a_terminal_there_is_a_bar_and_all_else_scrolls_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)
    with open_view(Streams.standard(as_json=False)) as view:
        assert isinstance(view, LiveView)
        view.run(OpRun("[r]", OpRunState.RUNNING, 40, current_attempt=1))
        view.event(event(EventType.INFO, "[b]warming up"))
        view.log("\x1b[31mred\x1b[0m [i] \x1b[2Jcleared\n")
    shown = screen.getvalue()
    assert "Run [r] RUNNING, 40 %" in shown
    assert "━" in shown
    assert "INFO: [b]warming up" in shown
    assert "red" in shown
    assert "[i]" in shown
    assert "\x1b[2J" not in shown


def test_a_line_without_an_end_is_shown_at_the_bar_as_it_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal(monkeypatch)
    with open_view(Streams.standard(as_json=False)) as view:
        assert isinstance(view, LiveView)
        for text, tail in (("....", "...."), ("\r10 %", "10 %"), ("\r20 %\r", "20 %"), ("\n", "")):
            view.log(text)
            assert view.tail == tail


def test_force_color_makes_no_terminal_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", file)
    with open_view(Streams.standard(as_json=False)) as view:
        view.run(OpRun("r", OpRunState.RUNNING))
    assert file.getvalue() == "Run r RUNNING, 0 %\n"


COLUMNS = [Column("ID"), Column("STATE"), Column("IMAGE", 1, cut=True), Column("WORKER", 2)]
WIDTHS = [32, 9, 100, 10]


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (None, {0: 32, 1: 9, 2: 100, 3: 10}),
        (200, {0: 32, 1: 9, 2: 100, 3: 10}),
        (80, {0: 32, 1: 9, 2: 23, 3: 10}),
        (65, {0: 32, 1: 9, 2: 8, 3: 10}),
        (64, {0: 32, 1: 9, 2: 19}),
        (52, {0: 32, 1: 9}),
        (20, {0: 32, 1: 9}),
    ],
)
def test_a_narrow_table_shortens_and_leaves_out_but_never_an_id_or_a_state(
    room: int | None, shown: dict[int, int]
) -> None:
    assert fit(COLUMNS, WIDTHS, room) == shown


def test_a_column_may_ask_for_more_room_than_the_least() -> None:
    columns = [Column("ID"), Column("ERROR", 1, cut=True, least=20)]
    assert fit(columns, [32, 60], 54) == {0: 32, 1: 20}
    assert fit(columns, [32, 60], 53) == {0: 32}


class AsciiScreen(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii")

    def isatty(self) -> bool:
        return True


def test_where_only_ascii_can_be_shown_a_shortened_text_ends_with_a_sign_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = AsciiScreen()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "14")
    monkeypatch.setattr(sys, "stdout", screen)
    print_table([Column("ID"), Column("IMAGE", cut=True)], [("r1", "example/image")], "")
    screen.seek(0)
    assert screen.read().splitlines()[1].rstrip() == "r1  example/i~"


def test_the_log_goes_to_the_file_that_standard_output_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = terminal(monkeypatch)
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    with open_view(Streams.standard(as_json=False)) as view:
        view.run(OpRun("r", OpRunState.RUNNING))
        view.log("text\n")
    assert file.getvalue() == "text\n"
    assert "text" not in screen.getvalue()


def test_with_json_standard_output_stays_free(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    with open_view(Streams.standard(as_json=True)) as view:
        view.log("text\n")
    assert "text" in screen.getvalue()

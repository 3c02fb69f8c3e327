"""What text of other people's making does to the terminal of whoever looks at it: nothing."""

import io
import json
import sys
from datetime import UTC, datetime

import pytest

from gyoza.cli.output import Column, note, print_fields, print_json, print_table, say
from gyoza.cli.terminal import LogText, plain
from gyoza.cli.text_output import TextOutput
from gyoza.cli.views import PlainView, Streams, open_view
from gyoza.models import EventEntry, EventType, OpRun

CLIPBOARD = "\x1b]52;c;cm0gLXJmIH4=\x07"
TITLE = "\x1b]0;a title\x1b\\"
CLEAR = "\x1b[2J\x1b[H"
ANSWER_BACK = "\x1b[21t\x05"
LINK = "\x1b]8;;http://evil\x07text\x1b]8;;\x07"
EIGHT_BITS = "\x9b2J\x9d52;c;cm0=\x9c"
ATTACKS = [CLIPBOARD, TITLE, CLEAR, ANSWER_BACK, LINK, EIGHT_BITS, "\x00", "\x08\x08", "\u202eabc"]
RED = "\x1b[1;31mred\x1b[0m"


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def harmless(shown: str) -> bool:
    """Whether a terminal only shows this, colours aside."""
    rest = "".join(part.partition("m")[2] for part in ("m" + shown).split("\x1b["))
    return plain(rest) == rest


def terminal(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make both standard streams one terminal."""
    screen = Screen()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    return screen


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_a_log_that_steers_the_terminal_wherever_its_pieces_are_cut(attack: str, size: int) -> None:
    text = f"before {RED} {attack}{attack} after\ttab\r\n"
    shown = LogText()
    told = "".join(shown.feed(text[at : at + size]) for at in range(0, len(text), size))
    told += shown.end()
    assert RED in told
    assert told.endswith(" after\ttab\r\n\x1b[0m")
    assert harmless(told.replace("\r", ""))


@pytest.mark.parametrize("start", ["\x1b", "\x1b[", "\x1b[31"])
def test_a_log_that_ends_within_a_sequence(start: str) -> None:
    shown = LogText()
    assert shown.feed("text" + start) == "text"
    assert shown.end() == plain(start)


def test_a_sequence_that_never_ends_is_not_held_back_for_ever() -> None:
    shown = LogText()
    assert len(shown.feed("\x1b[" + "1;" * 1000)) > 1900


def test_a_log_that_leaves_its_colours_on() -> None:
    shown = LogText()
    assert shown.feed("\x1b[41mred") + shown.end() == "\x1b[41mred\x1b[0m"


@pytest.mark.parametrize("attack", ATTACKS)
def test_names_and_messages_that_steer_the_terminal(
    attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    print_table([Column("NAME", cut=True)], [[f"[red]{attack}[/red]"]], "")
    print_fields({"error": f"[bold]{attack}", "inputs": {attack: attack}})
    say(f"Run {attack} is [link=http://evil]here[/link]")
    note(f"Run failed: {attack}")
    shown = screen.getvalue()
    assert harmless(shown)
    for markup in ("[red]", "[/red]", "[bold]", "[link=http://evil]"):
        assert markup in shown


@pytest.mark.parametrize("attack", ATTACKS)
def test_json_on_a_terminal_escapes_what_steers_it_and_says_the_same(
    attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    print_json({attack: [attack]})
    shown = screen.getvalue()
    assert json.loads(shown) == {attack: [attack]}
    assert harmless(shown.replace("\u202e", ""))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_followed_run_that_steers_the_terminal(
    attack: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = terminal(monkeypatch)
    event = EventEntry(datetime(2026, 1, 1, tzinfo=UTC), EventType.ERROR, f"[red]{attack}")
    with open_view(Streams.standard(as_json=False)) as view:
        view.run(OpRun(f"[red]{attack}"))
        view.event(event)
        view.log(f"{RED}[red]{attack}\n")
    shown = screen.getvalue()
    assert plain(attack).rstrip("\u2407") in shown or attack == "\x00"
    for part in ("]52;", "]0;", "]8;"):
        assert f"\x1b{part}" not in shown
    assert not any("\x80" <= character <= "\x9f" for character in shown)
    assert "\u202e" not in shown
    assert "[red]" in shown


def test_a_log_is_raw_in_a_file_and_fit_for_a_terminal_on_one() -> None:
    file, screen = io.StringIO(), Screen()
    for stream in (file, screen):
        streams = Streams(TextOutput(stream), TextOutput(io.StringIO()))
        PlainView(streams).log(f"{CLIPBOARD}{RED}\n")
    assert file.getvalue() == f"{CLIPBOARD}{RED}\n"
    assert CLIPBOARD not in screen.getvalue()
    assert RED in screen.getvalue()

"""Keeps text of others from steering the terminal: images, logs, events and errors are theirs.

An escape sequence can move the cursor over what was printed before, set the title, fill the
clipboard or make the terminal answer as if somebody typed. Of all of them only colours pass, and
these in logs alone; what starts another is shown as the sign it is.
"""

import json
import re

_COLOURS = r"\x1b\[[0-9;:]{0,64}m"
_CUT = re.compile(r"\x1b(\[[0-9;:]{0,64})?\Z")

# All control characters but tab and line feed, those of 8 bits, what turns the reading order, and
# what shows nothing at all, so that two names that differ look alike.
_UNSEEN = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_CONTROL = rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_UNSEEN}]"
_ANY = re.compile(_CONTROL)
_NO_COLOUR = re.compile(rf"({_COLOURS})|{_CONTROL}")
_IN_JSON = re.compile(rf"[\x7f-\x9f{_UNSEEN}]")

RESET = "\x1b[0m"


def plain(text: str) -> str:
    """Return text that only shows: a control character is replaced by its picture or number."""
    return _ANY.sub(lambda found: _picture(found[0]), text)


def plain_json(text: str) -> str:
    """Return the text of a JSON document, equal to it, that only shows.

    JSON itself escapes the control characters of 7 bits; all these stand in strings.
    """
    return _IN_JSON.sub(lambda found: json.dumps(found[0]).strip('"'), text)


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else ascii(character).strip("'")


class LogText:
    """Makes log text that comes in pieces fit for a terminal; carriage returns and colours stay."""

    def __init__(self) -> None:
        self._held = ""
        self._coloured = False

    def feed(self, text: str) -> str:
        """Return what can be shown so far; the beginning of a sequence waits for its end."""
        text = self._held + text
        cut = _CUT.search(text)
        self._held = cut[0] if cut else ""
        return _NO_COLOUR.sub(self._keep, text.removesuffix(self._held))

    def end(self) -> str:
        """Return the rest, and what ends colours that were left on."""
        held, self._held = self._held, ""
        return plain(held) + (RESET if self._coloured else "")

    def _keep(self, found: re.Match[str]) -> str:
        if found[1]:
            self._coloured = True
            return found[1]
        return "\r" if found[0] == "\r" else _picture(found[0])

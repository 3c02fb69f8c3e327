"""Masks secrets: in a stream of bytes wherever its blocks are cut, and in the events of an op.

Every place is masked at which a secret stands, also where one overlaps another or itself; secrets
that overlap leave one mask. It comes before whatever cuts text (the spool's cap, the tail, the last
lines in a failure), so that a cut never leaves the half of a secret that nobody recognises.
"""

import json
import logging
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from heapq import merge
from itertools import chain
from typing import Any, cast

from gyoza.worker.logs.events import OpEvent

MASK = b"***"

MIN_SECRET = 8
"""Characters of a value, or of a line of one; shorter ones are left alone: they stand all over any
text."""

MAX_FORMS = 64
"""Pieces of text that are looked for in what a run tells: each takes its time, block by block."""

PIECE = 1024
"""Bytes; a longer secret is looked for in pieces, so that what is held back stays short."""

MOST_PLACES = 10_000
"""Places of secrets that are told apart in one block; one that has more becomes a single mask."""

MAX_PERIOD = 32

INCOMPLETE = (
    f"Not all of the run's secrets are masked: they have more than {MAX_FORMS} lines, or pieces of "
    f"{PIECE} bytes."
)
"""What the server is told of such a run."""

logger = logging.getLogger(__name__)


class Secrets:
    """The values that nobody is to see, in the forms in which they are masked.

    Those are the value without white space around it, each of its lines, and all of these as JSON
    writes them: whole values first, short ones before long ones, up to `MAX_FORMS`.

    Args:
        values: The values.
        least: Characters from which on a value or a line counts.

    Attributes:
        complete: Whether that was enough for all of them.
    """

    def __init__(self, values: Iterable[str] = (), least: int = MIN_SECRET) -> None:
        pieces: set[bytes] = set()
        self.complete = True
        for piece in _pieces(values, least):
            if len(pieces) == MAX_FORMS and piece not in pieces:
                self.complete = False
                break
            pieces.add(piece)
        self._texts = sorted(pieces)
        self._forms = [_Form(text) for text in self._texts]
        self._shortest = min(map(len, self._texts), default=0)
        self._longest = max(map(len, self._texts), default=0)
        firsts = b"".join(re.escape(text[:1]) for text in self._texts)
        self._beginning = re.compile(b"[%s]" % firsts) if firsts else None

    @classmethod
    def of_variables(
        cls, names: Iterable[str], variables: Mapping[str, str], run: str
    ) -> "Secrets":
        """Take the values of those variables that are there; say what is not masked of them.

        With many variables this takes its time, and belongs in a thread.
        """
        values = {name: variables[name] for name in sorted({*names}) if variables.get(name)}
        short = [name for name, value in values.items() if len(value.strip()) < MIN_SECRET]
        if short:
            logger.info(
                "Run %s: not masked in its log, since shorter than %d characters: %s",
                run,
                MIN_SECRET,
                ", ".join(short),
            )
        return cls(values.values())

    def __bool__(self) -> bool:
        return bool(self._forms)

    def spans(self, data: bytes, covered: int = 0) -> Iterator[tuple[int, int]]:
        """Yield where secrets are, in order, those that overlap as one; `covered` bytes are."""
        counts = [data.count(text) for text in self._texts]
        if sum(counts) > MOST_PLACES:
            yield 0, len(data)
            return
        found = [form.spans(data) for form, n in zip(self._forms, counts, strict=True) if n]
        start, end = 0, covered
        for next_start, next_end in merge(*found):
            if next_start >= end:
                if end:
                    yield start, end
                start = next_start
            end = max(end, next_end)
        if end:
            yield start, end

    def begun(self, data: bytes) -> int:
        """Return the length of the longest end of `data` with which a secret may begin."""
        if self._beginning is None:
            return 0
        for match in self._beginning.finditer(data, max(0, len(data) - self._longest + 1)):
            rest = data[match.start() :]
            after = bisect_right(self._texts, rest)  # a longer text that begins with it comes there
            if after < len(self._texts) and self._texts[after].startswith(rest):
                return len(rest)
        return 0

    def mask(self, text: str) -> str:
        """Return the text without the secrets."""
        if 4 * len(text) < self._shortest:  # a character has four bytes at most
            return text
        masker = Masker(self)
        masked = masker.feed(text.encode()) + masker.flush()
        return masked.decode(errors="replace")

    def mask_event(self, event: OpEvent) -> OpEvent:
        """Return the event without the secrets in its texts, keys included."""
        if not self:
            return event
        return replace(event, msg=self._plain(event.msg), payload=self._plain(event.payload))

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.mask(value)
        if isinstance(value, list):
            return [self._plain(item) for item in cast("list[Any]", value)]
        if isinstance(value, dict):
            items = cast("dict[str, Any]", value).items()
            return {self.mask(key): self._plain(item) for key, item in items}
        return value


class Masker:
    """Masks the secrets in one stream; holds back what may be the beginning of one.

    Attributes:
        at_line_start: Whether what is held back begins a line.
    """

    def __init__(self, secrets: Secrets, *, at_line_start: bool = True) -> None:
        self._secrets = secrets
        self._held = b""
        # A secret whose end is not certain: its bytes before those held, and its bytes among them.
        self._open: int = 0
        self._covered: int = 0
        self.at_line_start = at_line_start

    @property
    def held(self) -> int:
        """Bytes of the stream for which nothing was returned yet."""
        return self._open + len(self._held)

    def feed(self, data: bytes) -> bytes:
        """Return what is certain by now, masked."""
        if not self._secrets:
            return data
        data = self._held + data
        return self._mask(data, len(data) - self._secrets.begun(data))

    def flush(self) -> bytes:
        """Return what was held back: nothing follows that could complete a secret."""
        return self._mask(self._held, len(self._held)) if self._held else b""

    def _mask(self, data: bytes, end: int) -> bytes:
        """Return `data[:end]` masked; of the rest it is unknown whether it begins a secret."""
        told: list[bytes] = []
        at, opened, covered = 0, 0, 0
        before = self._open
        for start, stop in self._secrets.spans(data, self._covered):
            if start >= end and not (start == 0 and before):
                break
            told.append(data[at:start])
            at = stop
            if stop > end:  # what comes may overlap it
                opened, covered = end - start + before, stop - end
                break
            told.append(MASK)
            before = 0
        told.append(data[at:end])
        first = end - opened  # where what is undecided begins, unless that was so before
        if first > 0:
            self.at_line_start = data[first - 1 : first] == b"\n"
        self._held, self._open, self._covered = data[end:], opened, covered
        return b"".join(told)


class _Form:
    """A piece of text to look for."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        # `aaaa` can be found again one byte on, a million times a block: such a run is taken whole.
        periods = range(1, min(len(text), MAX_PERIOD + 1))
        period = next((p for p in periods if text.startswith(text[p:])), 0)
        self._again = re.compile(b"(?:%s)*" % re.escape(text[-period:])) if period else None

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Yield where the text is, in order; where it overlaps itself as one."""
        size = len(self.text)
        at = data.find(self.text)
        while at >= 0:
            start, end = at, at + size
            while at >= 0:
                end = at + size
                if self._again and (run := self._again.match(data, end)):
                    end = run.end()
                at = data.find(self.text, end - size + 1, end + size - 1)
            yield start, end
            at = data.find(self.text, end)


def _pieces(values: Iterable[str], least: int) -> Iterator[bytes]:
    """Yield the forms of the values, the most important first."""
    whole = sorted((value.strip() for value in values), key=len)
    lines = (line.strip() for value in whole for line in value.splitlines())
    for text in chain(whole, lines):
        if len(text) >= least:
            for form in (text, *(json.dumps(text, ensure_ascii=a)[1:-1] for a in (True, False))):
                yield from _cut(form.encode(errors="surrogateescape"))


def _cut(form: bytes) -> Iterator[bytes]:
    """Yield pieces that cover the form; the last two may overlap, so that none is short."""
    for at in range(0, len(form), PIECE):
        yield form[at : at + PIECE] if at + PIECE <= len(form) else form[-PIECE:]

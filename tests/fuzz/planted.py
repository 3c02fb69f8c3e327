"""Targets with a fault in them, to show that fuzzing finds such."""

from tests.fuzz.target import Target


def breaks(data: bytes) -> None:
    """Break at a word that chance alone does not write."""
    if data.startswith(b"g") and data[1:2] == b"y" and data[2:3] == b"o":
        assert data[3:5] != b"za", "found it"


def hangs(data: bytes) -> None:
    """Never end with some inputs."""
    while data.startswith(b"y"):
        pass


def grows(data: bytes) -> None:
    """Take all memory there is with some inputs."""
    kept: list[bytearray] = []
    while data.startswith(b"y"):
        kept.append(bytearray(b"x" * 1_000_000))


BREAKS = Target(breaks, (b"gx",))
HANGS = Target(hangs, (b"x",), longest=2)
GROWS = Target(grows, (b"x",), longest=2)

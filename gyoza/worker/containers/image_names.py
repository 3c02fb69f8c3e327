"""Names of images as the engine understands them, and patterns that say which are allowed."""

import re
from dataclasses import dataclass
from typing import Self

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/@+-]{0,511}")
_ID = re.compile(r"(sha256:)?[0-9a-f]{1,64}")
_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class ImageName:
    """An image reference in parts, or a pattern for one.

    Attributes:
        repository: Registry and path, written out: `python` is `docker.io/library/python`.
        tag: Empty if there is none.
        digest: With its algorithm. The engine ignores the tag of a name that has one.
    """

    repository: str
    tag: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a reference or pattern apart."""
        name, _, digest = text.partition("@")
        path, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        return cls(_written_out(f"{path}{slash}{last}"), tag, digest)


def is_reference(image: object) -> bool:
    """Return whether this can be the name of an image at all."""
    return isinstance(image, str) and _REFERENCE.fullmatch(image) is not None


def is_allowed(image: str, patterns: list[str]) -> bool:
    """Return whether one of the patterns, if there are any, stands for the image.

    In a pattern `*` is any text without a slash and `**` any text. A pattern without tag and digest
    allows all of them; one with a tag allows no digest, since the tag then says nothing. The id of
    an image on the engine is never allowed by a pattern.
    """
    if not patterns:
        return True
    if _ID.fullmatch(image):
        return False
    name = ImageName.parse(image)
    return any(_stands_for(ImageName.parse(pattern), name) for pattern in patterns)


def _stands_for(pattern: ImageName, name: ImageName) -> bool:
    if not _glob(pattern.repository, name.repository):
        return False
    if pattern.digest:
        return pattern.digest == name.digest
    if pattern.tag:
        return not name.digest and _glob(pattern.tag, name.tag or "latest")
    return True


def _written_out(repository: str) -> str:
    first, slash, rest = repository.partition("/")
    if first.startswith("**"):
        return repository
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = _HUB[0], repository
    registry = _HUB[0] if first.lower() in _HUB else first.lower()
    library = "library/" if registry == _HUB[0] and "/" not in rest and rest != "**" else ""
    return f"{registry}/{library}{rest}"


def _glob(pattern: str, text: str) -> bool:
    parts = re.split(r"(\*\*|\*)", pattern)
    translated = {"*": "[^/]*", "**": ".*"}
    expression = "".join(translated.get(part) or re.escape(part) for part in parts)
    return re.fullmatch(expression, text) is not None

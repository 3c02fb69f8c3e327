"""The one grammar of image names, which is the engine's: what is checked is what is pulled.

Where engines differ about a name, or would read it as something else than it seems to be, it is
none: `NAME:` is all tags of an image to an engine, and `Name/op` is a registry to some of them.

Errors:
    ValueError
      InvalidImageError   text that is not the name of an image
"""

import re
from dataclasses import dataclass
from typing import Self

HUB = "docker.io"
"""The registry of names that name none."""

MAX_NAME = 255
"""Characters of registry and path together, written out."""

MAX_TEXT = 600
"""Characters of a name with its tag and digest, more or less: longer ones are not even matched."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_PORT = r"(?::[0-9]{1,5})?"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]){_PORT}"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}"
_ID = r"(?:sha256:)?[0-9a-f]{64}"

IMAGE_PATTERN = (
    rf"^(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*(?::{_TAG})?(?:@(?:{_DIGEST}))?$"
    r"|^sha256:[0-9a-f]{64}$"
)
"""What all names match; some that match are none, for reasons of length."""

_REFERENCE = re.compile(
    rf"(?P<name>(?:{_REGISTRY}/)?{_PART}(?:/{_PART})*)"
    rf"(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?"
)


class InvalidImageError(ValueError):
    """Text that is not the name of an image."""


@dataclass(frozen=True)
class ImageName:
    """The name of an image in parts.

    Attributes:
        registry: With its port; `docker.io` if the name has none.
        path: On the registry, written out: of `python` it is `library/python`.
        tag: Empty if there is none; then it is `latest`, unless there is a digest.
        digest: With its algorithm. The engine ignores the tag of a name that has one.
    """

    registry: str
    path: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """Registry and path."""
        return f"{self.registry}/{self.path}"

    @property
    def version(self) -> str:
        """What is pulled of the repository: a digest, or one tag."""
        return self.digest or self.tag or "latest"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a name apart.

        Raises:
            InvalidImageError: If it is none, or the id of an image.
        """
        found = _REFERENCE.fullmatch(text) if len(text) <= MAX_TEXT else None
        if found is None or is_image_id(text):
            raise InvalidImageError(_what_is_wrong(text))
        registry, path = split_registry(found["name"])
        if len(f"{registry}/{path}") > MAX_NAME or not re.fullmatch(_REGISTRY, registry):
            raise InvalidImageError(_what_is_wrong(text))
        return cls(registry, path, found["tag"] or "", found["digest"] or "")


def is_image_id(text: str) -> bool:
    """Return whether this is the whole id of an image, which names what one engine has."""
    return re.fullmatch(_ID, text) is not None


def check_image(text: str) -> str:
    """Return the text if it is the name of an image, or the id of one.

    Raises:
        InvalidImageError: If it is neither; says what is wrong in a sentence.
    """
    if not is_image_id(text):
        ImageName.parse(text)
    return text


def split_registry(name: str) -> tuple[str, str]:
    """Return the registry and the path of a name without tag and digest, as the engine does.

    The first part is a registry if it could be a host: it has a dot or a port, or is `localhost`.
    """
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        first, rest = HUB, name
    registry = HUB if first == f"index.{HUB}" else first
    if registry == HUB and "/" not in rest:
        rest = f"library/{rest}"
    return registry, rest


def _what_is_wrong(text: str) -> str:
    name, at, digest = text.partition("@")
    last = name.rpartition("/")[2]
    name, colon, tag = name.rpartition(":") if ":" in last else (name, "", "")
    why = ""
    if len(text) > MAX_NAME:
        why = ": it is too long"
    elif colon and not tag:
        why = ": there is no tag after its ':'"
    elif at and not re.fullmatch(_DIGEST, digest):
        why = ": after its '@' there must be a digest, such as sha256 with 64 digits"
    elif name.lower() != name:
        why = ": only its tag may have capital letters"
    return f"{text[:80]!a} is not the name of an image{why}."

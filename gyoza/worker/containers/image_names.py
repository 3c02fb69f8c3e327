"""Patterns that say which images are allowed."""

import re

from gyoza.models import ImageName, InvalidImageError, is_image_id
from gyoza.models.images import HUB, split_registry
from gyoza.worker.errors import SettingsError

_ID = re.compile(r"[0-9a-f]{1,64}")


def check_pattern(pattern: str) -> None:
    """Do nothing if a pattern can stand for an image at all.

    Raises:
        SettingsError: If not: a worker with such a policy would run nothing.
    """
    try:
        ImageName.parse(re.sub(r"\*\*?", "a", pattern))
    except InvalidImageError:
        raise SettingsError(
            f"The setting allow_images has {pattern[:80]!a}, which stands for no image; patterns"
            " are such as python:3.*, registry.example.org/ops/** or me/*."
        ) from None


def is_allowed(image: str, patterns: list[str]) -> bool:
    """Return whether one of the patterns, if there are any, stands for the image.

    In a pattern `*` is any text without a slash and `**` any text. A pattern without tag and digest
    allows all of them; one with a tag allows no digest, since the tag then says nothing. The id of
    an image on the engine is never allowed by a pattern, nor what could be the beginning of one.
    """
    if not patterns:
        return True
    if is_image_id(image) or _ID.fullmatch(image):
        return False
    try:
        name = ImageName.parse(image)
    except InvalidImageError:
        return False
    return any(_stands_for(pattern, name) for pattern in patterns)


def _stands_for(pattern: str, name: ImageName) -> bool:
    repository, tag, digest = _parts(pattern)
    if not repository.startswith("**"):
        repository = _written_out(repository)
    if not _glob(repository, name.repository):
        return False
    if digest:
        return digest == name.digest
    if tag:
        return not name.digest and _glob(tag, name.tag or "latest")
    return True


def _parts(pattern: str) -> tuple[str, str, str]:
    """Return name, tag and digest of a pattern."""
    name, _, digest = pattern.partition("@")
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{path}{slash}{last}", tag, digest


def _written_out(repository: str) -> str:
    registry, path = split_registry(repository)
    if registry == HUB and path == "library/**":  # docker.io/** is all of it
        path = "**"
    return f"{registry}/{path}"


def _glob(pattern: str, text: str) -> bool:
    parts = re.split(r"(\*\*|\*)", pattern)
    translated = {"*": "[^/]*", "**": ".*"}
    expression = "".join(translated.get(part) or re.escape(part) for part in parts)
    return re.fullmatch(expression, text) is not None

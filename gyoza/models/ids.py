"""The one pattern for ids that become paths, container names and labels.

Errors:
    ValueError
      InvalidIdError   an id that does not match the pattern
"""

import re

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_ID = re.compile(ID_PATTERN.removesuffix("$"))


class InvalidIdError(ValueError):
    """An id that could not be a path or container name."""


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it is safe as a path, container name and label.

    Args:
        value: The id to check.
        what: What it identifies, for the sentence of the error.

    Raises:
        InvalidIdError: If it does not match `ID_PATTERN`.
    """
    if not _ID.fullmatch(value):
        raise InvalidIdError(
            f"{value!r} is not a valid {what}: use 1 to 63 letters, digits, '_', '.' or '-', "
            "starting with a letter or digit."
        )
    return value

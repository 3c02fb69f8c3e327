"""The progress stream of a pull: summed up for people, its errors found."""

import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from gyoza.models import ImageName, InvalidImageError
from gyoza.worker.errors import ImagePullError, RegistryUnavailable

INTERVAL_S = 1.0

_ANSWERED = re.compile(
    r"not found|(manifest|name|blob) unknown|no such image|does not exist|denied|unauthorized"
    r"|authentication required|no basic auth|incorrect username|forbidden|no matching manifest"
    r"|no match for platform|unsupported|not supported|invalid re(ference|pository)|name invalid"
    r"|\b4(?!08|29)\d\d\b"
)
"""What engines say when a registry has answered that there is no such image, or not for us."""

_TROUBLE = re.compile(
    r"toomanyrequests|too many requests|dial tcp|proxyconnect|lookup |x509|tls:|time-?out|timed out"
    r"|bad gateway|unavailable|server error|\b(408|429|5\d\d)\b"
)
"""What they say when they could not ask it, or it could not answer, whatever else they say."""


class _Layer:
    """How far a layer is; unpacking is not counted, its numbers start anew."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.ready = False

    def update(self, line: dict[str, Any]) -> None:
        status = line.get("status", "")
        detail: dict[str, int] = line.get("progressDetail") or {}
        if status == "Downloading":
            self.done = detail.get("current", self.done)
            self.total = max(self.total, detail.get("total", 0))
        elif status in ("Download complete", "Verifying Checksum", "Extracting"):
            self.done = self.total
        elif status in ("Pull complete", "Already exists"):
            self.done, self.ready = self.total, True


class PullProgress:
    """The state of a pull, as far as the lines read so far tell it."""

    def __init__(self, image: str) -> None:
        self._image = image
        self._layers: dict[str, _Layer] = {}

    def update(self, line: dict[str, Any]) -> None:
        """Take in a line of the stream."""
        layer = line.get("id")
        # The line that names the tag has an id as well.
        if layer and not line.get("status", "").startswith("Pulling from"):
            self._layers.setdefault(layer, _Layer()).update(line)

    def __str__(self) -> str:
        layers = self._layers.values()
        if not layers:
            return f"pulling {self._image}"
        ready = sum(layer.ready for layer in layers)
        sentence = f"pulling {self._image}: {ready} of {len(layers)} layers"
        total = sum(layer.total for layer in layers)
        if total:
            sentence += f", {100 * sum(layer.done for layer in layers) // total} %"
        return sentence


def read_pull(
    image: str, lines: Iterable[dict[str, Any]], tell: Callable[[str], None], more: str = ""
) -> None:
    """Read a pull's stream to its end, telling how it stands about once a second.

    Args:
        image: The image's name.
        lines: What the engine says.
        tell: Gets a sentence.
        more: What is to be said besides if it fails.

    Raises:
        ImagePullError: If the stream holds an error; says what the engine said.
    """
    progress = PullProgress(image)
    told_at = -INTERVAL_S
    for line in lines:
        if "error" in line or "errorDetail" in line:
            raise pull_error(image, line.get("error") or line["errorDetail"]["message"], more)
        progress.update(line)
        now = time.monotonic()
        if now - told_at >= INTERVAL_S:
            told_at = now
            tell(str(progress))
    tell(f"pulled {image}")


def pull_error(image: str, words: str, more: str = "") -> ImagePullError:
    """Return the error for what the engine or the registry said.

    Only an answer of the registry about the image is the last word: whatever else went wrong may be
    well in a moment.

    Args:
        image: The image's name.
        words: What was said.
        more: A sentence to add.
    """
    told = _without_names(image, words.lower())
    answered = _ANSWERED.search(told) and not _TROUBLE.search(told)
    sentence = f"Cannot pull {image}: {words.strip().rstrip('.')}.{more and f' {more}'}"
    return ImagePullError(sentence) if answered else RegistryUnavailable(sentence)


def _without_names(image: str, words: str) -> str:
    """Return the words without the image's own: it may be called `forbidden/timeout`."""
    try:
        name = ImageName.parse(image)
    except InvalidImageError:
        return words
    path = name.path.removeprefix("library/")
    for part in (image, name.repository, name.path, path, name.registry, name.tag, name.digest):
        if part:
            words = re.sub(rf"(?<!\w){re.escape(part.lower())}(?!\w)", "…", words)
    return words

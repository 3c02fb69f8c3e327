"""The progress stream of a pull: summed up for people, its errors found."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from gyoza.worker.errors import ImagePullError

INTERVAL_S = 1.0


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


def read_pull(image: str, lines: Iterable[dict[str, Any]], tell: Callable[[str], None]) -> None:
    """Read a pull's stream to its end, telling how it stands about once a second.

    Raises:
        ImagePullError: If the stream holds an error; says what the engine said.
    """
    progress = PullProgress(image)
    told_at = -INTERVAL_S
    for line in lines:
        if "error" in line or "errorDetail" in line:
            raise pull_error(image, line.get("error") or line["errorDetail"]["message"])
        progress.update(line)
        now = time.monotonic()
        if now - told_at >= INTERVAL_S:
            told_at = now
            tell(str(progress))
    tell(f"pulled {image}")


def pull_error(image: str, words: str) -> ImagePullError:
    """Return the error for what the engine or the registry said."""
    return ImagePullError(f"Cannot pull {image}: {words.strip().rstrip('.')}.")


def split_reference(image: str) -> tuple[str, str]:
    """Return the repository and the tag or digest; without either it would be all the tags."""
    repository, at, digest = image.partition("@")
    if at:
        return repository, digest
    head, colon, tag = image.rpartition(":")
    if colon and "/" not in tag:  # and not the port of a registry
        return head, tag
    return image, "latest"

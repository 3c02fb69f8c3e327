"""Pull policies, and one pull of an image for all who wait for it."""

import logging
import math
from collections.abc import Callable
from typing import Literal, NoReturn

import trio

from gyoza.models import ImageName, is_image_id
from gyoza.models.images import split_registry
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.engine import ContainerEngine, ImageInfo
from gyoza.worker.errors import EngineError, ImageNotFound, ImagePullError, RegistryUnavailable
from gyoza.worker.lacks import lack_of

Progress = Callable[[str], None]

STALL_S = 300.0
"""Seconds without any progress after which a pull is given up."""

REGISTRY_WAIT_S = 120.0
"""Seconds for which a registry that cannot be reached is asked again, unless set otherwise."""

FORGET_S = 600.0
"""Seconds after which a registry that nobody has asked any more is not known to be away."""

# always: before every run, unless the image was built here; missing: if the engine does not have
# it; never: not at all, the engine must have it.
PullPolicy = Literal["always", "missing", "never"]

logger = logging.getLogger(__name__)


class SharedPulls:
    """Makes images available, with one pull per image under way at a time.

    A pull belongs to all who wait for it and to none of them: it runs in the nursery given here,
    which must outlive them, and ends early when the last of them is cancelled.

    Args:
        engine: Has the images, or pulls them.
        nursery: Of the pulls.
        registry_wait_s: For how long a registry that cannot be reached is asked again. After that
            an image that is here is used, and one that is not cannot be pulled.
    """

    def __init__(
        self,
        engine: ContainerEngine,
        nursery: trio.Nursery,
        registry_wait_s: float = REGISTRY_WAIT_S,
    ) -> None:
        self._engine = engine
        self._nursery = nursery
        self._registry_wait_s = registry_wait_s
        self._pulls: dict[str, _Pull] = {}
        self._outages = _Outages()

    async def ensure(self, image: str, policy: PullPolicy, on_progress: Progress) -> None:
        """Return when the engine has the image.

        Args:
            image: The image's reference.
            policy: When to pull it.
            on_progress: Gets a sentence for people when there is news, in the caller's task.

        Raises:
            ImagePullError: If it could not be pulled.
            ImageNotFound: If the policy is `never`, or the image is named by its id, and the engine
                does not have it.
            EngineError: If the engine fails.
        """
        local = await self._engine.find_image(image)
        if local and (policy != "always" or _is_what_is_meant(image, local)):
            return
        if policy == "never":
            raise ImageNotFound(
                f"This worker has no image {image} and its pull policy is never;"
                " build or pull the image there, or change the policy."
            )
        if is_image_id(image):
            raise ImageNotFound(f"This worker has no image {image}, and no id can be pulled.")
        try:
            await self._pull(image, on_progress, is_here=local is not None)
        except ImagePullError as error:
            if local is None or lack_of(error):
                raise
            if isinstance(error, RegistryUnavailable):
                on_progress(f"{error} Using the image that is here; there may be a newer one.")
                return
            raise ImagePullError(
                f"{error} This worker has an image of that name, which the pull policy missing"
                " would use."
            ) from error

    async def _pull(self, image: str, on_progress: Progress, *, is_here: bool) -> None:
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull(image)
            self._nursery.start_soon(self._run, image, pull)
        pull.waiters += 1
        try:
            await pull.follow(on_progress, self._registry_wait_s, is_here=is_here)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                self._forget(image, pull)  # who comes now must not join a pull that ends
                pull.scope.cancel()

    async def _run(self, image: str, pull: "_Pull") -> None:
        try:
            with pull.scope:
                await self._pull_when_answered(image, pull)
                pull.error = None
            if pull.scope.cancelled_caught:  # at its deadline, or nobody is left to be told
                pull.error = RegistryUnavailable(
                    f"Cannot pull {image}: there was no progress for {STALL_S:g} s."
                )
        except EngineError as error:
            pull.error = error
        finally:
            self._forget(image, pull)
            pull.finish()

    async def _pull_when_answered(self, image: str, pull: "_Pull") -> None:
        """Pull it, again and again while its registry cannot be reached."""
        backoff = Backoff()
        while True:
            pull.begin()
            try:
                await self._engine.pull(image, pull.tell)
            except RegistryUnavailable as error:
                if lack_of(error):
                    raise
                pull.fail(error, self._outages.note(pull.registry))
            except ImagePullError:
                self._outages.end(pull.registry)
                raise
            else:
                self._outages.end(pull.registry)
                return
            await backoff.wait()

    def _forget(self, image: str, pull: "_Pull") -> None:
        if self._pulls.get(image) is pull:
            del self._pulls[image]


def _is_what_is_meant(image: str, local: ImageInfo) -> bool:
    """Return whether no registry has to be asked for an image that is here.

    It is named by what it holds, or was built here: it has no digest of a registry for that name,
    and whatever a registry has of that name is somebody else's.
    """
    if is_image_id(image) or (name := ImageName.parse(image)).digest:
        return True
    repositories = ("/".join(split_registry(d.partition("@")[0])) for d in local.repo_digests)
    if name.repository in repositories:
        return False
    logger.debug("%s was built here; it is used as it is.", image)
    return True


class _Outages:
    """Since when registries cannot be reached: for an image that is here that wait counts."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, float]] = {}  # since when, and when last met

    def note(self, registry: str) -> float:
        """Say that it cannot be reached; return since when."""
        now = trio.current_time()
        self._known = {r: times for r, times in self._known.items() if now - times[1] < FORGET_S}
        since, _ = self._known.get(registry, (now, now))
        self._known[registry] = (since, now)
        return since

    def end(self, registry: str) -> None:
        """Say that it has answered."""
        self._known.pop(registry, None)


class _Pull:
    """A pull under way and what is known of it."""

    def __init__(self, image: str) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + STALL_S)
        self.registry = ImageName.parse(image).registry
        self.waiters = 0
        self.error: EngineError | None = ImagePullError(f"The pull of {image} was stopped.")
        self._sentence = ""
        self._finished = False
        self._news = trio.Event()
        self._trouble: RegistryUnavailable | None = None
        self._moves = False
        self._failing_since = self._away_since = math.inf

    def begin(self) -> None:
        """Say that the engine is asked now."""
        self.scope.deadline = trio.current_time() + STALL_S
        self._moves = False

    def tell(self, sentence: str) -> None:
        """Give all waiters the sentence; one who is busy gets only the last."""
        self.scope.deadline = trio.current_time() + STALL_S
        self._moves = True
        self._say(sentence)

    def fail(self, trouble: RegistryUnavailable, away_since: float) -> None:
        """Say that the registry could not be reached, and will be asked again."""
        self._trouble, self._moves = trouble, False
        self._failing_since = min(self._failing_since, trio.current_time())
        self._away_since = away_since
        self._say(f"{trouble} Retrying.")

    def finish(self) -> None:
        """Wake all waiters for good."""
        self._finished = True
        self._news.set()

    async def follow(self, on_progress: Progress, registry_wait_s: float, *, is_here: bool) -> None:
        """Pass on the news until the pull has ended, and raise what it raised.

        Args:
            on_progress: Gets the news.
            registry_wait_s: For how long to wait for a registry that cannot be reached.
            is_here: There is an image that can be used without it: what others have waited counts.

        Raises:
            RegistryUnavailable: If that was not long enough.
        """
        told, joined_at = "", trio.current_time()
        while True:
            if self._sentence != told:
                told = self._sentence
                on_progress(told)
            if self._finished:
                break
            began_at = self._away_since if is_here else max(joined_at, self._failing_since)
            with trio.CancelScope() as patience:
                if self._trouble and not self._moves:
                    patience.deadline = began_at + registry_wait_s
                await self._news.wait()
            if patience.cancelled_caught and self._trouble:
                _raise_copy(self._trouble)
        if self.error is not None:
            _raise_copy(self.error)

    def _say(self, sentence: str) -> None:
        self._sentence = sentence
        self._news.set()
        self._news = trio.Event()


def _raise_copy(error: EngineError) -> NoReturn:
    """Raise a copy for each: one exception cannot be raised in several tasks."""
    raise type(error)(str(error)) from error

"""Pull policies, and one pull of an image for all who wait for it."""

from collections.abc import Callable
from typing import Literal

import trio

from gyoza.worker.containers.engine import ContainerEngine
from gyoza.worker.errors import EngineError, ImageNotFound, ImagePullError

Progress = Callable[[str], None]

STALL_S = 300.0
"""Seconds without any progress after which a pull is given up."""

# always: before every run, unless the image was built here and is in no registry;
# missing: if the engine does not have it; never: not at all, the engine must have it.
PullPolicy = Literal["always", "missing", "never"]


class SharedPulls:
    """Makes images available, with one pull per image under way at a time.

    A pull belongs to all who wait for it and to none of them: it runs in the nursery given here,
    which must outlive them, and ends early when the last of them is cancelled.
    """

    def __init__(self, engine: ContainerEngine, nursery: trio.Nursery) -> None:
        self._engine = engine
        self._nursery = nursery
        self._pulls: dict[str, _Pull] = {}

    async def ensure(self, image: str, policy: PullPolicy, on_progress: Progress) -> None:
        """Return when the engine has the image.

        Args:
            image: The image's reference.
            policy: When to pull it.
            on_progress: Gets a sentence for people when there is news, in the caller's task.

        Raises:
            ImagePullError: If it could not be pulled.
            ImageNotFound: If the policy is `never` and the engine does not have it.
            EngineError: If the engine fails.
        """
        if policy != "always" and await self._engine.find_image(image):
            return
        if policy == "never":
            raise ImageNotFound(
                f"This worker has no image {image} and its pull policy is never;"
                " build or pull the image there, or change the policy."
            )
        try:
            await self._pull(image, on_progress)
        except ImagePullError as error:
            local = await self._engine.find_image(image)
            if local is None:
                raise
            if local.repo_digests:
                raise ImagePullError(
                    f"{error} This worker has an image of that name, which the pull policy missing"
                    " would use."
                ) from error
            on_progress(f"{image} was built here and is in no registry; using it as it is")

    async def _pull(self, image: str, on_progress: Progress) -> None:
        pull = self._pulls.get(image)
        if pull is None:
            pull = self._pulls[image] = _Pull(image)
            self._nursery.start_soon(self._run, image, pull)
        pull.waiters += 1
        try:
            await pull.follow(on_progress)
        finally:
            pull.waiters -= 1
            if not pull.waiters:
                self._forget(image, pull)  # who comes now must not join a pull that ends
                pull.scope.cancel()

    async def _run(self, image: str, pull: "_Pull") -> None:
        try:
            with pull.scope:
                await self._engine.pull(image, pull.tell)
                pull.error = None
            if pull.scope.cancelled_caught:  # at its deadline, or nobody is left to be told
                pull.error = ImagePullError(
                    f"Cannot pull {image}: there was no progress for {STALL_S:g} s."
                )
        except EngineError as error:
            pull.error = error
        finally:
            self._forget(image, pull)
            pull.finish()

    def _forget(self, image: str, pull: "_Pull") -> None:
        if self._pulls.get(image) is pull:
            del self._pulls[image]


class _Pull:
    """A pull under way and what is known of it."""

    def __init__(self, image: str) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + STALL_S)
        self.waiters = 0
        self.error: EngineError | None = ImagePullError(f"The pull of {image} was stopped.")
        self._sentence = ""
        self._finished = False
        self._news = trio.Event()

    def tell(self, sentence: str) -> None:
        """Give all waiters the sentence; one who is busy gets only the last."""
        self.scope.deadline = trio.current_time() + STALL_S
        self._sentence = sentence
        self._news.set()
        self._news = trio.Event()

    def finish(self) -> None:
        """Wake all waiters for good."""
        self._finished = True
        self._news.set()

    async def follow(self, on_progress: Progress) -> None:
        """Pass on the news until the pull has ended, and raise what it raised."""
        told = ""
        while True:
            if self._sentence != told:
                told = self._sentence
                on_progress(told)
            if self._finished:
                break
            await self._news.wait()
        if self.error is not None:
            # A copy for each: one exception cannot be raised in several tasks.
            raise type(self.error)(str(self.error)) from self.error

"""`python -m gyoza.demo`: shows gyoza at work; a sentence and an exit code for all that can happen.

0 if everything went as it should, 1 if not, 130 after Ctrl-C or another signal that ends it.
"""

import signal
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio
    from rich.console import Console

FAILED, INTERRUPTED = 1, 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo and return its exit code."""
    try:
        problems = _run()
    except KeyboardInterrupt:  # before the demo listens to signals itself
        return INTERRUPTED
    except ModuleNotFoundError as error:
        problems = [f"The package {error.name} is missing: pip install 'gyoza-worker[server]'."]
    if problems is None:
        _say("interrupted; nothing is left behind.")
        return INTERRUPTED
    for problem in problems:
        _say(problem)
    return FAILED if problems else 0


def _say(sentence: str) -> None:
    sys.stderr.write(f"gyoza.demo: {sentence}\n")


def _run() -> list[str] | None:
    """Return what went wrong, in sentences, or None if a signal came first."""
    # Imported here, so that a Ctrl-C or a missing package meanwhile is no traceback.
    import trio
    from rich.console import Console

    from gyoza.client import ApiError, ClientError
    from gyoza.demo.images import ImageBuildError
    from gyoza.server import ServerError
    from gyoza.worker.errors import WorkerError

    problems: list[str] | None = []
    try:
        problems = trio.run(_until_signal, Console(highlight=False))
    except* (ApiError, ClientError, ImageBuildError, ServerError, WorkerError) as group:
        problems += _sentences(group)
    except* SystemExit:  # how rich takes a pipe that nobody reads any more
        problems += ["standard output was closed."]
    return problems


def _sentences(group: BaseExceptionGroup[Exception]) -> list[str]:
    return [
        sentence
        for error in group.exceptions
        for sentence in (
            _sentences(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
        )
    ]


async def _until_signal(console: "Console") -> list[str] | None:
    """Return what went wrong, or None if a signal came first."""
    import trio

    from gyoza.demo.program import demonstrate

    problems = None
    with trio.open_signal_receiver(*SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
            problems = await demonstrate(console)
            nursery.cancel_scope.cancel()
    return problems


async def _cancel_on(signals: AsyncIterator[int], scope: "trio.CancelScope") -> None:
    async for _ in signals:
        scope.cancel()


if __name__ == "__main__":
    sys.exit(main())

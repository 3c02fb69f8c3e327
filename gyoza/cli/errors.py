"""What a person is told when something known goes wrong: one sentence and an exit code.

Errors:
    CliError   raised by the commands themselves
"""

import errno
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, cast


class ExitCode(IntEnum):
    """What a script can tell from `$?`; `gyoza --help` says the same."""

    OK = 0
    FAILED = 1
    USAGE = 2
    SERVER = 3
    MACHINE = 4
    TAKEN = 5
    INTERRUPTED = 130


class CliError(Exception):
    """A sentence for the person who typed the command.

    Attributes:
        code: How the command exits.
    """

    def __init__(self, sentence: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(sentence)
        self.code = code


# By name, since importing the trees would import everything they stand for; the first match along
# an exception's classes decides.
KNOWN: dict[str, ExitCode] = {
    "gyoza.client.errors.ForeignAnswer": ExitCode.SERVER,
    "gyoza.client.errors.CredentialsError": ExitCode.USAGE,
    "gyoza.client.errors.InvalidProxy": ExitCode.USAGE,
    "gyoza.client.errors.InvalidServerUrl": ExitCode.USAGE,
    "gyoza.client.errors.ClientError": ExitCode.SERVER,
    "gyoza.models.ids.InvalidIdError": ExitCode.USAGE,
    "gyoza.worker.errors.SettingsError": ExitCode.USAGE,
    "gyoza.worker.errors.WorkerTaken": ExitCode.TAKEN,
    "gyoza.worker.errors.WorkerError": ExitCode.MACHINE,
    "gyoza.server.errors.SettingsError": ExitCode.USAGE,
    "gyoza.server.errors.ServerError": ExitCode.MACHINE,
}
API_ERROR = "gyoza.client.errors.ApiError"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
SERVER_PACKAGES = {"fastapi", "h11", "pydantic", "sqlalchemy", "starlette"}


def explain(error: BaseException) -> tuple[str, ExitCode] | None:
    """Return the sentence and exit code for an exception, or None if it is a bug.

    A group is known if all of its members are; its first one speaks for it.
    """
    answers = [_explain_one(leaf) for leaf in _leaves(error)]
    return None if None in answers else answers[0]


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[Any]", error).exceptions:
            yield from _leaves(member)
    else:
        yield error


def _explain_one(error: BaseException) -> tuple[str, ExitCode] | None:
    if isinstance(error, CliError):
        return str(error), error.code
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted.", ExitCode.INTERRUPTED
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in SERVER_PACKAGES:
            todo = "run `pip install 'gyoza-worker[server]'`"
            return f"The server needs the package {package}; {todo}.", ExitCode.MACHINE
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"The port is in use ({error}); choose another with --port.", ExitCode.MACHINE
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        where = f"to {error.filename}" if error.filename else "the output"
        return f"gyoza cannot write {where} ({error.strerror}); make room.", ExitCode.MACHINE
    names = [f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__]
    for name in names:
        if name == API_ERROR:
            status: int = cast("Any", error).status
            at_fault = ExitCode.SERVER if status in (401, 403) or status >= 500 else ExitCode.USAGE
            return str(error), at_fault
        if name in KNOWN:
            return str(error), KNOWN[name]
    return None

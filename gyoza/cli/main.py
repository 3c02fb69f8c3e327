"""Assembles the command line and turns known errors into a sentence and an exit code."""

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Any, TextIO, cast

import typer

from gyoza import __version__
from gyoza.cli import definitions, doctor, keys, run, runs, server, up, worker, workers
from gyoza.cli.errors import ExitCode, explain
from gyoza.cli.terminal import plain

EXIT_CODES = """\
Exit codes: **0** done; **1** the run failed or was cancelled, or a check of `doctor` failed; **2**
wrong usage or input, or the key of a worker is refused; **3** the server does not answer, refuses
the key or fails, or the end of a log is missing; **4** this machine lacks something: Docker, a free
port, a package; **5** another process is this worker; **130** interrupted. Commands that follow a
run wait up to 5 minutes for a server that goes away meanwhile; then they exit with 3, and the run
goes on."""

app = typer.Typer(
    name="gyoza",
    help="Run containerised functions on your own machines.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(run.run)
app.add_typer(runs.app, name="runs")
app.add_typer(definitions.app, name="definitions")
app.add_typer(workers.app, name="workers")
app.add_typer(keys.app, name="keys")
app.add_typer(server.app, name="server")
app.add_typer(worker.app, name="worker")
app.command()(doctor.doctor)

# The base of all errors of usage, wherever the version of typer at hand keeps it.
UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gyoza {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", callback=_print_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Run containerised functions on your own machines."""


@app.command()
def version() -> None:
    """Show the version."""
    print(f"gyoza {__version__}")


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: Without the program's name; None takes those of the process.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever has started this process
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a narrow encoding costs a character, no more
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _let_go(stream)
    return code


def _run(arguments: list[str]) -> int:
    try:
        code = app(args=arguments, prog_name="gyoza", standalone_mode=False) or ExitCode.OK
        sys.stdout.flush()
    except UsageError as error:
        return _usage(error)
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:  # a reader like `head` has what it wanted
        return ExitCode.FAILED
    except UnicodeEncodeError as error:
        _say(_not_text(arguments, error))
        return ExitCode.USAGE
    except (Exception, BaseExceptionGroup) as error:
        known = explain(error)
        if known is None:
            raise
        sentence, code = known
        _say(sentence)
    return code


def _say(sentence: str) -> None:
    with suppress(OSError):  # a standard error that takes nothing, either
        print(f"gyoza: {plain(sentence)}", file=sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Lose what a stream cannot take, or Python would complain about it at the very end."""
    try:
        stream.flush()
    except OSError:
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _not_text(arguments: list[str], error: UnicodeEncodeError) -> str:
    """Say which argument holds bytes that are not UTF-8: such text cannot be sent."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            shown = argument.encode(errors="surrogateescape").decode(errors="backslashreplace")
            return f"The argument '{shown}' is not UTF-8 text; write it in UTF-8."
    return f"A setting or an input is not text in UTF-8 ({error.reason}); correct it."


def _usage(error: Any) -> ExitCode:
    message = " ".join(error.format_message().split()).rstrip(".")
    message = message.replace("Input should be", "it must be")
    if message:  # a group called without a command has printed its help instead
        hint = f"; see `{error.ctx.command_path} --help`" if error.ctx else ""
        _say(f"{message}{hint}.")
    return ExitCode.USAGE


if __name__ == "__main__":
    sys.exit(main())

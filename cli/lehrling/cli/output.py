"""What every verb shares: JSON alone on stdout, progress and errors on stderr, exit codes."""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

DONE, FAILED, USAGE, LOSS, INTERRUPTED = 0, 1, 2, 3, 130
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
"""An option of every verb whose outcome a program may read."""
_debug = False


def set_debug(wanted: bool) -> None:
    """Switch tracebacks on or off."""
    global _debug  # noqa: PLW0603
    _debug = wanted


def _print(text: str) -> None:
    """Write to stdout at once; a reader that has seen enough (`| head`) changes neither the verb nor its exit code."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _give_up(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise


def _give_up(stream: TextIO) -> None:
    """Write nowhere from now on, also when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_json(data: object) -> None:
    """Print one JSON document on stdout; numbers that JSON has no word for (NaN, infinities) become null."""
    try:
        text = json.dumps(data, indent=1, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(json.loads(json.dumps(data))), indent=1, allow_nan=False)
    _print(text + "\n")


def _finite(data: Any) -> Any:
    """Return JSON data with None in place of what is no number."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def check_writable(*paths: Path) -> None:
    """Refuse files that cannot be written, before there is something to lose; their folders are made.

    Raises:
        StorageError: naming the first that cannot.
    """
    from lehrling.datasets.files import storage_error

    for path in (path for path in paths if not path.is_fifo()):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            there = path.exists()
            path.open("ab").close()
            if not there:
                path.unlink()
        except OSError as error:
            raise storage_error(error, path) from error


def say(text: str) -> None:
    """Print a line for people on stderr; that nobody can read it any more (`2>&1 | tee`, a lost terminal) changes nothing."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def confirmed(question: str) -> bool:
    """Ask on stderr, so that stdout stays JSON's; whatever is not yes, an end of input too, is no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(table: object) -> None:
    """Print a rich renderable on stdout."""
    from rich.console import Console

    console = Console(soft_wrap=False)
    with console.capture() as captured:
        console.print(table)
    _print(captured.get())


def _fail(error: BaseException, code: int, text: str) -> int:
    if _debug:
        traceback.print_exception(error)
    say(f"lehrling: {text}")
    return code


def _usage(error: Any) -> str:
    """Say what was wrong with a command line; Typer's own exception classes are not public."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lehrling"
    return f"{error.format_message().rstrip('.')}. See `{path} --help`."


def _system(error: OSError) -> str:
    """Say what the operating system refused, and where."""
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror or error}; check the path, its permissions and the space that is left."


def _told(error: Exception) -> int:
    """Tell an error in its own words; return the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        say(str(error))
        return USAGE
    if hasattr(error, "format_message"):
        return _fail(error, USAGE, _usage(error))
    if isinstance(error, OSError):
        return _fail(error, USAGE, _system(error))
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        return _fail(error, code, str(error))
    return _fail(
        error, FAILED, f"{type(error).__name__}: {str(error).rstrip('.')}. This is a bug; run again with --debug."
    )


def guarded(action: Callable[[], object]) -> int:
    """Run a command line and return its exit code; no traceback without --debug."""
    try:
        result = action()
    except typer.Abort as error:
        return _fail(error, INTERRUPTED, "stopped; nothing was changed")
    except typer.Exit as error:
        return error.exit_code
    except KeyboardInterrupt as error:
        return _fail(error, INTERRUPTED, "interrupted; what was finished before stays")
    except BrokenPipeError:
        return DONE
    except Exception as error:  # noqa: BLE001 — the last line of defence against tracebacks
        return _told(error)
    if result == INTERRUPTED:
        say("lehrling: interrupted; what was finished before stays.")
    return result if isinstance(result, int) else DONE


def with_loss(update: Callable[..., None]) -> Callable[[str, int, int, float], None]:
    """Return what training calls with phase, done, total and loss (nan before the first step), as a bar's `update`."""
    return lambda phase, done, total, loss: update(done, total, "" if math.isnan(loss) else f"loss {loss:.4f}", phase)


@contextmanager
def progress(description: str, *, quiet: bool = False) -> Iterator[Callable[..., None]]:
    """Show a progress bar on stderr; yields `update(done, total, note="")`."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(description, total=None, note="")

        def update(done: int, total: int, note: str = "", name: str | None = None) -> None:
            bar.update(task, completed=done, total=total, note=note, description=name or description)

        yield update

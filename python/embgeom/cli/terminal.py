"""What the command prints: all of it passes one filter."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from embgeom._common.tables import visible
from embgeom.errors import EmbgeomWarning, OutputError


def prepare_streams() -> None:
    """Make standard output and error take any text."""
    # A command may be started with either closed.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    # Tokens hold any character; a terminal that lacks one shows its code instead.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(tables: Sequence[Any]) -> None:
    """Print tables."""
    from embgeom._common.tables import as_text, print_blocks

    if not sys.stdout.isatty():
        say(as_text(tables))
        return
    from rich.console import Console

    with standard_output():
        print_blocks(Console(highlight=False), tables)


def say(text: str) -> None:
    """Print a text."""
    # A stream of Python's own, such as io.StringIO, may have no encoding: it takes any character.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with standard_output():
        # Lines are drawn with a character that only Unicode has.
        print(visible(text if encoding.lower().startswith("utf") else text.replace("─", "-")))


def tell(message: object) -> None:
    """Print one line on standard error."""
    _write_error(f"embgeom: {' '.join(str(message).split())}\n")


def tell_traceback() -> None:
    """Print the exception that is being handled, as Python would."""
    _write_error(traceback.format_exc())


@contextmanager
def standard_output() -> Iterator[None]:
    """Tell in one line that standard output takes nothing more, unless its reader has gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Where the reader (head, less) has gone there are still files to write.
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Tell warnings of this package as its errors are told, without the line of code that they arose at."""
    with warnings.catch_warnings():

        def show_warning(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, EmbgeomWarning):
                tell(f"warning: {message}")
            else:
                _write_error(warnings.formatwarning(message, category, filename, lineno, line))

        warnings.simplefilter("always", EmbgeomWarning)
        warnings.showwarning = show_warning
        yield


def _write_error(text: str) -> None:
    # Standard error may be a pipe whose reader has gone.
    with suppress(OSError, ValueError):
        sys.stderr.write(visible(text))
        sys.stderr.flush()

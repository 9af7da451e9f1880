"""What the command prints, all of it through one filter."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console

from embgeom._common.tables import as_text, print_tables, visible, write_error
from embgeom.errors import EmbgeomWarning, OutputError
from embgeom.steering.vector import SteeringVector


def prepare_streams() -> None:
    """Make standard output and error accept any text."""
    # A command may be started with either closed.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    # A terminal that lacks a character of a token shows its code instead.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show(tables: Sequence[Any]) -> None:
    if not sys.stdout.isatty():
        say(as_text(tables))
        return
    with standard_output():
        print_tables(Console(highlight=False), tables)


def say(text: str) -> None:
    # Some streams, such as io.StringIO, have no encoding and accept any character.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    with standard_output():
        # Only Unicode has the character that lines are drawn with.
        print(visible(text if encoding.lower().startswith("utf") else text.replace("─", "-")))


def norms_by_layer(vector: SteeringVector) -> str:
    return "norms by layer: " + ", ".join(f"{layer}: {norm:.3g}" for layer, norm in vector.norms.items())


def tell(message: object) -> None:
    write_error(f"embgeom: {' '.join(str(message).split())}\n")


@contextmanager
def standard_output() -> Iterator[None]:
    """Report in one line that standard output cannot be written, unless its reader has gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # The rest of the buffer would fail again at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # After the reader (head, less) has gone there may still be files to write.
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Print warnings of this package in one line, as its errors, without a line of code."""
    told = set()
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
                # What is true of each vector that is measured need not be said for each.
                if str(message) not in told:
                    tell(f"warning: {message}")
                told.add(str(message))
            else:
                write_error(warnings.formatwarning(message, category, filename, lineno, line))

        warnings.simplefilter("always", EmbgeomWarning)
        warnings.showwarning = show_warning
        yield

"""Ctrl-C, and requests to end, from the first moment of the command on: one line and an exit status."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "hung up"}


class Ended(KeyboardInterrupt):
    """The process was asked to end: whatever tidies up after Ctrl-C tidies up after this."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def status(interrupt: KeyboardInterrupt) -> int:
    """Say that the command was interrupted, and return its exit status."""
    number = interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT
    with suppress(OSError, ValueError):  # Standard error may be closed.
        # Whoever keeps work says where.
        kept = "".join(f"; {text}" for text in interrupt.args if isinstance(text, str))
        print(_line(number) + kept, file=sys.stderr, flush=True)
    return 128 + number


def _watch_start() -> None:
    """Let signals end the command at once while it is still importing, when there is nothing to clean up."""
    program = next(iter(getattr(sys, "argv", [])), "")
    # "-m" stands there while Python looks for the module, so while it imports the package.
    if program.rpartition(os.sep)[2] not in ("-m", "embgeom"):
        return
    try:
        for number in _WORDS:
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                signal.signal(number, _leave)
    except ValueError:
        pass  # Not the main thread: another program runs the command.


@contextmanager
def interrupts() -> Iterator[None]:
    """Turn signals that end the command into exceptions; those that are ignored stay so."""
    before = {}
    try:
        for number in _WORDS:
            handler = signal.getsignal(number)
            if handler in (signal.SIG_DFL, _leave):
                new = signal.default_int_handler if number == signal.SIGINT else _raise
                before[number] = signal.signal(number, new)
    except ValueError:
        pass  # Not the main thread, which alone receives signals.
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, _: FrameType | None) -> NoReturn:
    raise Ended(number)


def _leave(number: int, _: FrameType | None) -> NoReturn:
    with suppress(OSError):
        os.write(2, f"{_line(number)}\n".encode())
    os._exit(128 + number)


def _line(number: int) -> str:
    return f"embgeom: {_WORDS[signal.Signals(number)]}"


_watch_start()

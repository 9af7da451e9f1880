"""What the values of options may be, told before anything is read or computed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any


class Once(argparse.Action):
    """Refuses an option that is given twice, of which the last would count without a word."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        """Keep the value, if it is the first."""
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} is given twice, and only one is taken")
        setattr(namespace, self.dest, values)


def block_map(text: str) -> int | dict[int, int]:
    """Read ``3:5,4:6``, or ``5`` alone."""
    try:
        if ":" not in text:
            return int(text)
        pairs = [(int(old), int(new)) for old, new in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither FROM:TO,..., such as 3:5,4:6, nor one block"
        ) from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} names a block of the vector twice")
    return found


def reading_place(text: str) -> str | int:
    """Read where a text is read: ``last``, ``mean``, ``answer``, or a place from the end."""
    if text in ("last", "mean", "answer"):
        return text
    if re.fullmatch("-[1-9][0-9]*", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of last, mean, answer, and no place such as -2")


def blocks(text: str) -> list[int]:
    """Read ``3,4``."""
    if not re.fullmatch("[0-9]+(,[0-9]+)*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of blocks, such as 3 or 3,4; they are counted from 0"
        )
    return [int(part) for part in text.split(",")]


def alternatives(text: str) -> list[list[int]]:
    """Read ``1,2+3``: block 1, then 2 and 3 together."""
    if not re.fullmatch("[0-9]+([,+][0-9]+)*", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of blocks to try, such as 1,2 or 1,2+3; they are counted from 0"
        )
    return [[int(block) for block in together.split("+")] for together in text.split(",")]


def factors(text: str) -> list[float]:
    """Read ``0.5,1``."""
    return [finite(part) for part in text.split(",")]


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number from `least` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} must be {least} at least")
        return number

    return read


def finite(text: str) -> float:
    """Read a number, but neither NaN nor infinity."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not finite; give a finite number")
    return number


def not_negative(text: str) -> float:
    """Read a number from 0 on."""
    if (number := finite(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} must be 0 at least")
    return number


def positive(text: str) -> float:
    """Read a number above 0."""
    if (number := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number

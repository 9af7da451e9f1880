"""What all commands share: the parser, the values that options take, and options of several commands."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

from embgeom._common.tables import visible
from embgeom.comparison.tokens import CLASSES, WITHOUT
from embgeom.errors import InputError

USAGE_ERROR = 2

Run = Callable[[argparse.Namespace], None]


class Parser(argparse.ArgumentParser):
    """Explains in one line what is wrong with the arguments; options are written out."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments, none of which may hold a NUL character."""
        for argument in args or ():
            if "\0" in argument:
                self.error(f"{argument!r} holds a NUL character, which no argument can")
        found, unknown = super().parse_known_args(args, namespace)
        # A command knows best where its options are explained.
        if unknown and " " in self.prog:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(visible(message), file)


class Once(argparse.Action):
    """Refuses an option that is given twice, of which only the last would count."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option} is given twice, and only one is taken")
        setattr(namespace, self.dest, values)


class Flat(argparse.Action):
    """Takes lists one after the other as one list."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        setattr(namespace, self.dest, [value for each in values for value in each])


def add_command(commands: Any, run: Run, *shared: Parser) -> Parser:
    """Add the command that is named as `run` and explained by its docstring, with its `shared` options."""
    name = run.__name__.replace("_", "-")
    command: Parser = commands.add_parser(name, help=run.__doc__, description=run.__doc__, parents=shared)
    command.set_defaults(run=run)
    return command


def add_common(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("common options")
    group.add_argument("--threads", type=int, metavar="N", help="threads (default: all available cores)")
    group.add_argument("--quiet", action="store_true", help="show no progress and no notes")
    group.add_argument("--debug", action="store_true", help="show where an error arose")


def chosen(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return the options of these names as keywords of a function."""
    return {name: getattr(options, name) for name in names}


def whole(least: int) -> Callable[[str], int]:
    """Return a reader of integers that are at least `least`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{number} must be at least {least}")
        return number

    return read


def finite(text: str) -> float:
    """Read a number, but neither NaN nor infinity."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is not finite; give a finite number")
    return number


def numbers(text: str) -> list[float]:
    """Read ``0.5,1``."""
    return [finite(part) for part in text.split(",")]


def not_negative(text: str) -> float:
    if (number := finite(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} must be at least 0")
    return number


def positive(text: str) -> float:
    if (number := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return number


def row_number(text: str) -> int:
    """Read a row number where a token could stand."""
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{text!r} is not a row number; without --row it is looked up as a token") from None


def layers(text: str) -> list[int]:
    """Read ``3,4``."""
    if not re.fullmatch("[0-9]+(,[0-9]+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of layers counted from 0, such as 3 or 3,4")
    return [int(layer) for layer in text.split(",")]


def layer_map(text: str) -> int | dict[int, int]:
    """Read ``3:5,4:6``, or only ``5``."""
    try:
        if ":" not in text:
            return int(text)
        pairs = [(int(old), int(new)) for old, new in (part.split(":") for part in text.split(","))]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither FROM:TO,..., such as 3:5,4:6, nor one layer"
        ) from None
    if len(found := dict(pairs)) != len(pairs):
        raise argparse.ArgumentTypeError(f"{text!r} names a layer of the vector twice")
    return found


def tokens_options(*, only: bool = True) -> Parser:
    """Return the options on which tokens count, for keywords `without` and, unless told otherwise, `only`."""
    options = Parser(add_help=False)
    add = options.add_argument_group("tokens that count").add_argument
    names = ", ".join(CLASSES)
    explained = f"leave out these classes: {names}; none keeps all (default: {','.join(WITHOUT)})"
    add("--without", type=_token_classes, metavar="LIST", default=WITHOUT, help=explained)
    explained = "count these classes, too; all counts every class (special tokens have no text to match)"
    add("--with", dest="kept", type=_token_classes, metavar="LIST", action=_Keep, help=explained)
    if only:
        explained = "count only words, or the tokens that FILE lists one per line"
        add("--only", metavar="words|FILE", help=explained)
    return options


class _Keep(argparse.Action):
    """Takes classes from those that are left out."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        kept = namespace.kept = CLASSES if "all" in values else values
        namespace.without = tuple(name for name in namespace.without if name not in kept)


def _token_classes(text: str) -> tuple[str, ...]:
    """Read ``untrained,byte``, ``none`` or ``all``."""
    named = tuple(text.split(","))
    if named == ("none",):
        return ()
    for name in named:
        if name not in CLASSES and name != "all":
            raise argparse.ArgumentTypeError(
                f"{name!r} is not a class of tokens: use {', '.join(CLASSES)}, all or none"
            )
    return named


LOCAL_FILES = Parser(add_help=False)
LOCAL_FILES.add_argument("--local-files-only", action="store_true", help="use only the Hugging Face cache")

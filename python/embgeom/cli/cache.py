"""The cache of results: the option of commands that use it, and the command that lists and clears it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from embgeom._common.tables import Table
from embgeom.cli.options import Parser, add_command, not_negative
from embgeom.cli.terminal import say, show, tell
from embgeom.runs.cache import Entry, ResultCache, use_cache

CACHE = Parser(add_help=False)
CACHE.add_argument(
    "--no-cache",
    dest="cache",
    action="store_false",
    help="compute everything, and keep no result for later (default: see embgeom cache --help)",
)


@contextmanager
def caching(options: argparse.Namespace) -> Iterator[None]:
    """Let a command use the cache, unless it has been told otherwise, and say how many results it read."""
    if not getattr(options, "cache", False):
        yield
        return
    with use_cache() as cached:
        yield
    if cached.all_served and not options.quiet:
        tell(f"read from the cache: {_count(len(cached.all_served))}; --no-cache computes them again")


def add_commands(commands: Any) -> None:
    """Add the command of this file."""
    command = add_command(commands, cache)
    command.description = (
        "List the results that compare, inspect, diff, atlas, fit, transfer and runs in a folder have kept, "
        "summed by model (with --model each of them), or clear them. They are "
        "found again by the numbers of the matrix and all parameters. They lie in embgeom-results within the "
        "folder EMBGEOM_CACHE, or Hugging Face's cache of assets, and take at most EMBGEOM_CACHE_GIB "
        "(default: 4), none more than a quarter of that; those unused for longest go first."
    )
    add = command.add_argument
    add("--folder", help="a folder that use_cache was given in Python, instead of that of the commands")
    add("--clear", action="store_true", help="remove what would be listed")
    add("--model", metavar="TEXT", help="only results of models whose names hold TEXT, one by one")
    add("--unused-for", type=not_negative, metavar="DAYS", help="only results unused for so many days")


def cache(options: argparse.Namespace) -> None:
    """List or clear the results that are kept for later."""
    results = ResultCache(options.folder)
    found = results.entries()
    if options.model is not None:
        found = [entry for entry in found if options.model in entry.models]
    if options.unused_for is not None:
        found = [entry for entry in found if time.time() - entry.used >= 86400 * options.unused_for]
    count, size = results.usage()
    if not options.clear:
        if found:
            show([_each(found) if options.model is not None else _by_model(found)])
        say(f"{_count(len(found))}; {results.folder} holds {_size(size)} of at most {_size(results.limit)}")
        return
    if options.model is None and options.unused_for is None:
        results.clear()
    else:
        results.remove(entry.path for entry in found)
    # Damaged files are removed, too, though they are not listed.
    left, bytes_left = results.usage()
    say(f"{_count(count - left)} removed from {results.folder}, {_size(size - bytes_left)}")


def _by_model(found: Sequence[Entry]) -> Table:
    of: dict[str, list[Entry]] = {}
    for entry in found:
        of.setdefault(entry.models, []).append(entry)
    rows = (
        (models, len(kept), _size(sum(each.size for each in kept)), _age(max(each.used for each in kept)))
        for models, kept in of.items()
    )
    return Table(None, ("model", "results", "size", "unused"), rows)


def _each(found: Sequence[Entry]) -> Table:
    rows = ((each.models, each.shape, each.what, _size(each.size), _age(each.used)) for each in found)
    return Table(None, ("model", "matrix", "result", "size", "unused"), rows)


def _count(number: int) -> str:
    return f"{number} result{'' if number == 1 else 's'}"


def _size(size: float) -> str:
    """Return a number of bytes in the unit of the cache's limit, or a smaller one."""
    for unit, length in (("GiB", 2**30), ("MiB", 2**20)):
        if size >= length:
            return f"{size / length:.1f} {unit}"
    return f"{size / 2**10:.1f} KiB"


def _age(used: float) -> str:
    passed = max(0.0, time.time() - used)
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if passed >= 2 * length:
            return f"{passed // length:.0f} {unit}"
    return f"{passed:.0f} s"

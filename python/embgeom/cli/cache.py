"""The cache of results: the option of commands that use it, and the command that lists and clears it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sized
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from embgeom._common.tables import Table
from embgeom.cli.options import Parser, add_command, not_negative
from embgeom.cli.terminal import say, show
from embgeom.runs.cache import ResultCache, use_cache

CACHE = Parser(add_help=False)
CACHE.add_argument(
    "--no-cache",
    dest="cache",
    action="store_false",
    help="compute everything, and keep no result for later (default: see embgeom cache --help)",
)


def caching(options: argparse.Namespace) -> AbstractContextManager[object]:
    """Return the context in which a command uses the cache, if it does and has not been told otherwise."""
    return use_cache() if getattr(options, "cache", False) else nullcontext()


def add_commands(commands: Any) -> None:
    """Add the command of this file."""
    command = add_command(commands, cache)
    command.description = (
        "List the results that compare, inspect and runs in a folder have kept, or clear them. They are "
        "found again by the numbers of the matrix and all parameters. They lie in embgeom-results within the "
        "folder EMBGEOM_CACHE, or Hugging Face's cache of assets, and take at most EMBGEOM_CACHE_GIB "
        "(default: 4), none more than a quarter of that; those unused for longest go first."
    )
    add = command.add_argument
    add("--clear", action="store_true", help="remove what would be listed")
    add("--model", metavar="TEXT", help="only results of models whose names hold TEXT")
    add("--unused-for", type=not_negative, metavar="DAYS", help="only results unused for so many days")


def cache(options: argparse.Namespace) -> None:
    """List or clear the results that are kept for later."""
    results = ResultCache()
    found = results.entries()
    if options.model is not None:
        found = [entry for entry in found if options.model in entry.models]
    if options.unused_for is not None:
        found = [entry for entry in found if time.time() - entry.used >= 86400 * options.unused_for]
    if not options.clear:
        rows = [(each.models, each.shape, each.what, _size(each.size), _age(each.used)) for each in found]
        if rows:
            show([Table(None, ("model", "matrix", "result", "size", "unused"), rows)])
        total, limit = _size(results.size()), _size(results.limit)
        say(f"{_count(found)}; {results.folder} holds {total} of at most {limit}")
        return
    before = results.size()
    if options.model is None and options.unused_for is None:
        results.clear()
    else:
        results.remove(entry.path for entry in found)
    say(f"{_count(found)} removed from {results.folder}, {_size(before - results.size())}")


def _count(found: Sized) -> str:
    return f"{len(found)} result{'' if len(found) == 1 else 's'}"


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

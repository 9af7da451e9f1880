"""The command ``embgeom``: one subcommand for each question."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence

import embgeom
from embgeom._common import signals
from embgeom._common.tables import write_error
from embgeom.cli import cache, compare, demo, evaluate, explore, maps, runs, steer, study, terminal, transfer
from embgeom.cli.options import USAGE_ERROR, Parser, add_common
from embgeom.errors import EmbgeomError

BUG = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0; 1 for a bug; 2 for an error that the user can fix; 130 after Ctrl-C, 143 after SIGTERM.
    """
    with signals.interrupts():
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        except KeyboardInterrupt as interrupt:
            return signals.status(interrupt)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each sets `run` to its function."""
    parser = Parser(prog="embgeom", description="The geometry of language models' token embeddings.")
    parser.add_argument("--version", action="version", version=f"embgeom {embgeom.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for group in (demo, compare, explore, study, runs, maps, transfer, steer, evaluate, cache):
        group.add_commands(commands)
    for command in commands.choices.values():
        add_common(command)
    return parser


def _run(arguments: list[str]) -> int:
    terminal.prepare_streams()
    try:
        options = build_parser().parse_args(arguments or ["--help"])
    except SystemExit:
        # Help that nobody reads to its end (head, less) is not an error.
        with terminal.standard_output():
            raise
    options.progress = not options.quiet
    try:
        with terminal.warnings_in_a_line(), cache.caching(options):
            options.run(options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Libraries in other languages raise what is not an Exception, such as a panic of Rust.
        if options.debug:
            write_error(traceback.format_exc())
        if isinstance(error, EmbgeomError | MemoryError):
            if not options.debug:
                terminal.tell(getattr(error, "command", str(error)) or "out of memory")
            return USAGE_ERROR
        if not options.debug:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            terminal.tell(f"this is a bug in embgeom ({what}); please report it with what --debug prints")
        return BUG
    return 0

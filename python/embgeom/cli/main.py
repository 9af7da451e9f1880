"""The command ``embgeom``: one subcommand for each question."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from embgeom._common import signals as _signals

if TYPE_CHECKING:
    import argparse

    from embgeom.embeddings.embeddings import Embeddings

BUG = 1
USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    0; 1 for a bug; 2 for what the user can mend; 130 after Ctrl-C, 143 after SIGTERM.
    """
    with _signals.interrupts():
        try:
            return _run(sys.argv[1:] if arguments is None else list(arguments))
        except KeyboardInterrupt as interrupt:
            return _signals.status(interrupt)


def _run(arguments: list[str]) -> int:
    # Imported here, where Ctrl-C is looked after: this takes most of a second.
    from embgeom.cli import terminal
    from embgeom.cli.options import build_parser
    from embgeom.errors import EmbgeomError

    terminal.prepare_streams()
    try:
        options = build_parser(_commands()).parse_args(arguments)
    except SystemExit:
        # Help that nobody reads to its end (head, less) is no error.
        with terminal.standard_output():
            raise
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        with terminal.warnings_in_a_line():
            run(options)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # Libraries in other languages raise what is no Exception, such as a panic of Rust.
        if options.debug:
            terminal.tell_traceback()
        if isinstance(error, EmbgeomError | MemoryError):
            if not options.debug:
                terminal.tell(error if str(error) else "out of memory")
            return USAGE_ERROR
        if not options.debug:
            what = f"{type(error).__name__}: {str(error)[:200]}"
            terminal.tell(f"this is a bug in embgeom ({what}); please report it with what --debug prints")
        return BUG
    return 0


def _commands() -> dict[str, Callable[[argparse.Namespace], None]]:
    from embgeom.cli import evaluation_commands as evaluation
    from embgeom.cli import steering_commands as steering
    from embgeom.cli.terminal import say, show

    return {
        "demo": _demo,
        "compare": _compare,
        "inspect": _inspect,
        "neighbors": _neighbors,
        "fit": lambda options: steering.fit(options, _load, show, _wants_progress(options)),
        "train-vector": lambda options: steering.train_vector(options, say, _wants_progress(options)),
        "transfer": lambda options: steering.transfer(options, say),
        "steer": lambda options: steering.steer(options, show, _wants_progress(options)),
        "evaluate": lambda options: evaluation.evaluate(options, show, _wants_progress(options)),
        "sweep": lambda options: evaluation.sweep(options, show, _wants_progress(options)),
    }


def _demo(options: argparse.Namespace) -> None:
    from embgeom.cli.demo import demonstrate
    from embgeom.cli.terminal import show

    show(demonstrate(threads=options.threads, progress=_wants_progress(options)))


def _compare(options: argparse.Namespace) -> None:
    from embgeom.cli.terminal import show
    from embgeom.comparison.compare import compare
    from embgeom.comparison.report import comparison_tables, write_html

    _check_output(options, html=options.html)
    comparison = compare(
        _load(options, "_a"),
        _load(options, "_b"),
        k=options.k,
        reg=options.reg,
        seed=options.seed,
        **_dimension_options(options),
        **_search_options(options),
    )
    show(comparison_tables(comparison))
    if options.html is not None:
        write_html(comparison, options.html)
    if options.output is not None:
        comparison.save(options.output, table_format=options.table_format, overwrite=options.overwrite)


def _inspect(options: argparse.Namespace) -> None:
    from embgeom.cli.terminal import show
    from embgeom.comparison.inspect import inspect
    from embgeom.comparison.report import inspection_tables

    _check_output(options)
    inspection = inspect(
        _load(options),
        seed=options.seed,
        **_dimension_options(options),
        **_search_options(options),
    )
    show(inspection_tables(inspection))
    if options.output is not None:
        inspection.save(options.output, table_format=options.table_format, overwrite=options.overwrite)


def _neighbors(options: argparse.Namespace) -> None:
    from embgeom.cli.terminal import say, show
    from embgeom.comparison.inspect import inspect_token
    from embgeom.comparison.report import neighborhood_tables

    tokens = [_row_number(token) for token in options.token] if options.row else options.token
    model = _load(options)
    # A token that is not there is told before anything is shown of the others.
    for place, token in enumerate([model.row_of(token) for token in tokens]):
        if place > 0:
            say("")
        neighborhood = inspect_token(
            model,
            token,
            k=options.k,
            reg=options.reg,
            dimension_k=options.dimension_k,
            variance=options.variance,
            **_search_options(options),
        )
        show(neighborhood_tables(neighborhood))


def _check_output(options: argparse.Namespace, html: str | None = None) -> None:
    """Refuse before the work starts what could not be written after it."""
    from embgeom._common.writing import check_file_writable, check_kept, check_writable
    from embgeom.cli.options import model_inputs
    from embgeom.comparison.results import check_table_format

    if html is not None:
        check_file_writable(html)
    if options.output is not None:
        check_table_format(options.table_format)
        check_writable(options.output, overwrite=options.overwrite)
    check_kept({"-o": options.output, "--html": html}, model_inputs(options))


def _row_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        from embgeom.errors import InputError

        raise InputError(f"{text!r} is no row number; without --row it is looked for as a token") from None


def _load(options: argparse.Namespace, suffix: str = "") -> Embeddings:
    """Load the model whose options end in `suffix`."""
    from embgeom.loading import load

    return load(
        getattr(options, f"model{suffix}"),
        getattr(options, f"which{suffix}"),
        tensor=getattr(options, f"tensor{suffix}"),
        vocabulary=getattr(options, f"vocabulary{suffix}"),
        adapter=getattr(options, f"adapter{suffix}"),
        subfolder=getattr(options, f"subfolder{suffix}"),
        token_format=getattr(options, f"token_format{suffix}"),
        revision=getattr(options, f"revision{suffix}"),
        local_files_only=options.local_files_only,
        threads=options.threads,
        progress=_wants_progress(options),
    )


def _dimension_options(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "dimension_k": options.dimension_k,
        "dimension_sample": options.dimension_sample,
        "variance": options.variance,
    }


def _search_options(options: argparse.Namespace) -> dict[str, Any]:
    return {"metric": options.metric, "threads": options.threads, "progress": _wants_progress(options)}


def _wants_progress(options: argparse.Namespace) -> bool:
    # A command may be started with standard error closed.
    return bool(sys.stderr and sys.stderr.isatty() and not options.quiet)

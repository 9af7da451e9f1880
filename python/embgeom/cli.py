"""The command ``embgeom``: one subcommand for each question."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embgeom import _evaluation_commands as evaluation
from embgeom import _steering_commands as steering
from embgeom._options import USAGE_ERROR, build_parser
from embgeom.errors import EmbgeomError, EmbgeomWarning, InputError, OutputError

if TYPE_CHECKING:
    from embgeom.embeddings import Embeddings

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0; 2 for what the user can mend; 130 after Ctrl-C."""
    # A command may be started with standard output closed.
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    # Tokens hold any character; a terminal that lacks one shows its code instead.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser(
        {
            "demo": _demo,
            "compare": _compare,
            "inspect": _inspect,
            "neighbors": _neighbors,
            "fit": lambda options: steering.fit(options, _load, _show, _wants_progress(options)),
            "train-vector": lambda options: steering.train_vector(options, _say, _wants_progress(options)),
            "transfer": lambda options: steering.transfer(options, _say),
            "steer": lambda options: steering.steer(options, _show, _wants_progress(options)),
            "evaluate": lambda options: evaluation.evaluate(options, _show, _wants_progress(options)),
            "sweep": lambda options: evaluation.sweep(options, _show, _wants_progress(options)),
        }
    )
    options = parser.parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], None] = options.run
        with _warnings_in_a_line():
            run(options)
    except KeyboardInterrupt:
        print("embgeom: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (EmbgeomError, MemoryError) as error:
        if options.debug:
            raise
        message = " ".join(str(error).split()) or "out of memory"
        print(f"embgeom: {message}", file=sys.stderr)
        return USAGE_ERROR
    return 0


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Tell warnings of this package as its errors are told, without the line of code that they arose at."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, EmbgeomWarning):
                print(f"embgeom: warning: {message}", file=sys.stderr)
            else:
                others(message, category, *where, **more)

        warnings.simplefilter("always", EmbgeomWarning)
        warnings.showwarning = tell
        yield


def _demo(options: argparse.Namespace) -> None:
    from embgeom.demo import demonstrate

    _show(demonstrate(threads=options.threads, progress=_wants_progress(options)))


def _compare(options: argparse.Namespace) -> None:
    from embgeom.compare import compare
    from embgeom.report import comparison_tables, write_html

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
    _show(comparison_tables(comparison))
    if options.html is not None:
        write_html(comparison_tables(comparison), options.html)
    if options.output is not None:
        comparison.save(options.output, table_format=options.table_format, overwrite=options.overwrite)


def _inspect(options: argparse.Namespace) -> None:
    from embgeom.inspection import inspect_model
    from embgeom.report import inspection_tables

    _check_output(options)
    inspection = inspect_model(
        _load(options),
        seed=options.seed,
        **_dimension_options(options),
        **_search_options(options),
    )
    _show(inspection_tables(inspection))
    if options.output is not None:
        inspection.save(options.output, table_format=options.table_format, overwrite=options.overwrite)


def _neighbors(options: argparse.Namespace) -> None:
    from embgeom.inspection import inspect_token
    from embgeom.report import neighborhood_tables

    tokens = [_row_number(token) for token in options.token] if options.row else options.token
    model = _load(options)
    # A token that is not there is told before anything is shown of the others.
    for place, token in enumerate([model.index(token) for token in tokens]):
        if place > 0:
            print()
        neighborhood = inspect_token(
            model,
            token,
            k=options.k,
            reg=options.reg,
            dimension_k=options.dimension_k,
            variance=options.variance,
            **_search_options(options),
        )
        _show(neighborhood_tables(neighborhood))


def _check_output(options: argparse.Namespace, html: str | None = None) -> None:
    """Refuse before the work starts what could not be written after it."""
    from embgeom._writing import check_file_writable, check_writable
    from embgeom.results import check_table_format

    if html is not None:
        check_file_writable(html)
    if options.output is not None:
        check_table_format(options.table_format)
        check_writable(options.output, overwrite=options.overwrite)


def _row_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{text!r} is no row number; without --row it is looked for as a token") from None


def _show(tables: Sequence[Any]) -> None:
    from embgeom.report import as_text

    if not sys.stdout.isatty():
        _say(as_text(tables))
        return
    from rich.console import Console

    with _standard_output():
        Console(highlight=False).print(*tables, sep="\n")


def _say(text: str) -> None:
    with _standard_output():
        # Lines are drawn with a character that only Unicode has.
        print(text if sys.stdout.encoding.lower().startswith("utf") else text.replace("─", "-"))


@contextmanager
def _standard_output() -> Iterator[None]:
    """Tell in one line that standard output takes nothing more, unless its reader has gone."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Where the reader (head, less) has gone there are still files to write.
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def _load(options: argparse.Namespace, suffix: str = "") -> Embeddings:
    """Load the model whose options end in `suffix`."""
    from embgeom.loading import load

    return load(
        getattr(options, f"model{suffix}"),
        getattr(options, f"which{suffix}"),
        tensor=getattr(options, f"tensor{suffix}"),
        tokens=getattr(options, f"tokens{suffix}"),
        spelling=getattr(options, f"spelling{suffix}"),
        subfolder=getattr(options, f"subfolder{suffix}"),
        revision=getattr(options, f"revision{suffix}"),
        local_files_only=options.offline,
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

"""The command ``embgeom``: one subcommand for each question."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args

from embgeom.errors import EmbgeomError, InputError, OutputError
from embgeom.knn import Metric

USAGE_ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0; 2 for what the user can mend; 130 after Ctrl-C."""
    # Tokens hold any character; a terminal that lacks one shows its code instead.
    # A command may be started with standard output closed.
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], None] = options.run
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


def _compare(options: argparse.Namespace) -> None:
    from embgeom.compare import compare
    from embgeom.report import comparison_tables, write_html

    _check_output(options, html=options.html)
    comparison = compare(
        _load(options, options.a, options.tensor_a),
        _load(options, options.b, options.tensor_b),
        k=options.k,
        reg=options.reg,
        seed=options.seed,
        **_dimension_options(options),
        **_common_options(options),
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
        _load(options, options.model, options.tensor),
        seed=options.seed,
        **_dimension_options(options),
        **_common_options(options),
    )
    _show(inspection_tables(inspection))
    if options.output is not None:
        inspection.save(options.output, table_format=options.table_format, overwrite=options.overwrite)


def _neighbors(options: argparse.Namespace) -> None:
    from embgeom.inspection import inspect_token
    from embgeom.report import neighborhood_tables

    tokens = [_row_number(token) for token in options.token] if options.row else options.token
    model = _load(options, options.model, options.tensor)
    for token in tokens:
        neighborhood = inspect_token(
            model,
            token,
            k=options.k,
            reg=options.reg,
            dimension_k=options.dimension_k,
            variance=options.variance,
            **_common_options(options),
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

    try:
        if sys.stdout.isatty():
            from rich.console import Console

            Console(highlight=False).print(*tables, sep="\n")
        else:
            text = as_text(tables)
            # Lines are drawn with a character that only Unicode has.
            print(text if sys.stdout.encoding.lower().startswith("utf") else text.replace("─", "-"))
        sys.stdout.flush()
    except OSError as error:
        # What is left in the buffer would fail once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # Where the reader (head, less) has gone there are still files to write.
        if not isinstance(error, BrokenPipeError):
            raise OutputError(f"cannot write to standard output: {error.strerror}") from error


def _load(options: argparse.Namespace, model: str, tensor: str | None) -> Any:
    from embgeom.loading import load

    return load(
        model,
        options.which,
        tensor=tensor,
        tokens=options.tokens,
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


def _common_options(options: argparse.Namespace) -> dict[str, Any]:
    return {"metric": options.metric, "threads": options.threads, "progress": _wants_progress(options)}


def _wants_progress(options: argparse.Namespace) -> bool:
    return bool(sys.stderr.isatty() and not options.quiet)


def _parser() -> argparse.ArgumentParser:
    from embgeom import __version__

    parser = _Parser(prog="embgeom", description="The geometry of language models' token embeddings.")
    parser.add_argument("--version", action="version", version=f"embgeom {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_compare(commands)
    _add_inspect(commands)
    _add_neighbors(commands)
    return parser


def _add_compare(commands: Any) -> None:
    command = _add_command(commands, "compare", _compare, "What do the token embeddings of two models share?")
    command.add_argument(
        "a", metavar="A", help="a model: a folder, a Hugging Face id, or a .npy or .npz file"
    )
    command.add_argument("b", metavar="B", help="the other model")
    command.add_argument(
        "--tensor-a", metavar="NAME", help="the tensor to use of A, where it cannot be told by itself"
    )
    command.add_argument("--tensor-b", metavar="NAME", help="the same of B")
    command.add_argument(
        "-k", type=int, default=10, help="neighbors for overlap and LLE weights (default: 10)"
    )
    _add_reg(command)
    _add_dimension(command)
    _add_sampling(command)
    command.add_argument("--html", metavar="FILE", help="write the tables as HTML, too")
    _add_output(command)


def _add_inspect(commands: Any) -> None:
    command = _add_command(commands, "inspect", _inspect, "What are one model's rows like?")
    _add_model(command)
    _add_dimension(command)
    _add_sampling(command)
    _add_output(command)


def _add_neighbors(commands: Any) -> None:
    command = _add_command(commands, "neighbors", _neighbors, "What surrounds a token?")
    _add_model(command)
    command.add_argument(
        "token",
        metavar="TOKEN",
        nargs="+",
        help="a token as text ('dog', ' dog') or as the vocabulary has it",
    )
    command.add_argument("--row", action="store_true", help="TOKEN is a row number")
    command.add_argument(
        "-k", type=int, default=10, help="neighbors to show and to reconstruct from (default: 10)"
    )
    _add_reg(command)
    _add_dimension(command)


def _add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], help_: str) -> Any:
    command = commands.add_parser(name, help=help_, description=help_)
    command.set_defaults(run=run)
    common = command.add_argument_group("common options")
    common.add_argument(
        "--which",
        choices=("input", "output"),
        default="input",
        help="embeddings or unembeddings (default: input)",
    )
    common.add_argument("--tokens", metavar="FILE", help="token list of a model that is a .npy file")
    common.add_argument(
        "--metric", choices=get_args(Metric), default="cosine", help="what near means (default: cosine)"
    )
    common.add_argument("--threads", type=int, metavar="N", help="threads (default: all cores available)")
    common.add_argument(
        "--offline", action="store_true", help="use only what the local Hugging Face cache holds"
    )
    common.add_argument("--quiet", action="store_true", help="show no progress")
    common.add_argument("--debug", action="store_true", help="show where an error arose")
    return command


def _add_model(command: Any) -> None:
    command.add_argument("model", metavar="MODEL", help="a folder, a Hugging Face id, or a .npy or .npz file")
    command.add_argument(
        "--tensor", metavar="NAME", help="the tensor to use, where it cannot be told by itself"
    )


def _add_reg(command: Any) -> None:
    command.add_argument(
        "--reg", type=float, default=1e-3, help="regularisation of LLE weights (default: 1e-3)"
    )


def _add_dimension(command: Any) -> None:
    command.add_argument(
        "--dimension-k",
        type=int,
        metavar="K",
        help="neighbors for the intrinsic dimension (default: 1200, or a tenth of the rows)",
    )
    command.add_argument(
        "--variance", type=float, default=0.95, help="share of variance to explain (default: 0.95)"
    )


def _add_sampling(command: Any) -> None:
    command.add_argument(
        "--dimension-sample",
        type=int,
        metavar="M",
        default=500,
        help="tokens whose dimension is measured (default: 500)",
    )
    command.add_argument("--seed", type=int, default=0, help="seed of samples and null models (default: 0)")


def _add_output(command: Any) -> None:
    command.add_argument(
        "-o", "--output", metavar="FOLDER", help="write arrays, tables and provenance into a new folder"
    )
    command.add_argument(
        "--table-format", choices=("csv", "parquet"), default="csv", help="format of tables (default: csv)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace earlier results in FOLDER")

"""Tables for the terminal, for text, and in files."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

TEXT_WIDTH = 110
TableFormat = Literal["csv", "parquet"]
TABLE_FORMATS = get_args(TableFormat)
# Control characters except tab and newline, other line separators, marks that change the text direction, and
# lone surrogates, which stand in names of files that are not UTF-8 and cannot be encoded.
_ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Tokens in quotes as they are shown, and names with marks inside: a line break in them would read as a space.
_WHOLE = re.compile(
    r"""(?<!\w)b?(?:'(?:[^'\\\n]|\\.){0,40}'|"(?:[^"\\\n]|\\.){0,40}")(?!\w)"""
    r"|(?<!\S)(?=[^\W\d]\S*[-/:_]\S)\S{3,32}(?!\S)"
)
# What stands for a space within quotes while lines are broken; no token that is shown holds it.
_HELD = "\ue000"
_NUMBER = re.compile(r"(?!\d+: )(x |<)?[-+]?([0-9]|inf|nan).*|undefined|")


@dataclass
class Table:
    """A table of text and numbers; a column of numbers is flush right, and a float has four decimals."""

    title: str | None
    columns: Sequence[str]
    rows: Iterable[Sequence[str | float]]

    def __post_init__(self) -> None:
        self.rows = list(self.rows)

    def cells(self) -> list[list[str]]:
        return [[_cell(value) for value in row] for row in self.rows]

    def numeric(self) -> list[bool]:
        """Return for each column whether all of its cells are numbers."""
        columns = list(zip(*self.cells(), strict=True)) or [()] * len(self.columns)
        return [bool(column) and all(map(_NUMBER.fullmatch, column)) for column in columns]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        heads = [_unbroken(name) for name in self.columns]
        rows = [[_unbroken(cell) for cell in cells] for cells in self.cells()]
        # Of its width, a table of rich spends two columns at the edges and three between columns.
        widths = _widths(heads, rows, options.max_width - 3 * len(heads) + 1)
        for head, is_numeric, width in zip(heads, self.numeric(), widths, strict=True):
            table.add_column(head, justify="right" if is_numeric else "left", width=width)
        for row in rows:
            table.add_row(*row)
        # rich would wrap a title of the table to the width of the table.
        for part in (_unbroken(self.title, style="bold"), table) if self.title else (table,):
            yield from _released(console, part, options)


Block = Table | str
"""A part of a summary: a table, or a line of text."""


def number(value: float, decimals: int = 4) -> str:
    # Adding 0 turns the -0 of a rounded negative number into 0.
    return "undefined" if np.isnan(value) else f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def plus_minus(value: float, half_width: float, most_decimals: int = 6) -> str:
    """Return a value and half of its interval, to two significant digits of it: ``"0.3870 ± 0.0031"``."""
    if not math.isfinite(value):
        return "undefined"
    if not math.isfinite(half_width):
        return f"{value:.2f} (no interval)"
    if half_width == 0.0:
        return f"{value:.4f}"
    decimals = max(1 - math.floor(math.log10(float(f"{half_width:.1e}"))), 0)
    if decimals > most_decimals:
        # By default as many as float32 has.
        value_text, least = number(value, most_decimals), 10.0**-most_decimals
        width = f"{half_width:.{most_decimals}f}" if half_width >= least else f"<{least:.{most_decimals}f}"
        return f"{value_text} ± {width}"
    return f"{value:.{decimals}f} ± {half_width:.{decimals}f}"


def visible(text: str) -> str:
    """Return a text with control characters escaped: names in files may hold commands to a terminal."""
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text)


def write_error(text: str) -> None:
    """Write to standard error, which may be closed, or a pipe whose reader has gone."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(visible(text))
        sys.stderr.flush()
    except BrokenPipeError:
        # The rest of the buffer would fail again at exit, and change the exit status.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    except (OSError, ValueError):
        pass


def as_text(blocks: Iterable[Any]) -> str:
    """Render blocks, or anything else that rich can print, as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=TEXT_WIDTH, color_system=None, force_jupyter=False)
    with console.capture() as capture:
        print_tables(console, blocks)
    # Not splitlines(), which would split at characters that are to be seen.
    return "\n".join(line.rstrip() for line in visible(capture.get()).split("\n")).strip("\n")


def print_tables(console: Console, blocks: Iterable[Any]) -> None:
    from rich.text import Text

    for block in blocks:
        if isinstance(block, str):
            # A long path stays in one piece, so that it can be copied.
            is_long = any(len(word) > console.width for word in block.split())
            console.print(Text(visible(block)) if is_long else _Line(block), soft_wrap=is_long)
        else:
            console.print(block)


@dataclass
class _Line:
    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _released(console, _unbroken(self.text), options)


def whole_pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces, and whether each is a token or a name in which no line breaks."""
    end = 0
    for found in _WHOLE.finditer(text):
        if end < found.start():
            yield text[end : found.start()], False
        yield found[0], True
        end = found.end()
    if end < len(text):
        yield text[end:], False


def _unbroken(text: str, style: str = "") -> Text:
    """Return text for rich, in which the spaces of a token do not break a line."""
    from rich.text import Text

    held = "".join(part.replace(" ", _HELD) if whole else part for part, whole in whole_pieces(visible(text)))
    # As Text, brackets in tokens and names are not read as markup.
    return Text(held, style=style, overflow="fold")


def _released(console: Console, part: Any, options: ConsoleOptions) -> RenderResult:
    for segment in console.render(part, options):
        yield segment._replace(text=segment.text.replace(_HELD, " "))


def _widths(heads: Sequence[Text], rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Return the widths of columns: as wide as their text, or else at least as their longest words."""
    from rich.cells import cell_len

    def longest(text: Text, words: bool) -> int:
        return max(map(cell_len, text.plain.split() if words else text.plain.split("\n")), default=0)

    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in heads]
    wanted = [
        max(longest(each, False) for each in (head, *c)) for head, c in zip(heads, columns, strict=True)
    ]
    if sum(wanted) <= room:
        return wanted
    least = [max(longest(each, True) for each in (head, *c)) for head, c in zip(heads, columns, strict=True)]
    if (spare := room - sum(least)) >= 0:
        more = [wide - narrow for wide, narrow in zip(wanted, least, strict=True)]
        return [narrow + spare * each // sum(more) for narrow, each in zip(least, more, strict=True)]
    # Words of heads are broken before words of cells, and long words before short ones.
    floor = [max((longest(each, True) for each in column), default=1) for column in columns]
    floor = floor if sum(floor) <= room else [1] * len(heads)
    for cap in range(max(least), 0, -1):
        found = [max(low, min(each, cap)) for low, each in zip(floor, least, strict=True)]
        if sum(found) <= room:
            break
    return found


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return number(value) if isinstance(value, float | np.floating) else str(value)


def distribution(quantities: Mapping[str, npt.NDArray[Any]], title: str | None = None) -> Table:
    """Return a table of the quantiles of some quantities; undefined numbers are left out."""
    columns = ("", "lowest", "10%", "median", "90%", "highest")
    rows = []
    for name, values in quantities.items():
        defined = values[~np.isnan(values)]
        cells = np.quantile(defined, (0.0, 0.1, 0.5, 0.9, 1.0)).tolist() if defined.size else [np.nan] * 5
        rows.append([name, *("undefined" if np.isnan(cell) else f"{cell:.4g}" for cell in cells)])
    return Table(title, columns, rows)


def check_table_format(table_format: str) -> None:
    if table_format not in TABLE_FORMATS:
        raise InputError(f"table_format = {table_format!r} is unknown: use one of {', '.join(TABLE_FORMATS)}")
    if table_format == "parquet":
        need("pyarrow", "a parquet table", extra="parquet", or_else=", or use csv")


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table in the format that the suffix names."""
    if path.suffix == ".csv":
        write_csv(path, columns)
        return
    import pyarrow.parquet

    encodable = {
        name: [_encodable(value) for value in values] if isinstance(values, list) else values
        for name, values in columns.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(encodable), path)


def _encodable(value: Any) -> Any:
    # No UTF-8 can hold a lone surrogate, so it is written as its code, as in a csv.
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Write a table as .csv."""
    # Tokens may hold any character: lines end as in RFC 4180, and the writer quotes where it must.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))

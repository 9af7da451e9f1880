"""Tables of pairs of texts: CSV as it is written by hand, by spreadsheets and by programs."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embgeom.errors import LoadError

_KEYS = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
_COLUMNS = ({"positive", "negative"}, set(_KEYS))
_DELIMITERS = (",", ";", "\t", "|")
# The most that the C type of the limit holds on every platform.
_NO_LIMIT = 2**31 - 1
_one_at_a_time = threading.Lock()

Row = tuple[int, list[str]]


def read_table(text: str, name: str, delimiter: str | None) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of a table as dicts by column, each with the line on which it begins.

    Parameters
    ----------
    text : str
        The file's content.
    name : str
        The file, for messages.
    delimiter : str, optional
        What divides columns; by default what makes known columns of the first line.

    Returns
    -------
    list of (str, dict of str to str)
        Columns are named in lower case, without spaces around.

    Raises
    ------
    LoadError
        If the columns of pairs are not there, a row has more or fewer fields than the header, or quotes do
        not fit.
    """
    # Spreadsheets may say on a line before the header what divides the columns.
    said = re.match(r"sep=(.)\r?\n", text)
    if said is not None:
        text, delimiter = "\n" + text[said.end() :], said[1]
    with _long_fields():
        delimiter = delimiter or _found_delimiter(text)
        rows = list(_rows(text, name, delimiter, spaced=False))
        if rows and all(field[:1] == " " for field in rows[0][1][1:]):
            # Whoever writes a space behind each comma of the header does so in the rows, too.
            rows = list(_rows(text, name, delimiter, spaced=True))
    if not rows:
        return []
    line, header = rows.pop(0)
    columns = [column.strip().lower() for column in header]
    if not any(known <= set(columns) for known in _COLUMNS):
        raise LoadError(
            f"{name}, line {line} names the columns {', '.join(map(repr, header))!s:.80}: positive and "
            f"negative are needed, or {', '.join(_KEYS)}, divided by , ; | or a tab"
        )
    if double := [column for column in columns if column and columns.count(column) > 1]:
        raise LoadError(f"{name}, line {line} names the column {double[0]!r} twice")
    for line, row in rows:
        if len(row) != len(columns):
            raise LoadError(
                f"{name}, line {line} has {len(row)} fields, the header {len(columns)}: put texts that hold "
                f"{delimiter!r} into quotes"
            )
        if odd := [field for field in row if re.match(r' +".*"\s*$', field, re.DOTALL)]:
            raise LoadError(
                f"{name}, line {line}: a space stands before the quotes of {odd[0]!r:.60}; remove it"
            )
    return [(f"line {line}", dict(zip(columns, row, strict=True))) for line, row in rows]


def _rows(text: str, name: str, delimiter: str, *, spaced: bool) -> Iterator[Row]:
    """Give the rows that are not empty, each with the line on which it begins."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=spaced, strict=True
    )
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise LoadError(
                f"{name}, line {line}: {error}; put a text that holds quotes into quotes, with each of its "
                "own written twice"
            ) from error
        if row:
            yield line, row


def _found_delimiter(text: str) -> str:
    """Return the delimiter that makes known columns of the header; a comma if none does."""
    header = next((line for line in re.split(r"[\r\n]", text) if line), "")
    for delimiter in _DELIMITERS:
        columns = {part.strip(' "').lower() for part in header.split(delimiter)}
        if any(known <= columns for known in _COLUMNS):
            return delimiter
    return ","


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the limit on the length of a field, which holds for all of Python, meanwhile."""
    with _one_at_a_time:
        before = csv.field_size_limit(_NO_LIMIT)
        try:
            yield
        finally:
            csv.field_size_limit(before)

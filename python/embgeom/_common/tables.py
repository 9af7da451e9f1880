"""Tables for the terminal, for text and for HTML."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.console import RenderableType

TEXT_WIDTH = 110
# Control characters but tab and newline; what separates lines elsewhere; what turns the direction of writing.
_ACTS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Return a text with control characters as escapes: names in files may hold commands to a terminal."""
    return _ACTS.sub(lambda found: repr(found[0])[1:-1], text)


def as_text(tables: Iterable[RenderableType]) -> str:
    """Render tables as plain text."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=TEXT_WIDTH, color_system=None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    # Not splitlines(), which would split at characters that are to be seen.
    return "\n".join(line.rstrip() for line in visible(capture.get()).split("\n")).strip("\n")


def titled_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> RenderableType:
    """Lay out a table under its title; a column whose name begins with ">" is flush right."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(visible(column.removeprefix(">"))), justify="right" if column[:1] == ">" else "left"
        )
    for row in rows:
        # As Text, brackets in tokens and names stay what they are instead of being read as markup.
        table.add_row(*(Text(visible(cell), overflow="fold") for cell in row))
    # A table's own title would be broken to the width of the table.
    return Group(Text(visible(title), style="bold"), table) if title else table


def number(value: float) -> str:
    """Return a measure as it stands in tables."""
    return "undefined" if np.isnan(value) else f"{value:.4f}"

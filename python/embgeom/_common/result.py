"""Results that can be shown, drawn and saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embgeom._common.record import plain, write_json
from embgeom._common.writing import write_file

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, eq=False, repr=False)
class SavedResult(ABC):
    """A result with tables, a figure, and a JSON file that holds all of it.

    A subclass says what is in them by `table`, `content` and `figure`.
    """

    @abstractmethod
    def table(self) -> list[RenderableType]:
        """Return tables for rich."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return all of it in plain types and arrays."""

    @abstractmethod
    def figure(self, path: str | PathLike[str]) -> None:
        """Draw it as an .svg, .png or .pdf file.

        Raises
        ------
        OutputError
            If the file cannot be written, or has another suffix; then nothing is left at `path`.
        InputError
            If matplotlib is not installed.
        """

    def summary(self) -> str:
        """Return `table` as plain text."""
        from embgeom._common.tables import as_text

        return as_text(self.table())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, with provenance, ready for JSON; a number that is undefined is None."""
        return cast(dict[str, Any], plain(self.content()))

    def save(self, path: str | PathLike[str]) -> None:
        """Write `as_dict` as a JSON file.

        Raises
        ------
        OutputError
            If the file cannot be written; then nothing is left at `path`.
        """
        content = self.as_dict()

        def write(partial: Path) -> None:
            write_json(partial, content)

        write_file(path, write)

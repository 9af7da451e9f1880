"""Results of evaluations as text and as files."""

from __future__ import annotations

import hashlib
import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from embgeom._writing import write_file
from embgeom.results import _plain, _write_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from embgeom.steering import SteeringVector


@dataclass(frozen=True, eq=False, repr=False)
class SavedResult(ABC):
    """A result that can be shown and saved."""

    @abstractmethod
    def table(self) -> list[RenderableType]:
        """Return tables for rich."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return all of it in plain types."""

    def summary(self) -> str:
        """Return `table` as plain text."""
        from embgeom.report import as_text

        return as_text(self.table())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, with provenance, ready for JSON; a number that is undefined is None."""
        return cast(dict[str, Any], _plain(self.content()))

    def save(self, path: str | PathLike[str]) -> None:
        """Write `as_dict` as a JSON file.

        Raises
        ------
        OutputError
            If the file cannot be written; then nothing is left at `path`.
        """
        content = self.as_dict()

        def write(partial: Path) -> None:
            _write_json(partial, content)

        write_file(path, write)


def describe_vector(vector: SteeringVector) -> dict[str, Any]:
    """Return what is on record about a vector."""
    return {"model": vector.model, "norms": vector.norms, "provenance": dict(vector.provenance)}


def digest(samples: Iterable[Any]) -> str:
    """Return the SHA-256, in hexadecimal, of what tells whether two runs had the same samples."""
    text = json.dumps(list(samples), default=str, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def describe_run(
    model: Any, vectors: Mapping[str, Any], score: Any, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the provenance of a result."""
    from embgeom.steering.training import of_model
    from embgeom.steering.versions import versions

    return {
        "model": of_model(model),
        **vectors,
        "score": score.describe(),
        "options": dict(options),
        "versions": {**versions(), "python": platform.python_version(), "machine": platform.machine()},
    }

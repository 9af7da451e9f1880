"""What results keep of a model; and results as folders, with everything needed to load and repeat them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

from embgeom._common.html import Section, facts, how_to_cite, page
from embgeom._common.progress import Progress
from embgeom._common.record import plain, write_json
from embgeom._common.result import Plotted, Result, Tabular, picture
from embgeom._common.tables import Block, Table, TableFormat, check_table_format, write_table
from embgeom._common.writing import new_folder, write_file
from embgeom.embeddings.embeddings import Embeddings, Which, check_embeddings
from embgeom.embeddings.provenance import Provenance
from embgeom.loading import load

_AnyResult = TypeVar("_AnyResult", bound="FolderResult")


@dataclass(frozen=True, eq=False, repr=False)
class ModelRecord:
    """What was compared or inspected: all of an `Embeddings` but its matrix, of which `shape` is (V, d)."""

    name: str
    which: Which
    shape: tuple[int, int]
    tokens: list[str]
    token_bytes: list[bytes | None]
    anomalies: dict[str, int]
    provenance: Provenance

    @classmethod
    def from_embeddings(cls, model: Embeddings) -> ModelRecord:
        rows, columns = model.matrix.shape
        known = model.tokens, model.token_bytes, model.anomalies, model.provenance
        return cls(model.name, model.which, (rows, columns), *known)

    def __repr__(self) -> str:
        return f"ModelRecord({self.name!r}, {self.which}, {self.shape[0]} x {self.shape[1]})"

    def to_dict(self) -> dict[str, Any]:
        """Return what this is and where it was read from, with the model file's SHA-256, ready for JSON."""
        return {
            "name": self.name,
            "which": self.which,
            "shape": list(self.shape),
            "anomalies": dict(self.anomalies),
            "provenance": self.provenance.to_dict(),
        }


def loaded(model: Any, which: Which, threads: int, progress: Progress) -> Embeddings:
    """Return a model that is given as such or by its name."""
    if isinstance(model, str | PathLike):
        return load(model, which, threads=threads, progress=progress is True)
    return check_embeddings(model)


def shown(model: Embeddings | ModelRecord, row: int) -> str:
    """Return a token in quotes, with its spaces; a token that is only part of a character as bytes."""
    spelled = model.token_bytes[int(row)]
    if spelled is None:
        return repr(model.tokens[int(row)])
    try:
        return repr(spelled.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(spelled)


def shown_list(model: Embeddings | ModelRecord, rows: Iterable[int], longest: int = 64) -> str:
    """Return tokens in quotes, in lines that break between tokens and never within one."""
    lines = [""]
    for row in rows:
        token = shown(model, row)
        if lines[-1] and len(lines[-1]) + 2 + len(token) > longest:
            lines.append(token)
        else:
            lines[-1] += f"  {token}" if lines[-1] else token
    return "\n".join(lines)


def model_tables(title: str, *models: ModelRecord) -> list[Block]:
    """Return a table of matrices and their anomalies, and the notes made while loading them."""
    names = [f"{letter}: {model.name}" for letter, model in zip("AB", models, strict=False)]
    described = [_described(model) for model in models]
    # A count that is 0 in all models says nothing.
    rows = (
        (label, *(facts[label] for facts in described))
        for label in described[0]
        if any(facts[label] != "0" for facts in described)
    )
    notes = [
        f"{name}: {note}" if len(models) > 1 else f"note: {note}"
        for name, model in zip(names, models, strict=True)
        for note in model.provenance.notes
    ]
    table = Table(title, ("", *(names if len(models) > 1 else ("value",))), rows)
    return [table, *notes, ""] if notes else [table]


def _described(model: ModelRecord) -> dict[str, str]:
    origin = model.provenance
    return {
        "matrix": f"{model.which}, {model.shape[0]} x {model.shape[1]}",
        "tensor": f"{origin.tensor or 'none'}, stored as {origin.dtype}{', tied' if origin.tied else ''}",
        **{anomaly: str(count) for anomaly, count in model.anomalies.items()},
    }


class FolderResult(Result, Tabular, Plotted):
    """A result too large for one file that people read: arrays, a table of tokens, and a record in JSON."""

    _large = True
    versions: dict[str, str]

    def tables(self) -> list[Block]:
        """Return the tables of `summary`: what was read, and what was found."""
        return [*self._facts(), *self._results()]

    @abstractmethod
    def _facts(self) -> list[Block]:
        """Return what was read: models, and which of their tokens count."""

    @abstractmethod
    def _results(self) -> list[Block]:
        """Return what was found, the most important first."""

    @abstractmethod
    def _record(self) -> dict[str, Any]:
        """Return what people look up first, without the numbers of single tokens."""

    @abstractmethod
    def _headings(self) -> tuple[str, str]:
        """Return the title of its page, and the caption of its figure."""

    def to_dict(self) -> dict[str, Any]:
        """Return statistics, counts, options, versions, and models with their files' SHA-256.

        The numbers of single tokens are in `to_pandas`, everything in what `save` writes.
        """
        record = {"result": type(self).__name__, **self._record(), "versions": self.versions}
        return cast(dict[str, Any], plain(record))

    def save(
        self, path: str | PathLike[str], *, table_format: TableFormat = "csv", overwrite: bool = False
    ) -> None:
        """Write a folder that `load` reads back, atomically.

        It holds everything as .safetensors, the table of `to_pandas` as .csv or .parquet, and `to_dict` as
        .json.

        Parameters
        ----------
        path : path
            The folder.
        table_format : {"csv", "parquet"}
            The format of the table; parquet needs pyarrow.
        overwrite : bool
            Whether to replace earlier results there.

        Raises
        ------
        OutputError
            If the folder holds something already, lies in a model's folder, or cannot be written. With
            `overwrite` earlier results are replaced, but a folder with any other file in it is still refused.
        InputError
            If pyarrow is needed and not installed.
        """
        check_table_format(table_format)
        with new_folder(path, overwrite=overwrite, inputs=self._inputs()) as folder:
            self._write(folder / self._file(".safetensors"))
            write_table(folder / f"tokens.{table_format}", self.columns())
            write_json(folder / self._file(".json"), self.to_dict())

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write one page that needs no other file and no network: tables that sort, the figure, provenance.

        Without matplotlib it has no figure.

        Raises
        ------
        OutputError
            If the file cannot be written, or is one that a model was read from; then nothing is left at
            `path`.
        """
        title, caption = self._headings()
        record = self.to_dict()
        told = [
            facts(name, record[name]) for name in ("options", "model", "models", "versions") if name in record
        ]
        missing = "The figure needs matplotlib, which the extra embgeom[figures] adds."
        text = page(
            title,
            [
                Section("Results", self._results()),
                Section("Figure", [picture(self.figure(), caption) if find_spec("matplotlib") else missing]),
                Section("Models and tokens", self._facts()),
                Section("Parameters and provenance", told, closed=True),
                how_to_cite(self.versions),
            ],
            footer=f"Made with embgeom {self.versions.get('embgeom', '')}.",
        )
        write_file(path, lambda partial: partial.write_text(text, encoding="utf-8"), inputs=self._inputs())

    @classmethod
    def load(cls: type[_AnyResult], path: str | PathLike[str]) -> _AnyResult:
        """Read a folder that `save` wrote.

        Raises
        ------
        LoadError
            If the folder does not hold a result of this class, or cannot be read.
        """
        return super().load(Path(path) / cls._file(".safetensors"))

    @classmethod
    def _file(cls, suffix: str) -> str:
        return cls.__name__.lower() + suffix

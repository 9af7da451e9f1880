"""Results as files: written whole or not at all, with everything needed to repeat them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.record import versions, write_json
from embgeom._common.writing import new_folder
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.comparison.comparison import Comparison
    from embgeom.comparison.inspect import Inspection

TABLE_FORMATS = ("csv", "parquet")

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]


def save_comparison(
    comparison: Comparison, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
) -> None:
    """Write a comparison into a folder; see `Comparison.save`."""
    write_table = _table_writer(table_format)
    inputs = [*comparison.a.provenance.inputs, *comparison.b.provenance.inputs]
    with new_folder(folder, overwrite=overwrite, inputs=inputs) as target:
        arrays: dict[str, Any] = {
            "ids_a": comparison.match.ids_a,
            "ids_b": comparison.match.ids_b,
            "sampled": comparison.sampled,
        }
        for side, local in (("a", comparison.local_a), ("b", comparison.local_b)):
            arrays |= {
                f"indices_{side}": local.neighbors.indices,
                f"similarities_{side}": local.neighbors.similarities,
                f"weights_{side}": local.lle.weights,
                f"n_components_{side}": local.dimension.n_components,
            }
        np.savez_compressed(target / "arrays.npz", **arrays)
        write_table(target / f"tokens.{table_format}", _token_columns(comparison))
        write_json(
            target / "comparison.json",
            {
                "statistics": [asdict(statistic) for statistic in comparison.statistics],
                "weight_cosine_quantiles": comparison.weight_cosine_quantiles(),
                "match": comparison.match.to_dict(),
                "parameters": asdict(comparison.options),
                "models": {"a": comparison.a.to_dict(), "b": comparison.b.to_dict()},
                "versions": versions(),
            },
        )


def save_inspection(
    inspection: Inspection, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
) -> None:
    """Write an inspection into a folder; see `Inspection.save`."""
    write_table = _table_writer(table_format)
    rows = inspection.sampled
    inputs = inspection.embeddings.provenance.inputs
    with new_folder(folder, overwrite=overwrite, inputs=inputs) as target:
        np.savez_compressed(
            target / "arrays.npz",
            norms=inspection.norms,
            sampled=rows,
            n_components=inspection.dimension.n_components,
            participation_ratio=inspection.dimension.participation_ratio,
        )
        columns: Columns = {
            "row": rows,
            "token": [inspection.embeddings.tokens[row] for row in rows],
            "norm": inspection.norms[rows],
            "n_components": inspection.dimension.n_components,
            "participation_ratio": inspection.dimension.participation_ratio,
        }
        write_table(target / f"tokens.{table_format}", columns)
        write_json(
            target / "inspection.json",
            {
                "model": inspection.embeddings.to_dict(),
                "parameters": inspection.parameters,
                "versions": versions(),
            },
        )


def _token_columns(comparison: Comparison) -> Columns:
    match = comparison.match
    dimensions: dict[str, list[int | None]] = {}
    for side, local in (("a", comparison.local_a), ("b", comparison.local_b)):
        # Only sampled tokens have a dimension; the others' cells stay empty.
        column: list[int | None] = [None] * len(match.ids_a)
        for place, components in zip(comparison.sampled, local.dimension.n_components, strict=True):
            column[place] = int(components)
        dimensions[f"n_components_{side}"] = column
    return {
        "row_a": match.ids_a,
        "row_b": match.ids_b,
        "token_a": [comparison.a.tokens[row] for row in match.ids_a],
        "token_b": [comparison.b.tokens[row] for row in match.ids_b],
        "kind": match.kind,
        "neighbor_overlap": comparison.overlap,
        "weight_cosine": comparison.weight_cosine,
        **dimensions,
    }


def check_table_format(table_format: str) -> None:
    """Find out before a long computation whether its tables can be written in a format.

    Raises
    ------
    InputError
        If there is no such format, or what writes it is not installed.
    """
    _table_writer(table_format)


def _table_writer(table_format: str) -> Callable[[Path, Columns], None]:
    if table_format not in TABLE_FORMATS:
        raise InputError(f"table_format = {table_format!r} is unknown: use one of {', '.join(TABLE_FORMATS)}")
    if table_format == "csv":
        return _write_csv
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise InputError("parquet tables need pyarrow: pip install 'embgeom[parquet]', or use csv") from None
    return _write_parquet


def _write_parquet(path: Path, columns: Columns) -> None:
    import pyarrow.parquet

    plain = {
        name: [_encodable(value) for value in values] if name.startswith("token") else values
        for name, values in columns.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(plain), path)


def _encodable(token: str) -> str:
    # A lone surrogate, which no UTF-8 can hold, is written as its code, as in a csv.
    return token.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_csv(path: Path, columns: Columns) -> None:
    # Tokens may hold any character, so lines end as RFC 4180 has it and the writer quotes what needs it.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))

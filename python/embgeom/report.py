"""Results as readable tables, for the terminal and as HTML."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from embgeom.lle import LLEStatus
from embgeom.results import write_file

if TYPE_CHECKING:
    from embgeom.comparison import Comparison
    from embgeom.embeddings import Embeddings
    from embgeom.inspection import Inspection, TokenNeighborhood
    from embgeom.knn import Neighbors

_TEXT_WIDTH = 110
_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def as_text(tables: Iterable[RenderableType]) -> str:
    """Render tables as plain text."""
    console = Console(file=io.StringIO(), width=_TEXT_WIDTH, color_system=None)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def write_html(tables: Iterable[RenderableType], path: str | PathLike[str]) -> None:
    """Write tables as one HTML file, whole or not at all."""
    console = Console(file=io.StringIO(), width=_TEXT_WIDTH, record=True)
    for table in tables:
        console.print(table)
    page = console.export_html()

    def write(partial: Path) -> None:
        partial.write_text(page, encoding="utf-8")

    write_file(path, write)


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """Return the tables of a comparison: models, tokens matched, and measures beside their nulls."""
    measures = _table(
        f"{len(comparison.match.ids_a)} shared tokens: what the models share, and what chance gives"
    )
    for name in ("measure", "what it is"):
        measures.add_column(name)
    for name in ("value", "shuffled", "Gaussian"):
        measures.add_column(name, justify="right")
    for measure in comparison.measures:
        numbers = (measure.value, measure.shuffled, measure.gaussian)
        measures.add_row(measure.name, measure.meaning, *(_number(number) for number in numbers))
    spread = ", ".join(
        f"{quantile:.0%}: {_number(value)}"
        for quantile, value in comparison.weight_cosine_quantiles().items()
    )
    settings = comparison.settings
    a, b = comparison.local_a, comparison.local_b
    notes = (
        f"quantiles of the weight cosine over tokens: {spread}",
        f"intrinsic dimension of {len(comparison.sampled)} sampled tokens: "
        f"mean {a.components.mean():.1f} in A and {b.components.mean():.1f} in B, "
        f"of at most {a.dimension_ceiling} and {b.dimension_ceiling} "
        f"({settings.variance:.0%} of variance, {settings.dimension_k} neighbors)",
    )
    return [
        _models_table(comparison.a, comparison.b),
        _match_table(comparison),
        measures,
        *(Text(note) for note in notes),
    ]


def inspection_tables(inspection: Inspection) -> list[RenderableType]:
    """Return the tables of an inspection."""
    dimension = inspection.dimension
    spread = _table(
        f"norms of all rows, and intrinsic dimensions of {len(inspection.sampled)} sampled rows "
        f"({dimension.variance:.0%} of variance, {dimension.k} neighbors, at most {dimension.ceiling})"
    )
    spread.add_column("")
    for quantile in _QUANTILES:
        spread.add_column(
            {0.0: "lowest", 0.5: "median", 1.0: "highest"}.get(quantile, f"{quantile:.0%}"), justify="right"
        )
    for name, values in (
        ("norm", inspection.norms),
        ("intrinsic dimension", dimension.components),
        ("participation ratio", dimension.participation_ratio),
    ):
        spread.add_row(name, *(f"{value:.4g}" for value in np.quantile(values, _QUANTILES)))
    tables: list[RenderableType] = [_models_table(inspection.embeddings), spread]
    if np.mean(dimension.saturated) > 0.5:
        tables.append(
            Text(
                f"Most dimensions come near the highest possible, {dimension.ceiling}: they tell of the "
                "number of neighbors or columns more than of the data. More neighbors tell more."
            )
        )
    for title, neighbors in (("lowest", inspection.lowest), ("highest", inspection.highest)):
        tables.append(_extremes_table(f"tokens of {title} intrinsic dimension", inspection, neighbors))
    return tables


def neighborhood_tables(neighborhood: TokenNeighborhood) -> list[RenderableType]:
    """Return the table of one token's neighbors."""
    model, neighbors = neighborhood.embeddings, neighborhood.neighbors
    table = _table(
        f"nearest rows of {shown(model, neighborhood.row)} (row {neighborhood.row}) in {model.name}"
    )
    value = {"cosine": "cosine", "inner_product": "inner product", "euclidean": "distance"}[neighbors.metric]
    for name in ("row", "token", value, "LLE weight"):
        table.add_column(name, justify="left" if name == "token" else "right")
    values = neighbors.distances if neighbors.metric == "euclidean" else neighbors.similarities
    for row, number, weight in zip(neighbors.indices[0], values[0], neighborhood.lle.weights[0], strict=True):
        table.add_row(str(row), Text(shown(model, row)), _number(number), _number(weight))
    dimension = neighborhood.dimension
    status = LLEStatus(neighborhood.lle.status[0]).name.lower().replace("_", " ")
    notes = (
        f"LLE residual {neighborhood.lle.residuals[0]:.4g}, of a row of norm "
        f"{model.norms[neighborhood.row]:.4g}; weights: {status}",
        f"intrinsic dimension {dimension.components[0]} of at most {dimension.ceiling} "
        f"({dimension.variance:.0%} of variance, {dimension.k} neighbors), "
        f"participation ratio {dimension.participation_ratio[0]:.4g}",
    )
    return [table, *(Text(note) for note in notes)]


def shown(model: Embeddings, row: int) -> str:
    """Return a token as a person can read it: in quotes, with its spaces, control characters escaped."""
    return repr(model.text(int(row)))


def _table(title: str) -> Table:
    return Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _number(value: float) -> str:
    return "undefined" if np.isnan(value) else f"{value:.4f}"


def _models_table(*models: Embeddings) -> Table:
    table = _table("models" if len(models) > 1 else models[0].name)
    table.add_column("")
    for letter, model in zip("AB", models, strict=False):
        table.add_column(Text(f"{letter}: {model.name}" if len(models) > 1 else "value"), overflow="fold")
    described = [_description(model) for model in models]
    for name in described[0]:
        table.add_row(name, *(Text(description[name]) for description in described))
    return table


def _description(model: Embeddings) -> dict[str, str]:
    rows, width = model.matrix.shape
    origin = model.provenance
    return {
        "matrix": f"{model.which}, {rows} x {width}",
        "tensor": f"{origin.tensor or 'none'}, stored as {origin.dtype}{', tied' if origin.tied else ''}",
        **{name: str(count) for name, count in model.counts.items()},
    }


def _match_table(comparison: Comparison) -> Table:
    match = comparison.match
    table = _table("tokens matched, and rows left out by reason")
    table.add_column("")
    for letter in "AB":
        table.add_column(letter, justify="right")
    for kind, count in match.certainties().items():
        table.add_row(f"matched, {kind}", str(count), str(count))
    for reason in match.left_out_a:
        counts = match.left_out_a[reason], match.left_out_b[reason]
        if any(counts):
            table.add_row(f"left out: {reason}", *(str(count) for count in counts))
    return table


def _extremes_table(title: str, inspection: Inspection, neighbors: Neighbors) -> Table:
    model = inspection.embeddings
    table = _table(title)
    for name in ("row", "dimension", "token", "nearest rows"):
        table.add_column(name, justify="right" if name in ("row", "dimension") else "left")
    rows: Sequence[int] = [] if neighbors.rows is None else neighbors.rows.tolist()
    for row, near in zip(rows, neighbors.indices, strict=True):
        names = "  ".join(shown(model, other) for other in near if other >= 0)
        table.add_row(str(row), str(inspection.dimension_of(row)), Text(shown(model, row)), Text(names))
    return table

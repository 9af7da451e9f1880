"""Results as readable tables, for the terminal and as HTML."""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.text import Text

from embgeom._common.tables import TEXT_WIDTH, Table, number, visible
from embgeom._common.writing import write_file
from embgeom.geometry.lle import LLEStatus

if TYPE_CHECKING:
    from embgeom.comparison.comparison import Comparison
    from embgeom.comparison.inspect import Inspection, TokenNeighborhood
    from embgeom.embeddings.embeddings import Embeddings
    from embgeom.embeddings.vocabulary import Match
    from embgeom.geometry.dimension import IntrinsicDimension
    from embgeom.geometry.knn import Neighbors

# Below this many tokens the scatter of a correlation is worth a word.
_FEW_TOKENS = 100
_QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)


def write_html(comparison: Comparison, path: str | PathLike[str]) -> None:
    """Write a comparison's tables as one HTML file, whole or not at all; see `Comparison.to_html`."""
    console = Console(file=io.StringIO(), width=TEXT_WIDTH, record=True)
    for table in comparison_tables(comparison):
        console.print(table)
    page = console.export_html()

    def write(partial: Path) -> None:
        # A path may hold bytes that are no text.
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")

    write_file(path, write, inputs=[*comparison.a.provenance.inputs, *comparison.b.provenance.inputs])


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """Return the tables of a comparison: models, tokens matched, and measures beside their nulls."""
    statistics = (
        (m.label, m.meaning, number(m.value), number(m.shuffled), number(m.gaussian))
        for m in comparison.statistics
    )
    quantiles = comparison.weight_cosine_quantiles().items()
    undefined = int(np.count_nonzero(np.isnan(comparison.weight_cosine)))
    a, b = comparison.local_a.dimension, comparison.local_b.dimension
    return [
        _models_table("models", comparison.a, comparison.b),
        _match_table(comparison.match),
        Table(
            f"{len(comparison.match)} shared tokens: what the models share, with two null baselines",
            ("statistic", "what it is", "value", "shuffled", "Gaussian"),
            statistics,
        ),
        Text(
            "quantiles of the weight cosine over tokens: "
            + ", ".join(f"{quantile:.0%}: {number(value)}" for quantile, value in quantiles)
            + (f"; {undefined} tokens without weights are left out" if undefined else "")
        ),
        Text(
            f"intrinsic dimension of {len(comparison.sampled)} sampled tokens: "
            f"mean {a.n_components.mean():.1f} in A and {b.n_components.mean():.1f} in B, "
            f"of at most {a.max_components} and {b.max_components} "
            f"({a.variance:.0%} of variance, {a.k} neighbors)"
        ),
        *_near_max_notes(a, b),
        *_caution_notes(comparison),
    ]


def inspection_tables(inspection: Inspection) -> list[RenderableType]:
    """Return the tables of an inspection."""
    dimension = inspection.dimension
    quantities = (
        ("norm", inspection.norms),
        ("intrinsic dimension", dimension.n_components),
        ("participation ratio", dimension.participation_ratio),
    )
    return [
        _models_table(inspection.embeddings.name, inspection.embeddings),
        Table(
            f"norms of all rows, and intrinsic dimensions of {len(inspection.sampled)} sampled rows "
            f"({dimension.variance:.0%} of variance, {dimension.k} neighbors, "
            f"at most {dimension.max_components})",
            ("", "lowest", "10%", "median", "90%", "highest"),
            ((name, *(f"{v:.4g}" for v in np.quantile(values, _QUANTILES))) for name, values in quantities),
        ),
        *_near_max_notes(dimension),
        _extremes_table("tokens of lowest intrinsic dimension", inspection, inspection.lowest),
        _extremes_table("tokens of highest intrinsic dimension", inspection, inspection.highest),
    ]


def neighborhood_tables(neighborhood: TokenNeighborhood) -> list[RenderableType]:
    """Return the table of one token's neighbors."""
    model, neighbors, row = neighborhood.embeddings, neighborhood.neighbors, neighborhood.row
    dimension = neighborhood.dimension
    value = {"cosine": "cosine", "inner_product": "inner product", "euclidean": "distance"}[neighbors.metric]
    values = neighbors.distances if neighbors.metric == "euclidean" else neighbors.similarities
    lines = zip(neighbors.indices[0], values[0], neighborhood.lle.weights[0], strict=True)
    status = LLEStatus(neighborhood.lle.status[0]).name.lower().replace("_", " ")
    return [
        Table(
            f"nearest rows of {shown(model, row)} (row {row}) in {model.name}",
            ("row", "token", value, "LLE weight"),
            ((str(near), shown(model, near), number(v), number(weight)) for near, v, weight in lines),
        ),
        Text(
            f"LLE residual {neighborhood.lle.residuals[0]:.4g}, of a row of norm {model.norms[row]:.4g}; "
            f"weights: {status}"
        ),
        Text(
            f"intrinsic dimension {dimension.n_components[0]} of at most {dimension.max_components} "
            f"({dimension.variance:.0%} of variance, {dimension.k} neighbors), "
            f"participation ratio {dimension.participation_ratio[0]:.4g}"
        ),
    ]


def shown(model: Embeddings, row: int) -> str:
    """Return a token as a person can read it: in quotes, with its spaces, control characters escaped.

    A token that is only a part of a character is shown by its bytes.
    """
    spelled = model.token_bytes[int(row)]
    if spelled is None:
        return repr(model.tokens[int(row)])
    try:
        return repr(spelled.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(spelled)


def _caution_notes(comparison: Comparison) -> list[Text]:
    notes = []
    values = [(m.value, m.shuffled, m.gaussian) for m in comparison.statistics]
    if np.isnan(values).any():
        notes.append("undefined: a correlation with numbers that are all equal, or weights that no token has")
    fewest = min(len(comparison.match), len(comparison.sampled))
    if fewest < _FEW_TOKENS:
        notes.append(f"With {fewest} tokens a correlation scatters by about {fewest**-0.5:.2f}.")
    return [Text(note) for note in notes]


def _near_max_notes(*dimensions: IntrinsicDimension) -> list[Text]:
    if not any(np.mean(dimension.near_max) > 0.5 for dimension in dimensions):
        return []
    highest = " and ".join(str(dimension.max_components) for dimension in dimensions)
    return [
        Text(
            f"Most dimensions come near the highest possible, {highest}: they tell of the number of "
            "neighbors or columns more than of the data. More neighbors (--dimension-k) tell more."
        ),
        Text(),
    ]


def _models_table(title: str, *models: Embeddings) -> RenderableType:
    names = [f"{letter}: {model.name}" for letter, model in zip("AB", models, strict=False)]
    described = [_description(model) for model in models]
    lines = ((name, *(description[name] for description in described)) for name in described[0])
    table = Table(title, ("", *(names if len(models) > 1 else ("value",))), lines)
    notes = [
        Text(visible(f"{name}: {note}" if len(models) > 1 else f"note: {note}"))
        for name, model in zip(names, models, strict=True)
        for note in model.provenance.notes
    ]
    return Group(table, *notes, Text()) if notes else table


def _description(model: Embeddings) -> dict[str, str]:
    rows, width = model.matrix.shape
    origin = model.provenance
    return {
        "matrix": f"{model.which}, {rows} x {width}",
        "tensor": f"{origin.tensor or 'none'}, stored as {origin.dtype}{', tied' if origin.tied else ''}",
        **{name: str(count) for name, count in model.anomalies.items()},
    }


def _match_table(match: Match) -> RenderableType:
    lines = [[f"matched, {kind}", str(n), str(n)] for kind, n in match.kind_counts().items()]
    for reason in match.left_out_a:
        counts = match.left_out_a[reason], match.left_out_b[reason]
        if any(counts):
            lines.append([f"left out: {reason}", *(str(count) for count in counts)])
    return Table("tokens matched, and rows left out by reason", ("", "A", "B"), lines)


def _extremes_table(title: str, inspection: Inspection, neighbors: Neighbors) -> RenderableType:
    model = inspection.embeddings
    rows: Sequence[int] = [] if neighbors.rows is None else neighbors.rows.tolist()
    lines = (
        (
            str(row),
            str(inspection.dimension_of(row)),
            shown(model, row),
            "  ".join(shown(model, other) for other in near if other >= 0),
        )
        for row, near in zip(rows, neighbors.indices, strict=True)
    )
    return Table(title, ("row", "dimension", "token", "nearest rows"), lines)

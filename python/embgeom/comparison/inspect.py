"""One model by itself: its rows, and the dimensions of its neighborhoods."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress
from embgeom._common.record import versions
from embgeom._common.result import Columns, new_figure
from embgeom._common.tables import Block, Table, distribution
from embgeom._common.threads import resolve_threads
from embgeom.comparison.comparison import near_max_notes
from embgeom.comparison.saving import FolderResult, ModelRecord, loaded, model_tables, shown
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    dimension_neighbors,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, knn
from embgeom.runs.cache import active

EXTREMES = 8
NEIGHBORS_OF_EXTREMES = 6


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(FolderResult):
    """What one model's rows are like, as `inspect` measured it.

    Attributes
    ----------
    model : ModelRecord
        The model, without its matrix.
    norms : ndarray of float64, shape (V,)
        Lengths of all rows.
    sampled : ndarray of int64, shape (m,)
        The rows whose intrinsic dimension was measured; zero rows are never among them.
    dimension : IntrinsicDimension
        Of the sampled rows.
    lowest, highest : Neighbors
        The sampled rows of lowest and highest dimension (their numbers in `.rows`), with their nearest
        neighbors.
    options : dict of str to object
        Every parameter.
    versions : dict of str to str
        The versions of the software that measured it.
    from_cache : list of str
        What was read from the cache instead of computed.
    """

    model: ModelRecord
    norms: npt.NDArray[np.float64]
    sampled: RowNumbers
    dimension: IntrinsicDimension
    lowest: Neighbors
    highest: Neighbors
    options: dict[str, Any]
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        return f"Inspection({self.model!r}, {self.dimension!r})"

    def dimension_of(self, row: int) -> int:
        """Return the intrinsic dimension of a sampled row."""
        return int(self.dimension.n_components[np.searchsorted(self.sampled, row)])

    def tables(self) -> list[Block]:
        """Return the tables of `summary`: matrix, norms and dimensions, tokens at both ends of them."""
        dimension = self.dimension
        quantities: dict[str, npt.NDArray[Any]] = {
            "norm": self.norms,
            "intrinsic dimension": dimension.n_components,
            "participation ratio": dimension.participation_ratio,
        }
        return [
            *model_tables(self.model.name, self.model),
            distribution(
                quantities,
                f"norms of all rows, and intrinsic dimensions of {len(self.sampled)} sampled rows "
                f"({dimension.variance:.0%} of variance, {dimension.k} neighbors, "
                f"at most {dimension.max_components})",
            ),
            *near_max_notes(np.count_nonzero(self.norms) - 1, model=dimension),
            self._extremes("tokens of lowest intrinsic dimension", self.lowest),
            self._extremes("tokens of highest intrinsic dimension", self.highest),
        ]

    def _extremes(self, title: str, found: Neighbors) -> Table:
        rows: list[int] = [] if found.rows is None else found.rows.tolist()
        lines = (
            (
                row,
                self.dimension_of(row),
                shown(self.model, row),
                "  ".join(shown(self.model, other) for other in near if other >= 0),
            )
            for row, near in zip(rows, found.indices, strict=True)
        )
        return Table(title, ("row", "dimension", "token", "nearest rows"), lines)

    def _record(self) -> dict[str, Any]:
        return {"model": self.model.to_dict(), "options": self.options, "from_cache": self.from_cache}

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each sampled row of the matrix."""
        return {
            "row": self.sampled,
            "token": [self.model.tokens[row] for row in self.sampled],
            "norm": self.norms[self.sampled],
            "n_components": self.dimension.n_components,
            "participation_ratio": self.dimension.participation_ratio,
        }

    def _headings(self) -> tuple[str, str]:
        return (
            f"The token embeddings of {self.model.name}",
            f"Norms of all {len(self.norms)} rows, and intrinsic dimensions of {len(self.sampled)} rows "
            f"over {self.dimension.k} neighbors.",
        )

    def figure(self) -> Any:
        """Draw the distributions of norms and of intrinsic dimensions."""
        figure = new_figure(7, 3)
        norms, dimensions = figure.subplots(1, 2)
        norms.hist(self.norms, bins=50, color="C0")
        norms.set_xlabel(f"norms of all {len(self.norms)} rows")
        norms.set_ylabel("rows")
        dimensions.hist(self.dimension.n_components, bins=30, color="C0")
        dimensions.axvline(
            self.dimension.max_components, color="0.3", linestyle="--", label="highest possible"
        )
        dimensions.legend(fontsize="small")
        dimensions.set_xlabel(f"intrinsic dimensions of {len(self.sampled)} sampled rows")
        figure.suptitle(f"{self.model.name}, {self.model.which}", fontsize=10)
        return figure

    def _inputs(self) -> list[Any]:
        return self.model.provenance.inputs


def inspect(
    embeddings: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    dimension_k: int | None = None,
    dimension_sample: int = 500,
    variance: float = 0.95,
    metric: Metric = "cosine",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Inspection:
    """Inspect one model's rows: norms, anomalies, intrinsic dimensions, and the tokens at both ends of them.

    Parameters
    ----------
    embeddings : Embeddings, or str or path-like
        The model, or its name as `load` takes it.
    which : {"input", "output"}
        Embedding or unembedding, where the model is given by name.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or all if there are fewer.
    dimension_sample : int
        How many random rows' intrinsic dimension is measured; zero rows are left out.
    variance, metric, seed, threads, progress
        See `compare`.

    Returns
    -------
    Inspection

    Raises
    ------
    InputError
        If a parameter does not fit the model.
    LoadError
        If the model cannot be loaded.

    Notes
    -----
    The intrinsic dimensions dominate; see `intrinsic_dimension`. Within `use_cache`, results that were
    computed before are read instead.

    Examples
    --------
    >>> import embgeom
    >>> inspection = embgeom.inspect("example:small", dimension_sample=100)
    >>> inspection.norms.shape, inspection.dimension.n_components.shape
    ((4096,), (100,))
    """
    team = resolve_threads(threads)
    embeddings = loaded(embeddings, which, team, progress)
    x = embeddings.matrix
    wanted = whole_number(dimension_sample, "dimension_sample", 1)
    variance, generator = check_variance(variance), np.random.default_rng(check_seed(seed))
    candidates = np.flatnonzero(~embeddings.zero)
    if len(candidates) < 3:
        raise InputError(
            f"{embeddings.name} has {len(candidates)} rows that are not zero; at least 3 are needed"
        )
    # By cosine, zero rows are not neighbors of any row, so they do not count.
    k = dimension_neighbors(dimension_k, len(candidates) - 1)
    size = min(wanted, len(candidates))
    sampled = np.sort(generator.choice(candidates, size, replace=False)).astype(np.int64)
    search: dict[str, Any] = {"metric": metric, "threads": team, "progress": progress}
    call = active((embeddings.name, x))
    dimension = call(intrinsic_dimension, x, k=k, rows=sampled, variance=variance, **search)
    # A stable sort lets equal dimensions stand in the order of rows.
    ascending = sampled[np.argsort(dimension.n_components, kind="stable")]
    shown = min(EXTREMES, max(1, size // 2))
    near = min(NEIGHBORS_OF_EXTREMES, len(candidates) - 1)
    lowest, highest = (knn(x, near, rows=rows[:shown], **search) for rows in (ascending, ascending[::-1]))
    options = {
        "dimension_k": k,
        "dimension_sample": size,
        "variance": variance,
        "metric": metric,
        "seed": seed,
        "threads": team,
    }
    model = ModelRecord.from_embeddings(embeddings)
    return Inspection(
        model, embeddings.norms, sampled, dimension, lowest, highest, options, versions(), call.served
    )

"""One model by itself: its rows, the dimensions of its neighborhoods, the neighborhood of a token."""

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
from embgeom._common.result import Columns, Result, Tabular, new_figure
from embgeom._common.tables import Block, Table, distribution
from embgeom._common.threads import resolve_threads
from embgeom.comparison.comparison import near_max_notes
from embgeom.comparison.saving import FolderResult, ModelRecord, model_tables, shown
from embgeom.embeddings.embeddings import Embeddings, Which, check_embeddings
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    dimension_neighbors,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, check_k, knn
from embgeom.geometry.lle import LLE, LLEStatus, check_reg, lle
from embgeom.loading import load
from embgeom.runs.cache import active

EXTREMES = 8
NEIGHBORS_OF_EXTREMES = 6
_VALUES = {"cosine": "cosine", "inner_product": "inner product", "euclidean": "distance"}


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


@dataclass(frozen=True, eq=False, repr=False)
class TokenNeighborhood(Result, Tabular):
    """One token's neighborhood.

    Attributes
    ----------
    model : str
        The name of the model.
    row : int
        The token's row.
    token : str
        The token as tables show it, in quotes.
    norm : float
        The length of its row.
    neighbors : Neighbors
        Its k nearest rows, shape (1, k).
    neighbor_tokens : list of str, length k
        Their tokens as tables show them.
    lle : LLE
        Their reconstruction weights, shape (1, k).
    dimension : IntrinsicDimension
        Intrinsic dimension over a wider neighborhood, shape (1,).
    """

    model: str
    row: int
    token: str
    norm: float
    neighbors: Neighbors
    neighbor_tokens: list[str]
    lle: LLE
    dimension: IntrinsicDimension

    def __repr__(self) -> str:
        return f"TokenNeighborhood({self.token} of {self.model!r}, {self.neighbors!r})"

    def tables(self) -> list[Block]:
        """Return the table of `summary`, and lines on weights and dimension."""
        columns, dimension = self.columns(), self.dimension
        status = LLEStatus(self.lle.status[0]).name.lower().replace("_", " ")
        return [
            Table(
                f"nearest rows of {self.token} (row {self.row}) in {self.model}",
                ("row", "token", _VALUES[self.neighbors.metric], "LLE weight"),
                zip(*columns.values(), strict=True),
            ),
            f"LLE residual {self.lle.residuals[0]:.4g}, of a row of norm {self.norm:.4g}; weights: {status}",
            f"intrinsic dimension {dimension.n_components[0]} of at most {dimension.max_components} "
            f"({dimension.variance:.0%} of variance, {dimension.k} neighbors), "
            f"participation ratio {dimension.participation_ratio[0]:.4g}",
        ]

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each neighbor, nearest first."""
        near = self.neighbors
        values = near.distances if near.metric == "euclidean" else near.similarities
        return {
            "row": near.indices[0],
            "token": self.neighbor_tokens,
            _VALUES[near.metric].replace(" ", "_"): values[0],
            "weight": self.lle.weights[0],
        }


def _loaded(model: Any, which: Which, threads: int, progress: Progress) -> Embeddings:
    if isinstance(model, str | PathLike):
        return load(model, which, threads=threads, progress=progress is True)
    return check_embeddings(model)


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
    embeddings = _loaded(embeddings, which, team, progress)
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


def inspect_token(
    embeddings: Embeddings | str | PathLike[str],
    token: str | int,
    *,
    which: Which = "input",
    k: int = 10,
    metric: Metric = "cosine",
    reg: float = 1e-3,
    dimension_k: int | None = None,
    variance: float = 0.95,
    threads: int | None = None,
    progress: Progress = False,
) -> TokenNeighborhood:
    """Find one token's nearest neighbors, their reconstruction weights and its intrinsic dimension.

    Parameters
    ----------
    embeddings : Embeddings, or str or path-like
        The model, or its name as `load` takes it.
    token : str or int
        The token as `Embeddings.row_of` takes it, or its row number.
    which : {"input", "output"}
        As in `inspect`.
    k : int
        Neighbors to find and to reconstruct from.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default as in `inspect`.
    metric, reg, variance, threads, progress
        See `compare`.

    Returns
    -------
    TokenNeighborhood

    Raises
    ------
    InputError
        If there is no such token (the message lists similar ones), its row is zero, or a parameter does
        not fit.
    LoadError
        If the model cannot be loaded.

    Notes
    -----
    One pass over the matrix, and one eigenvalue problem.

    Examples
    --------
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> near = embgeom.inspect_token(model, " two", k=5).neighbors.indices[0]
    >>> " three" in [model.text(row) for row in near]
    True
    """
    team = resolve_threads(threads)
    embeddings = _loaded(embeddings, which, team, progress)
    x = embeddings.matrix
    row = embeddings.row_of(token)
    usable = int(np.count_nonzero(~embeddings.zero))
    if embeddings.zero[row] and metric == "cosine":
        raise InputError(
            f"the row of {embeddings.tokens[row]!r} (number {row}) is zero: it has no neighbors by cosine"
        )
    rows, reg, variance = [row], check_reg(reg), check_variance(variance)
    k, wide = check_k(k, usable - 1), dimension_neighbors(dimension_k, usable - 1)
    common: dict[str, Any] = {"threads": team, "progress": progress}
    neighbors = knn(x, k, rows=rows, metric=metric, **common)
    weights = lle(x, neighbors, reg=reg, **common)
    dimension = intrinsic_dimension(x, k=wide, rows=rows, variance=variance, metric=metric, **common)
    return TokenNeighborhood(
        model=embeddings.name,
        row=row,
        token=shown(embeddings, row),
        norm=float(embeddings.norms[row]),
        neighbors=neighbors,
        neighbor_tokens=[shown(embeddings, other) for other in neighbors.indices[0]],
        lle=weights,
        dimension=dimension,
    )

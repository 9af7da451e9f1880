"""One model by itself: its rows, the dimensions of its neighborhoods, single tokens' surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress
from embgeom._common.threads import resolve_threads
from embgeom.embeddings.embeddings import Embeddings, check_embeddings
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    default_dimension_k,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, check_k, knn
from embgeom.geometry.lle import LLE, check_reg, lle

EXTREMES = 8
NEIGHBORS_OF_EXTREMES = 6


@dataclass(frozen=True, eq=False, repr=False)
class Inspection:
    """What one model's rows are like.

    Attributes
    ----------
    embeddings : Embeddings
        The model, with its flags.
    norms : ndarray of float64, shape (V,)
        Lengths of all rows.
    sampled : ndarray of int64, shape (m,)
        The rows whose intrinsic dimension was measured; zero rows are never among them.
    dimension : IntrinsicDimension
        Of the sampled rows.
    lowest, highest : Neighbors
        The sampled rows of lowest and highest dimension (their numbers in `.rows`), with their nearest
        neighbors.
    parameters : dict
        What the numbers depend on.
    """

    embeddings: Embeddings
    norms: npt.NDArray[np.float64]
    sampled: RowNumbers
    dimension: IntrinsicDimension
    lowest: Neighbors
    highest: Neighbors
    parameters: dict[str, Any]

    def __repr__(self) -> str:
        return f"Inspection({self.embeddings!r}, {self.dimension!r})"

    def dimension_of(self, row: int) -> int:
        """Return the intrinsic dimension of a sampled row."""
        return int(self.dimension.n_components[np.searchsorted(self.sampled, row)])

    def summary(self) -> str:
        """Return the inspection as readable tables."""
        from embgeom._common.tables import as_text
        from embgeom.comparison.report import inspection_tables

        return as_text(inspection_tables(self))

    def save(
        self, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
    ) -> None:
        """Write arrays (npz), a table of sampled tokens and a JSON file with provenance; all or nothing.

        Raises
        ------
        OutputError
            If the folder holds something already, or cannot be written. With `overwrite` earlier results
            are replaced, but a folder with any other file in it is still refused.
        """
        from embgeom.comparison.results import save_inspection

        save_inspection(self, folder, table_format=table_format, overwrite=overwrite)


@dataclass(frozen=True, eq=False, repr=False)
class TokenNeighborhood:
    """One token's surroundings.

    Attributes
    ----------
    embeddings : Embeddings
        The model.
    row : int
        The token's row.
    neighbors : Neighbors
        Its k nearest rows, shape (1, k).
    lle : LLE
        Their reconstruction weights, shape (1, k).
    dimension : IntrinsicDimension
        Intrinsic dimension over a wider neighborhood, shape (1,).
    """

    embeddings: Embeddings
    row: int
    neighbors: Neighbors
    lle: LLE
    dimension: IntrinsicDimension

    def __repr__(self) -> str:
        token = self.embeddings.tokens[self.row]
        return f"TokenNeighborhood({token!r} of {self.embeddings.name!r}, {self.neighbors!r})"

    def summary(self) -> str:
        """Return the neighborhood as a readable table."""
        from embgeom._common.tables import as_text
        from embgeom.comparison.report import neighborhood_tables

        return as_text(neighborhood_tables(self))


def inspect(
    embeddings: Embeddings,
    *,
    dimension_k: int | None = None,
    dimension_sample: int = 500,
    variance: float = 0.95,
    metric: Metric = "cosine",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Inspection:
    """Look at one model's rows: lengths, flags, intrinsic dimensions, and the tokens at both ends of them.

    Parameters
    ----------
    embeddings : Embeddings
        The model, as `load` returns it.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension: by default 1200, or a tenth of the rows where that is
        less (but at least 50).
    dimension_sample : int
        Rows (drawn at random, zero rows left out) whose intrinsic dimension is measured.
    variance : float
        Share of variance that defines the intrinsic dimension.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    seed : int
        Seed of the sample.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    Inspection

    Raises
    ------
    InputError
        If a parameter does not fit the model.

    Notes
    -----
    The intrinsic dimensions dominate; see `intrinsic_dimension`.

    Examples
    --------
    >>> import embgeom
    >>> inspection = embgeom.inspect(embgeom.load("example:small"), dimension_sample=100)
    >>> inspection.norms.shape, inspection.dimension.n_components.shape
    ((4096,), (100,))
    """
    x, team = check_embeddings(embeddings).matrix, resolve_threads(threads)
    wanted = whole_number(dimension_sample, "dimension_sample", 1)
    variance, generator = check_variance(variance), np.random.default_rng(check_seed(seed))
    candidates = np.flatnonzero(~embeddings.zero)
    if len(candidates) < 3:
        raise InputError(
            f"{embeddings.name} has {len(candidates)} rows that are not zero; at least 3 are needed"
        )
    k = default_dimension_k(len(candidates)) if dimension_k is None else dimension_k
    # By cosine, zero rows are nobody's neighbor, so they do not count among those to choose from.
    k = check_k(k, len(candidates) - 1, "dimension_k")
    size = min(wanted, len(candidates))
    sampled = np.sort(generator.choice(candidates, size, replace=False)).astype(np.int64)
    dimension = intrinsic_dimension(
        x, k=k, rows=sampled, variance=variance, metric=metric, threads=team, progress=progress
    )
    # A stable sort lets equal dimensions stand in the order of rows.
    ascending = sampled[np.argsort(dimension.n_components, kind="stable")]
    shown = min(EXTREMES, max(1, size // 2))
    near = min(NEIGHBORS_OF_EXTREMES, len(candidates) - 1)
    lowest, highest = (
        knn(x, near, rows=rows, metric=metric, threads=team, progress=progress)
        for rows in (ascending[:shown], ascending[::-1][:shown])
    )
    parameters = {
        "dimension_k": k,
        "dimension_sample": size,
        "variance": variance,
        "metric": metric,
        "seed": seed,
        "threads": team,
    }
    return Inspection(embeddings, embeddings.norms, sampled, dimension, lowest, highest, parameters)


def inspect_token(
    embeddings: Embeddings,
    token: str | int,
    *,
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
    embeddings : Embeddings
        The model, as `load` returns it.
    token : str or int
        The token as `Embeddings.index` takes it, or its row number.
    k : int
        Neighbors to find and to reconstruct from.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    reg : float
        Regularization of the weights, see `lle`.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default as in `inspect`.
    variance : float
        Share of variance that defines the intrinsic dimension.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    TokenNeighborhood

    Raises
    ------
    InputError
        If there is no such token (the message lists similar ones), its row is zero, or a parameter does
        not fit.

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
    check_embeddings(embeddings)
    x, team = embeddings.matrix, resolve_threads(threads)
    row = embeddings.row_of(token)
    usable = int(np.count_nonzero(~embeddings.zero))
    if embeddings.zero[row] and metric == "cosine":
        raise InputError(
            f"the row of {embeddings.tokens[row]!r} (number {row}) is zero: it has no neighbors by cosine"
        )
    rows, reg, variance = [row], check_reg(reg), check_variance(variance)
    wide = default_dimension_k(usable) if dimension_k is None else dimension_k
    k, wide = check_k(k, usable - 1), check_k(wide, usable - 1, "dimension_k")
    neighbors = knn(x, k, rows=rows, metric=metric, threads=team, progress=progress)
    weights = lle(x, neighbors, reg=reg, threads=team, progress=progress)
    dimension = intrinsic_dimension(
        x, k=wide, rows=rows, variance=variance, metric=metric, threads=team, progress=progress
    )
    return TokenNeighborhood(embeddings, row, neighbors, weights, dimension)

"""Exact nearest neighbors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import (
    Float32Matrix,
    IndexMatrix,
    RowNumbers,
    as_matrix,
    as_neighbor_list,
    as_row_numbers,
)
from embgeom._common.checks import flag, need, whole_number
from embgeom._common.native import core
from embgeom._common.progress import Progress, reporter
from embgeom._common.result import Columns, Result, Tabular
from embgeom._common.tables import Block, distribution
from embgeom._common.threads import resolve_threads
from embgeom.errors import InputError
from embgeom.geometry.rows import centered, check_same_tokens, mean_row, token_columns, tokens_of

Metric = Literal["cosine", "inner_product", "euclidean"]
GraphValues = Literal["similarity", "distance", "connectivity"]


@dataclass(frozen=True, eq=False, repr=False)
class Neighbors(Result, Tabular):
    """The k nearest rows of a matrix for each of m tokens; returned by `knn`.

    Attributes
    ----------
    indices : ndarray of int32, shape (m, k)
        Row numbers, nearest first; -1 where there are no more neighbors.
    similarities : ndarray of float32, shape (m, k)
        The cosine, the inner product, or the negated Euclidean distance: larger is nearer. NaN where
        the index is -1.
    metric : {"cosine", "inner_product", "euclidean"}
        What "near" means.
    rows : ndarray of int64, shape (m,), or None
        The rows of the matrix whose neighbors these are, if only some were asked for.
    of_queries : bool
        Whether these are neighbors of other vectors, so that the tokens are not rows of the matrix.
    tokens : list of str, length n, or None
        The tokens of the matrix's rows, if it was an `Embeddings`.
    center : bool
        Whether the mean row was subtracted before.
    """

    _large: ClassVar[bool] = True

    indices: IndexMatrix
    similarities: Float32Matrix
    metric: Metric = "cosine"
    rows: RowNumbers | None = None
    of_queries: bool = False
    tokens: list[str] | None = None
    center: bool = False

    def __post_init__(self) -> None:
        if self.indices.ndim != 2 or self.indices.shape != self.similarities.shape:
            shapes = f"{self.indices.shape} and {self.similarities.shape}"
            raise InputError(f"indices and similarities of Neighbors must be (m, k), not {shapes}")

    def __repr__(self) -> str:
        of_what = " of centered rows" if self.center else ""
        return f"Neighbors({len(self.indices)} tokens, k={self.k}, {self.metric}{of_what})"

    @property
    def k(self) -> int:
        """How many neighbors each token has."""
        return int(self.indices.shape[1])

    def first(self, k: int) -> Neighbors:
        """Return the `k` nearest of these neighbors, which `knn` finds for that k.

        Raises
        ------
        InputError
            If there are fewer.
        """
        k = whole_number(k, "k", 1, self.k, f": neighbors lists {self.k} for each token")
        if k == self.k:
            return self
        indices, similarities = (array[:, :k].copy() for array in (self.indices, self.similarities))
        return replace(self, indices=indices, similarities=similarities)

    def select(self, chosen: npt.NDArray[Any]) -> Neighbors:
        """Return the neighbors of some of these tokens, by position or mask; `rows` says which these are."""
        rows = np.arange(len(self.indices)) if self.rows is None else self.rows
        return replace(
            self,
            indices=self.indices[chosen],
            similarities=self.similarities[chosen],
            rows=None if self.of_queries else rows[chosen],
        )

    @property
    def distances(self) -> Float32Matrix:
        """Distances, shape (m, k): 1 - cosine, or the Euclidean distance.

        Raises
        ------
        InputError
            For inner products, which are not distances.
        """
        if self.metric == "cosine":
            distances: Float32Matrix = np.float32(1.0) - self.similarities
            return distances
        if self.metric == "euclidean":
            return -self.similarities
        raise InputError("metric 'inner_product' defines no distance; use .similarities")

    def to_scipy(self, values: GraphValues = "similarity", *, n: int | None = None) -> Any:
        """Return the graph as a sparse matrix in CSR format: row i holds the neighbors of token i.

        Parameters
        ----------
        values : {"similarity", "distance", "connectivity"}
            What the entries are: `similarities`; `distances`, not below 0, with each row of the matrix as its
            own nearest neighbor at distance 0, as scikit-learn's ``metric="precomputed"`` expects it; or 1.
        n : int, optional
            Rows of the matrix, hence columns of the graph: needed where it is not known, which is for
            some rows or for queries of a plain array.

        Returns
        -------
        scipy.sparse.csr_array, shape (m, n), of float32
            The entries of each row stand in the order of the neighbors, nearest first, and are all stored,
            zeros included. A token without neighbors, such as a zero row by cosine, has an empty row (with
            distances, only itself).

        Raises
        ------
        InputError
            If SciPy is not installed, `values` is unknown, `n` is missing or less than a row number, or
            the metric is ``"inner_product"``, which defines no distance.

        Examples
        --------
        >>> import embgeom
        >>> neighbors = embgeom.knn([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], k=1)
        >>> neighbors.to_scipy("connectivity").toarray()
        array([[0., 1., 0.],
               [1., 0., 0.],
               [0., 1., 0.]], dtype=float32)
        """
        sparse = need("scipy.sparse", "to_scipy", extra="scipy")
        if not isinstance(values, str) or values not in get_args(GraphValues):
            known = ", ".join(get_args(GraphValues))
            raise InputError(f"values = {values!r:.40} is unknown: use one of {known}")
        indices, data = self.indices, self.similarities
        if values == "distance":
            indices, data = self._with_self()
        elif values == "connectivity":
            data = np.ones_like(data)
        present = indices >= 0
        ends = np.concatenate(([0], np.cumsum(present.sum(axis=1))))
        # scikit-learn takes numbers of 32 bits only.
        ends = ends.astype(np.int32 if ends[-1] <= np.iinfo(np.int32).max else np.int64)
        shape = (len(indices), self._columns_of_graph(n))
        return sparse.csr_array((data[present], indices[present], ends), shape=shape)

    def to_umap(self) -> tuple[IndexMatrix, Float32Matrix]:
        """Return the graph as UMAP takes it by ``precomputed_knn``, each token as its own first neighbor.

        Returns
        -------
        indices : ndarray of int32, shape (n, k + 1)
            Row numbers; -1 stands for no neighbor.
        distances : ndarray of float32, shape (n, k + 1)
            Not below 0; infinite where the index is -1.

        Raises
        ------
        InputError
            If these are not the neighbors of all rows of a matrix, or the metric is ``"inner_product"``,
            which defines no distance.

        Notes
        -----
        Pass ``n_neighbors=k + 1`` to UMAP, and the matrix itself to its ``fit``. A token without neighbors,
        such as a zero row by cosine, gets no place in the layout: its coordinates are NaN.

        Examples
        --------
        >>> import embgeom
        >>> neighbors = embgeom.knn([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], k=1)
        >>> neighbors.to_umap()[0].tolist()
        [[0, 1], [1, 0], [2, 1]]
        """
        if self.of_queries or self.rows is not None:
            raise InputError("UMAP needs the neighbors of all rows: leave out rows= and queries= of knn")
        return self._with_self()

    def _with_self(self) -> tuple[IndexMatrix, Float32Matrix]:
        """Return indices and distances with each row of the matrix as its own first neighbor."""
        indices, distances = self.indices, np.maximum(self.distances, np.float32(0.0))
        distances[indices < 0] = np.inf
        if self.of_queries:
            return indices, distances
        rows = np.arange(len(indices)) if self.rows is None else self.rows
        own = indices == rows[:, None]
        # A row that was not excluded from its own neighbors, and may stand anywhere among equal rows.
        order = np.argsort(own, axis=1, kind="stable")[:, : -1 if own.any() else None]
        indices, distances = (np.take_along_axis(values, order, axis=1) for values in (indices, distances))
        first = rows[:, None].astype(np.int32)
        zeros = np.zeros_like(distances[:, :1])
        return np.hstack((first, indices)), np.hstack((zeros, distances))

    def _columns_of_graph(self, n: int | None) -> int:
        """Return the number of rows of the matrix."""
        known = len(self.indices) if self.rows is None and not self.of_queries else None
        if self.tokens is not None:
            known = len(self.tokens)
        if n is None and known is None:
            raise InputError("how many rows the matrix has is not known here: give it as n=")
        if n is None or known is None:
            return whole_number(known if n is None else n, "n", int(self.indices.max(initial=0)) + 1)
        return whole_number(n, "n", known, known, ": the matrix has so many rows")

    def tables(self) -> list[Block]:
        """Return the quantiles of the similarity to the first and to the last neighbor."""
        nearest, farthest = self.similarities[:, 0], self.similarities[:, -1]
        quantities = {"similarity to the nearest": nearest, f"to neighbor {self.k}": farthest}
        return [repr(self), distribution(quantities)]

    def columns(self) -> Columns:
        """Return a row for each token and neighbor."""
        m, k = self.indices.shape
        tokens = np.arange(m) if self.rows is None else self.rows
        return {
            **token_columns(np.repeat(tokens, k), None if self.of_queries else self.tokens),
            "rank": np.tile(np.arange(1, k + 1), m),
            **token_columns(self.indices.ravel(), self.tokens, "neighbor"),
            "similarity": self.similarities.ravel(),
        }


def knn(
    x: npt.ArrayLike,
    k: int = 10,
    *,
    queries: npt.ArrayLike | None = None,
    rows: npt.ArrayLike | None = None,
    metric: Metric = "cosine",
    exclude_self: bool = True,
    center: bool = False,
    threads: int | None = None,
    progress: Progress = False,
) -> Neighbors:
    """Find the exact k nearest rows of `x` for each row of `x`, for some of them, or for other vectors.

    The result is a function of the input alone: members and their order are those of float64
    arithmetic, equal values are ordered by row number, and neither the number of threads nor `k`
    changes what comes first (the first 10 columns for ``k=50`` are those for ``k=10``).

    Parameters
    ----------
    x : array_like, shape (n, d), or Embeddings
        One row for each token: an array, a torch tensor or Parameter, a frame, gensim's KeyedVectors.
        float32 and C-contiguous is used as it is; anything else is converted once.
    k : int
        Neighbors to find: at most n - 1 for rows of `x` (n with ``exclude_self=False``), at most n for
        `queries`.
    queries : array_like, shape (m, d), optional
        Other vectors, whose nearest rows of `x` are wanted.
    rows : array_like of int, shape (m,), optional
        Only these rows of `x`; all of them by default.
    metric : {"cosine", "inner_product", "euclidean"}
        By cosine, zero rows neither have neighbors nor are any.
    exclude_self : bool
        Whether a row of `x` is excluded from its own neighbors. It is identified by its number: rows equal
        to it stay in.
    center : bool
        First subtract the mean of the rows of `x` from them and from `queries`: a direction that all rows
        share makes a few of them neighbors of very many. The float64 mean of the rows that are not zero is
        subtracted in float64, and the difference rounded to float32 once; zero rows stay zero. Euclidean
        distances do not depend on a shift, and are those of the rows as they are.
    threads : int, optional
        All usable cores by default.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.

    Returns
    -------
    Neighbors
        With ``indices`` (m, k) int32 and ``similarities`` (m, k) float32.

    Raises
    ------
    InputError
        If a shape, `k`, a row number or the metric does not fit, or a value is NaN or infinite (the
        message names it).

    Notes
    -----
    m n d multiply-adds in float32, half as many for all rows of `x`, whose pairs are visited once;
    about m k d in float64. Of equal rows and of equal queries only one counts. Memory besides input and
    output: at most 128 MiB for candidates, 17 MiB a thread for tiles (for more than 8 threads, 128 MiB
    in all or 13 MiB a thread, whichever is more), and some 100 bytes a row; with `center`, a copy of `x`.
    ``docs/numerics.md`` explains how float32 products lead to an exact answer.

    Examples
    --------
    >>> import embgeom
    >>> neighbors = embgeom.knn([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], k=2)
    >>> neighbors.indices.tolist()
    [[1, 2], [0, 2], [1, 0]]
    """
    matrix = as_matrix(x)
    check_metric(metric)
    if queries is not None and rows is not None:
        raise InputError("give queries (other vectors) or rows (numbers of rows of x), not both")
    exclude_self = flag(exclude_self, "exclude_self")
    k = check_k(k, len(matrix) - (1 if queries is None and exclude_self else 0))
    measure, team = getattr(core.Metric, metric), resolve_threads(threads)
    others = None if queries is None else as_matrix(queries, "queries")
    if others is not None and others.shape[1] != matrix.shape[1]:
        raise InputError(f"queries have {others.shape[1]} columns, but x has {matrix.shape[1]}")
    selection = None if rows is None else as_row_numbers(rows, len(matrix))
    if (center := flag(center, "center")) and metric != "euclidean":
        mean = mean_row(matrix, team)
        matrix = centered(matrix, mean, team)
        others = None if others is None else centered(others, mean, team)
    with reporter(progress, "knn") as report:
        if others is not None:
            indices, similarities = core.knn_of_queries(
                matrix, others, k=k, metric=measure, threads=team, progress=report
            )
        else:
            indices, similarities = core.knn_of_rows(
                matrix,
                selection,
                k=k,
                metric=measure,
                exclude_self=exclude_self,
                threads=team,
                progress=report,
            )
    return Neighbors(indices, similarities, metric, selection, others is not None, tokens_of(x), center)


def check_k(k: int, limit: int, name: str = "k") -> int:
    """Return `k` as an int, or raise an error."""
    if limit < 1:
        raise InputError(f"{name} = {k}, but x has a single row, which has no neighbors but itself")
    return whole_number(k, name, 1, limit, f": there are {limit} rows to choose neighbors from")


def resolve_neighborhoods(
    neighbors: Neighbors | npt.ArrayLike,
    rows: npt.ArrayLike | None,
    row_count: int,
    tokens: list[str] | None,
) -> tuple[IndexMatrix, RowNumbers | None]:
    """Return a list of neighbors (m, k), and the rows (m,) that it belongs to; None for all in order."""
    if isinstance(neighbors, Neighbors):
        check_same_tokens(tokens, neighbors.tokens)
        if neighbors.of_queries:
            raise InputError("neighbors of queries do not belong to rows of x: look for those of its rows")
        if rows is not None:
            raise InputError("rows goes with an array of neighbors; a Neighbors object knows its rows")
        numbers, rows = as_neighbor_list(neighbors.indices, row_count), neighbors.rows
    else:
        numbers = as_neighbor_list(neighbors, row_count)
    selection = None if rows is None else as_row_numbers(rows, row_count)
    token_count = row_count if selection is None else len(selection)
    if len(numbers) != token_count:
        whose = "x has" if selection is None else "rows names"
        raise InputError(
            f"neighbors lists {len(numbers)} tokens, but {whose} {token_count}; "
            "rows= says which rows of x a list is for"
        )
    return numbers, selection


def check_metric(metric: object) -> None:
    if not isinstance(metric, str) or metric not in get_args(Metric):
        raise InputError(f"metric = {metric!r} is unknown: use one of {', '.join(get_args(Metric))}")

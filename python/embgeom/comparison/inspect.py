"""One model by itself: its rows, and the dimensions of its neighborhoods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.progress import Progress
from embgeom._common.record import array_digest, plain, versions
from embgeom._common.result import Columns, new_figure
from embgeom._common.style import COLORS, NULL, integer_bins, legend_above
from embgeom._common.tables import Block, Table, distribution, plus_minus
from embgeom._common.threads import one_blas_thread, resolve_threads
from embgeom.comparison.comparison import near_max_notes
from embgeom.comparison.hubs import Hubs
from embgeom.comparison.hubs import K as HUBS_K
from embgeom.comparison.nulls import NORMAL_QUANTILE
from embgeom.comparison.saving import FolderResult, ModelRecord, loaded, model_tables, shown, shown_list
from embgeom.comparison.statistic import defined_mean
from embgeom.comparison.tokens import WITHOUT, TokenClasses, check_only, check_without, classify, kept_rows
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.errors import InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    dimension_neighbors,
    intrinsic_dimension,
)
from embgeom.geometry.estimators import GaussianLevel, gaussian_level
from embgeom.geometry.knn import Metric, Neighbors, knn
from embgeom.runs.cache import Cached, active
from embgeom.runs.requests import requested_part

EXTREMES = 8
_SHOWN = 10
_OUTLIER = 5.0
NEIGHBORS_OF_EXTREMES = 6


@dataclass(frozen=True, eq=False, repr=False)
class Inspection(FolderResult):
    """What one model's rows are like, as `inspect` measured it.

    Attributes
    ----------
    model : ModelRecord
        The model, without its matrix.
    classes : TokenClasses
        The classes of its V tokens, and how untrained rows were found.
    norms : ndarray of float64, shape (V,)
        Lengths of all rows.
    kept : ndarray of int64, shape (n,)
        The rows that count: those that `without` and `only` keep, and that are not zero.
    sampled : ndarray of int64, shape (m,)
        Those of them whose neighborhood was measured: all, or a sample.
    dimension : IntrinsicDimension
        Of the sampled rows.
    gaussian : GaussianLevel
        The dimension of Gaussian rows with the mean and covariance of the n rows that count, over as many
        neighbors.
    hubs : tuple of Hubs
        In-degrees of the n rows that count, in the order of `kept`: as neighbors were searched, and with
        the other choice of `center`.
    lowest, highest : Neighbors
        The sampled rows of lowest and highest dimension (their numbers in `.rows`), with their nearest
        neighbors; without those whose dimension is undefined.
    options : dict of str to object
        Every parameter.
    versions : dict of str to str
        The versions of the software that measured it.
    from_cache : list of str
        What was read from the cache instead of computed.
    """

    model: ModelRecord
    classes: TokenClasses
    norms: npt.NDArray[np.float64]
    kept: RowNumbers
    sampled: RowNumbers
    dimension: IntrinsicDimension
    gaussian: GaussianLevel
    hubs: tuple[Hubs, ...]
    lowest: Neighbors
    highest: Neighbors
    options: dict[str, Any]
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        return f"Inspection({self.model!r}, {self.dimension!r})"

    def dimension_of(self, row: int) -> int:
        """Return the intrinsic dimension of a sampled row; -1 where it is undefined."""
        found = np.flatnonzero(self.sampled == row)
        if not found.size:
            raise InputError(f"row {row} is not among the {len(self.sampled)} rows that were measured")
        return int(self.dimension.n_components[found[0]])

    @property
    def norm_outliers(self) -> RowNumbers:
        """Rows that count whose log norm is over 5 robust deviations from the median, farthest first."""
        logs = np.log(self.norms[self.kept])
        off = np.abs(logs - np.median(logs))
        # 1.4826 median deviations are one standard deviation of a normal distribution; where most norms are
        # equal, it is not less than the rounding of rows that are stored in float32.
        far = off > _OUTLIER * max(1.4826 * float(np.median(off)), float(np.finfo(np.float32).eps))
        farthest: RowNumbers = self.kept[far][np.argsort(-off[far], kind="stable")]
        return farthest

    def _facts(self) -> list[Block]:
        return [*model_tables(self.model.name, self.model), *self.classes.tables(), self._kept(), ""]

    def _results(self) -> list[Block]:
        """Return norms and dimensions, tokens at both ends, hubs, and what training hardly reached."""
        dimension = self.dimension
        quantities: dict[str, npt.NDArray[Any]] = {
            "norm": self.norms[self.kept],
            f"intrinsic dimension, of at most {dimension.max_components}": dimension.defined,
            "participation ratio": dimension.participation_ratio,
        }
        measured = "all of them" if len(self.sampled) == len(self.kept) else f"{len(self.sampled)} sampled"
        return [
            distribution(
                quantities,
                f"norms of the rows that count, and intrinsic dimensions of {measured} "
                f"({dimension.variance:.0%} of variance, {dimension.k} neighbors)",
            ),
            "participation ratio: how many directions have most of the variance, counted without a threshold",
            self._gaussian_line(),
            *near_max_notes(len(self.kept) - 1, model=dimension),
            "",
            self._extremes("tokens of lowest intrinsic dimension", self.lowest),
            self._extremes("tokens of highest intrinsic dimension", self.highest),
            *self._hubs(),
            *self._dead(),
        ]

    def _gaussian_line(self) -> str:
        found = self.gaussian
        level = plus_minus(found.mean, NORMAL_QUANTILE * found.standard_error)
        return (
            f"mean dimension: {defined_mean(self.dimension.defined):.1f}, and {level} of Gaussian rows with "
            "the same mean and covariance: only what is below that is due to other structure"
        )

    def _kept(self) -> str:
        without, only = self.options["without"], self.options["only"]
        counts = self.classes.counts()
        of_what = "no class is left out"
        if without:
            of_what = f"left out: {', '.join(f'{name} {counts[name]}' for name in without)}"
        chosen = "" if only is None else f"; only {only if isinstance(only, str) else 'the tokens named'}"
        return f"{len(self.kept)} of {len(self.norms)} rows count ({of_what}{chosen})"

    def _dead(self) -> list[Block]:
        """Return what training hardly reached although text should, and odd norms."""
        found, parts = self.classes, list[Block]()
        dead = np.flatnonzero(found.untrained & ~found.excluded(("special", "byte", "unused")))
        if len(dead):
            order = dead[np.argsort(-found.similarity_to_untrained[dead], kind="stable")][:_SHOWN]
            lines = (
                (row, shown(self.model, row), float(found.similarity_to_untrained[row]), self.norms[row])
                for row in order.tolist()
            )
            title = f"{len(dead)} untrained text tokens, most similar to untrained rows first"
            parts.append(Table(title, ("row", "token", "similarity", "norm"), lines))
        if len(odd := self.norm_outliers):
            low = np.count_nonzero(self.norms[odd] < np.median(self.norms[self.kept]))
            first = shown_list(self.model, odd[:_SHOWN])
            parts.append(
                f"norm outliers among the rows that count: {low} short, {len(odd) - low} long:\n{first}"
            )
        return parts

    def _hubs(self) -> list[Block]:
        names = {True: "mean row subtracted", False: "rows as they are"}
        rows = [
            (names[found.center], int(found.in_degree.max()), found.skewness, f"{found.top_share:.1%}")
            for found in self.hubs
        ]
        first = self.hubs[0]
        # In-degrees of lists that are drawn at random are nearly Poisson.
        random = max(float(first.in_degree.mean()), 1e-9) ** -0.5
        great = ((self.kept[i], first.in_degree[i]) for i in first.greatest(EXTREMES).tolist())
        return [
            Table(
                f"hubs: rows in the {first.k} nearest of {first.lists} rows",
                ("neighbors of", "largest in-degree", "skewness of in-degrees", "share of the top 1 %"),
                rows,
            ),
            "in-degree: in how many of the lists a row is; skewness: 0 where in-degrees lie evenly on both "
            f"sides of their mean, about {random:.2f} for random lists, above 1 where few rows are in many "
            "lists; share: how much of all lists the 1 % of rows with the "
            "largest in-degrees take",
            "",
            Table(
                f"greatest hubs, {names[first.center]}",
                ("row", "token", "in-degree"),
                ((int(row), shown(self.model, row), int(count)) for row, count in great),
            ),
        ]

    def _extremes(self, title: str, found: Neighbors) -> Table:
        rows: list[int] = [] if found.rows is None else found.rows.tolist()
        # Long tokens leave less room for their neighbors, which would be broken within quotes.
        longest = min(64, 88 - max((len(shown(self.model, row)) for row in rows), default=0))
        lines = (
            (
                row,
                self.dimension_of(row),
                shown(self.model, row),
                shown_list(self.model, [other for other in near.tolist() if other >= 0], longest),
            )
            for row, near in zip(rows, found.indices, strict=True)
        )
        return Table(title, ("row", "dimension", "token", "nearest rows"), lines)

    def _record(self) -> dict[str, Any]:
        return {
            "model": self.model.to_dict(),
            "classes": self.classes.to_dict(),
            "kept": len(self.kept),
            "gaussian": self.gaussian,
            "hubs": [
                {
                    "center": found.center,
                    "k": found.k,
                    "lists": found.lists,
                    "largest": int(found.in_degree.max()),
                    "skewness": found.skewness,
                    "top_share": found.top_share,
                }
                for found in self.hubs
            ],
            "options": self.options,
            "from_cache": self.from_cache,
        }

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each row whose neighborhood was measured."""
        rows, found = self.sampled, self.classes
        return {
            "row": rows,
            "token": [self.model.tokens[row] for row in rows.tolist()],
            "text": [found.texts[row] for row in rows.tolist()],
            "norm": self.norms[rows],
            "n_components": self.dimension.n_components,
            "participation_ratio": self.dimension.participation_ratio,
            "in_degree": self.hubs[0].in_degree[np.searchsorted(self.kept, rows)],
            "similarity_to_untrained": found.similarity_to_untrained[rows],
            **{name: getattr(found, name)[rows] for name in ("position", "case", "script", "length")},
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
        norms.hist(self.norms, bins=50, color=COLORS[0])
        norms.set_xlabel(f"norms of all {len(self.norms):,} rows")
        norms.set_ylabel("rows")
        counts = self.dimension.n_components[self.dimension.n_components >= 0]
        if counts.size:
            dimensions.hist(counts, bins=integer_bins(counts.min(), counts.max(), 40), color=COLORS[0])
        highest = self.dimension.max_components
        dimensions.axvline(highest, color=NULL, linestyle="--", label=f"highest possible: {highest}")
        level = self.gaussian.mean
        dimensions.axvline(level, color=COLORS[1], linestyle=":", label=f"Gaussian rows: {level:.1f}")
        legend_above(dimensions)
        dimensions.set_ylabel("rows")
        dimensions.set_xlabel(f"intrinsic dimensions of {len(self.sampled):,} rows")
        figure.suptitle(f"{self.model.name}, {self.model.which}", fontsize=10)
        return figure

    def _inputs(self) -> list[Any]:
        return self.model.provenance.inputs


@one_blas_thread()
def inspect(
    embeddings: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    dimension_k: int | None = None,
    dimension_sample: int | None = None,
    variance: float = 0.95,
    metric: Metric = "cosine",
    center: bool = True,
    without: Iterable[str] = WITHOUT,
    only: str | PathLike[str] | Sequence[str] | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Inspection:
    """Inspect one model's rows: classes, norms, intrinsic dimensions, hubs, and tokens at both ends of them.

    Parameters
    ----------
    embeddings : Embeddings, or str or path-like
        The model, or its name as `load` takes it.
    which : {"input", "output"}
        Embedding or unembedding, where the model is given by name.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or half of the tokens if that is fewer.
        A dimension grows with the number of neighbors, so only dimensions over equally many compare.
    dimension_sample : int, optional
        How many random rows to measure; by default all that count.
    center : bool
        Whether to search neighbors after subtracting the mean of the rows that count: without it a few hubs
        make up a large share of all neighbors.
    without, only : optional
        Which rows count, see `comparison.kept_rows`; zero rows never do.
    variance, metric, seed, threads, progress
        See `compare`.

    Returns
    -------
    Inspection

    Raises
    ------
    InputError
        If a parameter does not fit the model, or fewer than 3 rows count.
    LoadError
        If the model cannot be loaded.

    Notes
    -----
    Two searches for neighbors, with and without centering, an eigenvalue problem for each row that is
    measured, and `gaussian_level` with 200 rows; see there and `intrinsic_dimension`. Within `use_cache`,
    results that were computed before are read instead. Memory: the rows that count three times, and 8 k bytes
    for each row that is measured.

    Examples
    --------
    >>> import embgeom
    >>> inspection = embgeom.inspect("example:small", dimension_sample=100)
    >>> inspection.norms.shape, inspection.dimension.n_components.shape
    ((4096,), (100,))
    """
    team = resolve_threads(threads)
    variance, seed, center = check_variance(variance), check_seed(seed), flag(center, "center")
    without = check_without(without)
    wanted = None if dimension_sample is None else whole_number(dimension_sample, "dimension_sample", 1)
    embeddings = loaded(embeddings, which, team, progress)
    classes = classify(embeddings, threads=team)
    kept = kept_rows(classes, without=without, only=only)
    # By cosine, zero rows are not neighbors of any row, so they do not count.
    kept = kept[~embeddings.zero[kept]]
    if len(kept) < 3:
        raise InputError(
            f"{len(kept)} rows of {embeddings.name} count that are not zero; at least 3 are needed: keep "
            "more classes (--with, without=)"
        )
    k = dimension_neighbors(dimension_k, len(kept) - 1)
    m = len(kept) if wanted is None else min(wanted, len(kept))
    positions = np.sort(np.random.default_rng(seed).choice(len(kept), m, replace=False)).astype(np.int64)
    rows = positions if m < len(kept) else None
    search: dict[str, Any] = {"rows": rows, "metric": metric, "threads": team, "progress": progress}
    x = embeddings.matrix[kept]
    call = active((embeddings.name, x))
    graph = call(knn, x, max(k, min(HUBS_K, len(kept) - 1)), center=center, **search)
    other = call(knn, x, min(HUBS_K, len(kept) - 1), center=not center, **search)
    around = graph.first(k)
    dimension = call(intrinsic_dimension, x, around, variance=variance, threads=team, progress=progress)
    over = {"k": k, "variance": variance, "metric": metric, "center": center, "seed": seed}
    hubs = tuple(
        Hubs.from_neighbors(found, len(kept), center=centered)
        for found, centered in ((graph, center), (other, not center))
    )
    ends = _ends(dimension.n_components)
    lowest, highest = (_of_rows(graph, end, kept, positions) for end in ends)
    options = {
        "dimension_k": k,
        "dimension_sample": m,
        "variance": variance,
        "metric": metric,
        "center": center,
        "without": list(without),
        "only": plain(check_only(only)),
        "seed": seed,
        "threads": team,
    }
    return Inspection(
        ModelRecord.from_embeddings(embeddings),
        classes,
        embeddings.norms,
        kept,
        kept[positions],
        replace(dimension, rows=kept[positions]),
        _gaussian(call, embeddings.name, x, over, threads=team, progress=progress),
        hubs,
        lowest,
        highest,
        options,
        versions(),
        call.served,
    )


def _gaussian(
    call: Cached, name: str, x: Float32Matrix, options: dict[str, Any], **common: Any
) -> GaussianLevel:
    """Return the Gaussian level of a model, from the cache in use if it is there."""
    measure = partial(gaussian_level, x, **options, **common)
    if not call.in_use:
        return measure()
    return call.once(requested_part(gaussian_level, (x,), options, array_digest), [name], measure)


def _ends(components: npt.NDArray[np.int32]) -> tuple[RowNumbers, RowNumbers]:
    """Return the positions of the lowest and of the highest dimensions that are defined."""
    # A stable sort lets equal dimensions stand in the order of rows; -1 (undefined) is first.
    ascending = np.argsort(components, kind="stable")[np.count_nonzero(components < 0) :]
    shown_rows = min(EXTREMES, max(1, len(ascending) // 2))
    return ascending[:shown_rows], ascending[::-1][:shown_rows]


def _of_rows(graph: Neighbors, lists: RowNumbers, kept: RowNumbers, positions: RowNumbers) -> Neighbors:
    """Return the nearest of some lists, numbered as the rows of the whole matrix."""
    near = min(NEIGHBORS_OF_EXTREMES, graph.k)
    indices = graph.indices[lists, :near]
    numbered = np.where(indices >= 0, kept[indices], -1).astype(np.int32)
    similarities = graph.similarities[lists, :near].copy()
    return replace(graph, indices=numbered, similarities=similarities, rows=kept[positions[lists]])

"""What the token embeddings of two models share: options and result of `compare`, with tables and figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.checks import check_seed, flag, whole_number
from embgeom._common.result import Columns, named, new_figure
from embgeom._common.style import COLORS, FAINT, NULL, counts_bar, draw_whole_numbers, legend_above, shortened
from embgeom._common.tables import Block, Table, number, write_csv
from embgeom._common.threads import resolve_threads
from embgeom._common.writing import write_file
from embgeom.comparison.curves import Curve
from embgeom.comparison.saving import FolderResult, ModelRecord, model_tables
from embgeom.comparison.statistic import (
    Statistic,
    TokenGroup,
    chance_of_common,
    curves_table,
    defined_mean,
    groups_table,
    measures_table,
    other_sets_table,
    statistics_tables,
)
from embgeom.comparison.tokens import WITHOUT, check_only, check_without
from embgeom.embeddings.vocabulary import Match
from embgeom.geometry.dimension import DEFAULT_K, IntrinsicDimension, check_variance, widest_k
from embgeom.geometry.knn import Metric, Neighbors, check_metric
from embgeom.geometry.lle import LLE, check_reg

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class LocalGeometry:
    """The local geometry of one model's n shared tokens, of which m have a dimension (by default all).

    Attributes
    ----------
    neighbors : Neighbors
        Of each shared token, numbered among the shared tokens; shape (n, k).
    lle : LLE
        Their reconstruction weights, shape (n, k).
    dimension : IntrinsicDimension
        Of the tokens whose dimension was measured, shape (m,).
    """

    neighbors: Neighbors
    lle: LLE
    dimension: IntrinsicDimension


def draw_dimensions(figure: Any, axes: Any, sides: Sequence[LocalGeometry], words: Sequence[str]) -> None:
    """Draw the intrinsic dimensions of the same tokens on two sides against each other."""
    dimensions = np.stack([local.dimension.defined for local in sides])
    dimensions = dimensions[:, ~np.isnan(dimensions).any(axis=0)]
    if dimensions.size:
        counts_bar(figure, draw_whole_numbers(axes, *dimensions), axes)
    axes.set_xlabel(f"intrinsic dimension {words[0]}")
    axes.set_ylabel(f"intrinsic dimension {words[1]}")


@dataclass(frozen=True)
class MeasureOptions:
    """The parameters of measures of two models, in a comparison and in a study.

    Attributes
    ----------
    k : int
        Neighbors for the overlap and the reconstruction weights.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    center : bool
        Subtract the mean of the tokens that count before neighbors are searched, which removes hubs. By
        Euclidean distance it changes nothing.
    reg : float
        Regularization of the reconstruction weights, see `lle`.
    variance : float
        Share of variance that defines the intrinsic dimension.
    without : tuple of str
        Classes of tokens that do not count; see `embgeom.comparison.TokenClasses`.
    only : "words", path, tuple of str, or None
        The tokens that count, if not all: words, those that a file lists, or these.
    relabelings : int
        Random relabelings of the tokens where the null has no closed form.
    seed : int
        Seed of everything random.

    Raises
    ------
    InputError
        If a parameter is out of its range.
    """

    k: int = 10
    metric: Metric = "cosine"
    center: bool = True
    reg: float = 1e-3
    variance: float = 0.95
    without: tuple[str, ...] = WITHOUT
    only: str | tuple[str, ...] | None = None
    relabelings: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_metric(self.metric)
        whole_number(self.k, "k", 1)
        flag(self.center, "center")
        check_reg(self.reg)
        check_variance(self.variance)
        whole_number(self.relabelings, "relabelings", 20, hint=": fewer do not tell a standard deviation")
        check_seed(self.seed)
        # Lists become tuples, so that options that were saved and loaded are equal.
        object.__setattr__(self, "without", check_without(self.without))
        object.__setattr__(self, "only", check_only(self.only))


@dataclass(frozen=True)
class CompareOptions(MeasureOptions):
    """Every parameter of a comparison, with its default; `compare` takes them by the same names.

    Those of `embgeom.comparison.MeasureOptions`, and:

    Attributes
    ----------
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or half of the tokens if that is fewer.
    dimension_sample : int, optional
        Number of random tokens whose intrinsic dimension is measured; by default of all.
    panel : bool
        Measure CKA, RSA and Procrustes similarity, too.
    curves : bool
        Measure overlap and weights over several numbers of neighbors, up to 50, too, for which at least 50
        neighbors are searched.
    threads : int, optional
        Threads to use; every core available to the process by default.
    """

    dimension_k: int | None = None
    dimension_sample: int | None = None
    panel: bool = False
    curves: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        flag(self.panel, "panel")
        flag(self.curves, "curves")
        if self.dimension_sample is not None:
            whole_number(self.dimension_sample, "dimension_sample", 1)
        object.__setattr__(self, "threads", resolve_threads(self.threads))


class CompareKeywords(TypedDict, total=False):
    """The attributes of `CompareOptions` as keywords."""

    k: int
    metric: Metric
    center: bool
    reg: float
    dimension_k: int | None
    dimension_sample: int | None
    variance: float
    without: Sequence[str]
    only: str | PathLike[str] | Sequence[str] | None
    relabelings: int
    panel: bool
    curves: bool
    seed: int
    threads: int | None


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(FolderResult):
    """What two models' token embeddings share, as `compare` measured it.

    ``comparison["neighbor_overlap"]`` is a `Statistic`; `summary` shows all of them, `to_pandas` has a row
    for each shared token, and `plot` draws both.

    Attributes
    ----------
    a, b : ModelRecord
        The models, without their matrices.
    match : Match
        The tokens that both have and that count, and why others were left out. The n shared tokens are
        numbered by their position there.
    options : CompareOptions
        Every parameter.
    statistics : tuple of Statistic
        Each with its interval and its null baselines.
    groups : tuple of TokenGroup
        Which tokens agree: by class, and by tenth of the row number in the first model, which stands for
        frequency.
    cautions : tuple of str
        What stands in the way of a conclusion, in sentences.
    curves : tuple of Curve
        Overlap and weight cosine over k; empty without ``curves=True``.
    strata : ndarray of int64, shape (n,)
        The stratum of each shared token in the second null; frequency by row number in the first model.
    neighbor_overlap : ndarray of float64, shape (n,)
        Share of common neighbors of each shared token.
    weight_cosine : ndarray of float64, shape (n,)
        Cosine similarity of each shared token's reconstruction weights; NaN where it has none.
    sampled : ndarray of int64, shape (m,)
        The shared tokens whose intrinsic dimension was measured; by default all.
    local_a, local_b : LocalGeometry
        Neighbors (numbered among the shared tokens), weights and dimensions in each model.
    versions : dict of str to str
        The versions of the software that measured it.
    from_cache : list of str
        What was read from the cache instead of computed, such as ``"knn of example:small"``.
    """

    a: ModelRecord
    b: ModelRecord
    match: Match
    options: CompareOptions
    statistics: tuple[Statistic, ...]
    groups: tuple[TokenGroup, ...]
    cautions: tuple[str, ...]
    curves: tuple[Curve, ...]
    strata: RowNumbers
    neighbor_overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]
    sampled: RowNumbers
    local_a: LocalGeometry
    local_b: LocalGeometry
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        values = ", ".join(f"{statistic.name} {statistic.estimate.text()}" for statistic in self.statistics)
        return f"Comparison({self.a.name!r} and {self.b.name!r}, {len(self.match)} shared tokens: {values})"

    def __getitem__(self, name: str) -> Statistic:
        """Return a statistic by its name."""
        return named(self.statistics, name, "statistic")

    def weight_cosine_quantiles(self) -> dict[float, float]:
        """Return the 10 %, 50 % and 90 % quantiles of the weight cosines that are defined."""
        defined = self.weight_cosine[~np.isnan(self.weight_cosine)]
        values = np.quantile(defined, QUANTILES) if defined.size else np.full(len(QUANTILES), np.nan)
        return {quantile: float(value) for quantile, value in zip(QUANTILES, values, strict=True)}

    def _facts(self) -> list[Block]:
        return [*model_tables("models", self.a, self.b), self._match_table()]

    def _results(self) -> list[Block]:
        """Return statistics and what they mean, warnings, and which tokens agree."""
        return [
            *statistics_tables(self.statistics, len(self.match)),
            *(f"warning: {caution}" for caution in self.cautions),
            "",
            measures_table(self.statistics),
            *other_sets_table(self.statistics),
            *curves_table(self.curves),
            "",
            *groups_table(self.groups),
            self._weight_cosine_line(),
            self._dimension_line(),
            *near_max_notes(len(self.match) - 1, A=self.local_a.dimension, B=self.local_b.dimension),
        ]

    def _match_table(self) -> Table:
        rows = [(f"matched, {kind}", n, n) for kind, n in self.match.kind_counts().items() if n]
        for reason in self.match.left_out_a | self.match.left_out_b:
            of_a, of_b = self.match.left_out_a.get(reason, 0), self.match.left_out_b.get(reason, 0)
            if of_a or of_b:
                rows.append((f"left out: {reason}", of_a, of_b))
        return Table("tokens matched, and rows left out by reason", ("", "A", "B"), rows)

    def _weight_cosine_line(self) -> str:
        quantiles = (
            f"{share:.0%}: {number(value)}" for share, value in self.weight_cosine_quantiles().items()
        )
        undefined = np.count_nonzero(np.isnan(self.weight_cosine))
        left_out = f"; {undefined} tokens without weights are left out" if undefined else ""
        return f"weight cosine of single tokens, quantiles: {', '.join(quantiles)}{left_out}"

    def _dimension_line(self) -> str:
        a, b = self.local_a.dimension, self.local_b.dimension
        some = "all" if len(self.sampled) == len(self.match) else f"{len(self.sampled)} random"
        return (
            f"intrinsic dimension of {some} tokens: "
            f"mean {defined_mean(a.defined):.1f} in A and {defined_mean(b.defined):.1f} in B, "
            f"of at most {a.max_components} and {b.max_components} "
            f"({a.variance:.0%} of variance, {a.k} neighbors); inspect also measures that of Gaussian rows"
        )

    def _record(self) -> dict[str, Any]:
        return {
            "statistics": [
                {
                    **statistic.record(),
                    "meaning": statistic.meaning,
                    "without": {name: statistic.record(found) for name, found in statistic.without.items()},
                }
                for statistic in self.statistics
            ],
            "groups": self.groups,
            "curves": self.curves,
            "cautions": self.cautions,
            "weight_cosine_quantiles": self.weight_cosine_quantiles(),
            "match": self.match.to_dict(),
            "options": self.options,
            "models": {"a": self.a.to_dict(), "b": self.b.to_dict()},
            "from_cache": self.from_cache,
        }

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each shared token, dimensions only where measured."""
        dimensions = np.full((2, len(self.match)), None)
        for column, local in zip(dimensions, (self.local_a, self.local_b), strict=True):
            counts = local.dimension.n_components.tolist()
            column[self.sampled] = [count if count >= 0 else None for count in counts]
        return {
            "row_a": self.match.ids_a,
            "row_b": self.match.ids_b,
            "token_a": [self.a.tokens[row] for row in self.match.ids_a],
            "token_b": [self.b.tokens[row] for row in self.match.ids_b],
            "kind": self.match.kind,
            "stratum": self.strata,
            "neighbor_overlap": self.neighbor_overlap,
            "weight_cosine": self.weight_cosine,
            "n_components_a": dimensions[0].tolist(),
            "n_components_b": dimensions[1].tolist(),
        }

    def _names(self) -> tuple[str, str]:
        """Return names that tell the models apart: two matrices of one model by which they are."""
        a, b = self.a, self.b
        return (a.name, b.name) if a.name != b.name else (f"{a.name}, {a.which}", f"{b.name}, {b.which}")

    def _headings(self) -> tuple[str, str]:
        a, b = self._names()
        return (
            f"What the token embeddings of {a} and {b} share",
            f"A: {a}, B: {b}. Left: the values of the table with intervals and "
            "nulls. Middle: how many tokens have which share of neighbors in common, and by the "
            "null. Right: intrinsic dimensions in both models, darker for more tokens, dashed where both are "
            "equal.",
        )

    def statistics_columns(self) -> Columns:
        """Return a row for each statistic and set of tokens, by the names that `to_dict` has."""
        rows = [
            {"model_a": self.a.name, "model_b": self.b.name, "tokens": tokens, **statistic.record(found)}
            for statistic in self.statistics
            for tokens, found in {"": None, **statistic.without}.items()
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write the statistics as .csv: a row for each, and for each other set of tokens with another value.

        Raises
        ------
        OutputError
            If the file cannot be written, or is one that a model was read from; then nothing is left at
            `path`.
        """
        columns = self.statistics_columns()
        write_file(path, lambda partial: write_csv(partial, columns), inputs=self._inputs())

    def figure(self) -> Any:
        """Draw statistics with intervals and nulls, overlap with its null, and both dimensions."""
        figure = new_figure(11, 3.6)
        first, second, third = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.4, 1, 1)})
        self._draw_statistics(first)
        self._draw_overlap(second)
        draw_dimensions(figure, third, (self.local_a, self.local_b), ("in A", "in B"))
        a, b = shortened(self._names(), 40)
        figure.suptitle(f"{len(self.match):,} shared tokens of A: {a} and B: {b}", fontsize=10)
        return figure

    def _draw_statistics(self, axes: Any) -> None:
        """Draw a row for each statistic: its value, and both nulls by other marks, which need no color."""
        axes.axvline(0, color=FAINT, linewidth=0.8)
        for row, statistic in enumerate(self.statistics):
            found = statistic.estimate
            marks = [("value", found.value, found.interval.low, found.interval.high, "o", COLORS[0])]
            for label, null, marker in (
                ("null", found.null, "s"),
                ("null in strata", found.stratified, "^"),
            ):
                if null is not None:
                    marks.append(
                        (label, null.mean, null.mean - 2 * null.sd, null.mean + 2 * null.sd, marker, NULL)
                    )
            for label, value, low, high, marker, color in marks:
                axes.plot([low, high], [row, row], "-", color=color)
                filled = color if marker == "o" else "none"
                axes.plot(
                    value, row, marker, color=filled, markeredgecolor=color, label=None if row else label
                )
        axes.set_yticks(range(len(self.statistics)), [statistic.name for statistic in self.statistics])
        axes.invert_yaxis()
        legend_above(axes)
        axes.set_xlabel("value with its 95 % interval; nulls ± 2 sd")

    def _draw_overlap(self, axes: Any) -> None:
        """Draw how many tokens share how many neighbors, and how many would by the null."""
        k, n = self.options.k, len(self.match)
        # A bin for each possible number of common neighbors.
        axes.hist(self.neighbor_overlap, bins=(np.arange(k + 2) - 0.5) / k, color=COLORS[0], label="measured")
        axes.plot(
            np.arange(k + 1) / k, n * chance_of_common(n, k), "s--", color=NULL, mfc="none", label="null"
        )
        legend_above(axes)
        axes.set_xlabel(f"share of {k} neighbors in common")
        axes.set_ylabel("tokens")

    def _inputs(self) -> list[Any]:
        return [*self.a.provenance.inputs, *self.b.provenance.inputs]


def near_max_notes(others: int, **dimensions: IntrinsicDimension) -> list[str]:
    """Return cautions where neighbors or columns limit dimensions; a row has so many `others`."""
    fewest = min(found.k for found in dimensions.values())
    few = []
    if fewest > (widest := widest_k(others)):
        few = [
            f"Dimensions are over {fewest} neighbors, more than half of the tokens: neighborhoods are nearly "
            "the same for all tokens. A smaller --dimension-k (dimension_k=) tells them apart.",
            "",
        ]
    elif fewest == widest < DEFAULT_K:
        few = [
            f"Dimensions are over {fewest} neighbors, half of the tokens, instead of {DEFAULT_K}: compare "
            "them only with others over as many.",
            "",
        ]
    limited = {name: found for name, found in dimensions.items() if np.mean(found.near_max) > 0.5}
    if not limited:
        return few
    where = f" in {' and '.join(limited)}" if len(dimensions) > 1 else ""
    highest = " and ".join(str(found.max_components) for found in limited.values())
    more = any(found.k < others for found in limited.values())
    hint = (
        " Their order still tells tokens apart; more neighbors (dimension_k=, --dimension-k) raise the "
        "limit, but describe a wider neighborhood."
    )
    return [
        *few,
        f"Most dimensions{where} come near the highest possible, {highest}: they reflect the number of "
        f"neighbors or columns more than the data.{hint if more else ''}",
        "",
    ]

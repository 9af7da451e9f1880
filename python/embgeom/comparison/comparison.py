"""What the token embeddings of two models share: the result of `compare`, with its tables and its figure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import RowNumbers
from embgeom._common.result import Columns, named, new_figure
from embgeom._common.tables import Block, Table, number
from embgeom.comparison.saving import FolderResult, ModelRecord, model_tables
from embgeom.embeddings.vocabulary import Match
from embgeom.geometry.dimension import DEFAULT_K, IntrinsicDimension
from embgeom.geometry.knn import Metric, Neighbors
from embgeom.geometry.lle import LLE

QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class CompareOptions:
    """Every parameter of a comparison; see `compare`, whose parameters have the same names."""

    k: int
    metric: Metric
    reg: float
    dimension_k: int
    dimension_sample: int
    variance: float
    seed: int
    threads: int


@dataclass(frozen=True)
class Statistic:
    """One number on what two models share, with its value under two null baselines.

    Attributes
    ----------
    name : str
        The key in ``comparison[name]`` and in files: ``"global_similarity"``,
        ``"global_similarity_centered"``, ``"neighbor_overlap"``, ``"weight_cosine"``,
        ``"dimension_pearson"`` or ``"dimension_spearman"``.
    label, meaning : str
        How tables call and explain it.
    value : float
        For the two models as they are.
    shuffled : float
        For the same matrices with each token of the first paired with a random token of the second.
    gaussian : float
        For independent Gaussian rows of the same shapes.
    """

    name: str
    label: str
    meaning: str
    value: float
    shuffled: float
    gaussian: float


@dataclass(frozen=True, eq=False)
class LocalGeometry:
    """The local geometry of one model's n shared tokens, of which m were sampled for the dimension.

    Attributes
    ----------
    neighbors : Neighbors
        Of each shared token, numbered among the shared tokens; shape (n, k).
    lle : LLE
        Their reconstruction weights, shape (n, k).
    dimension : IntrinsicDimension
        Of the sampled tokens, shape (m,).
    """

    neighbors: Neighbors
    lle: LLE
    dimension: IntrinsicDimension


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
        The tokens that both have, and why others were left out. The n shared tokens are numbered by
        their position there.
    options : CompareOptions
        Every parameter.
    statistics : tuple of Statistic
        Each with its values under the two null baselines.
    neighbor_overlap : ndarray of float64, shape (n,)
        Share of common neighbors of each shared token.
    weight_cosine : ndarray of float64, shape (n,)
        Cosine similarity of each shared token's reconstruction weights; NaN where it has none.
    sampled : ndarray of int64, shape (m,)
        The shared tokens whose intrinsic dimension was measured.
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
    neighbor_overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]
    sampled: RowNumbers
    local_a: LocalGeometry
    local_b: LocalGeometry
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        values = ", ".join(f"{statistic.name} {statistic.value:.4f}" for statistic in self.statistics)
        return f"Comparison({self.a.name!r} and {self.b.name!r}, {len(self.match)} shared tokens: {values})"

    def __getitem__(self, name: str) -> Statistic:
        """Return a statistic by its name."""
        return named(self.statistics, name, "statistic")

    def weight_cosine_quantiles(self) -> dict[float, float]:
        """Return the 10 %, 50 % and 90 % quantiles of the weight cosines that are defined."""
        defined = self.weight_cosine[~np.isnan(self.weight_cosine)]
        values = np.quantile(defined, QUANTILES) if defined.size else np.full(len(QUANTILES), np.nan)
        return {quantile: float(value) for quantile, value in zip(QUANTILES, values, strict=True)}

    def tables(self) -> list[Block]:
        """Return the tables of `summary`: models, tokens matched, statistics with their null baselines."""
        a, b = self.local_a.dimension, self.local_b.dimension
        return [
            *model_tables("models", self.a, self.b),
            self._match_table(),
            Table(
                f"{len(self.match)} shared tokens: what the models share, with two null baselines",
                ("statistic", "what it is", "value", "shuffled", "Gaussian"),
                ((s.label, s.meaning, s.value, s.shuffled, s.gaussian) for s in self.statistics),
            ),
            self._weight_cosine_line(),
            f"intrinsic dimension of {len(self.sampled)} sampled tokens: "
            f"mean {a.n_components.mean():.1f} in A and {b.n_components.mean():.1f} in B, "
            f"of at most {a.max_components} and {b.max_components} "
            f"({a.variance:.0%} of variance, {a.k} neighbors)",
            *near_max_notes(len(self.match) - 1, A=a, B=b),
            *self._cautions(),
        ]

    def _match_table(self) -> Table:
        rows = [(f"matched, {kind}", n, n) for kind, n in self.match.kind_counts().items()]
        for reason, count in self.match.left_out_a.items():
            if count or self.match.left_out_b[reason]:
                rows.append((f"left out: {reason}", count, self.match.left_out_b[reason]))
        return Table("tokens matched, and rows left out by reason", ("", "A", "B"), rows)

    def _weight_cosine_line(self) -> str:
        quantiles = (
            f"{share:.0%}: {number(value)}" for share, value in self.weight_cosine_quantiles().items()
        )
        undefined = np.count_nonzero(np.isnan(self.weight_cosine))
        left_out = f"; {undefined} tokens without weights are left out" if undefined else ""
        return f"quantiles of the weight cosine over tokens: {', '.join(quantiles)}{left_out}"

    def _cautions(self) -> Iterator[str]:
        if np.isnan([(s.value, s.shuffled, s.gaussian) for s in self.statistics]).any():
            yield "undefined: a correlation with numbers that are all equal, or weights that no token has"
        m = len(self.sampled)
        yield f"A correlation of the dimensions of {m} tokens scatters by about {m**-0.5:.2f} by chance."

    def _record(self) -> dict[str, Any]:
        return {
            "statistics": self.statistics,
            "weight_cosine_quantiles": self.weight_cosine_quantiles(),
            "match": self.match.to_dict(),
            "options": self.options,
            "models": {"a": self.a.to_dict(), "b": self.b.to_dict()},
            "from_cache": self.from_cache,
        }

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each shared token, dimensions only where sampled."""
        dimensions = np.full((2, len(self.match)), None)
        for column, local in zip(dimensions, (self.local_a, self.local_b), strict=True):
            column[self.sampled] = local.dimension.n_components.tolist()
        return {
            "row_a": self.match.ids_a,
            "row_b": self.match.ids_b,
            "token_a": [self.a.tokens[row] for row in self.match.ids_a],
            "token_b": [self.b.tokens[row] for row in self.match.ids_b],
            "kind": self.match.kind,
            "neighbor_overlap": self.neighbor_overlap,
            "weight_cosine": self.weight_cosine,
            "n_components_a": dimensions[0].tolist(),
            "n_components_b": dimensions[1].tolist(),
        }

    def _headings(self) -> tuple[str, str]:
        return (
            f"What the token embeddings of {self.a.name} and {self.b.name} share",
            f"A: {self.a.name}, B: {self.b.name}. The values of the table with their null baselines; "
            "the shares of neighbors in common over tokens; and the intrinsic dimensions in both models.",
        )

    def figure(self) -> Any:
        """Draw statistics with their null baselines, and overlap and dimension of single tokens."""
        figure, k = new_figure(10, 3.4), self.options.k
        first, second, third = figure.subplots(1, 3, gridspec_kw={"width_ratios": (1.3, 1, 1)})
        first.axvline(0, color="0.7", linewidth=0.8)
        # Filled and open markers of different shapes differ without color, too.
        for label, marker, fill, edge in (
            ("value", "o", "C0", "C0"),
            ("shuffled", "s", "none", "0.3"),
            ("Gaussian", "^", "none", "0.3"),
        ):
            values = [getattr(statistic, label.lower()) for statistic in self.statistics]
            first.plot(values, range(len(values)), marker, color=fill, markeredgecolor=edge, label=label)
        first.set_yticks(range(len(self.statistics)), [statistic.label for statistic in self.statistics])
        first.invert_yaxis()
        first.legend(fontsize="small")
        first.set_xlabel("value with two null baselines")
        # A bin for each possible number of common neighbors.
        second.hist(self.neighbor_overlap, bins=(np.arange(k + 2) - 0.5) / k, color="C0")
        second.axvline(self["neighbor_overlap"].shuffled, color="0.3", linestyle="--", label="mean, shuffled")
        second.legend(fontsize="small")
        second.set_xlabel(f"share of {k} neighbors in common")
        second.set_ylabel("tokens")
        dimensions = self.local_a.dimension.n_components, self.local_b.dimension.n_components
        third.plot(*dimensions, "o", markersize=3, alpha=0.4)
        third.set_xlabel("intrinsic dimension in A")
        third.set_ylabel("intrinsic dimension in B")
        figure.suptitle(
            f"{len(self.match)} shared tokens of A: {self.a.name} and B: {self.b.name}", fontsize=10
        )
        return figure

    def _inputs(self) -> list[Any]:
        return [*self.a.provenance.inputs, *self.b.provenance.inputs]


def near_max_notes(others: int, **dimensions: IntrinsicDimension) -> list[str]:
    """Return cautions where neighbors or columns limit dimensions; a row has so many `others`."""
    fewest = min(found.k for found in dimensions.values())
    few = []
    if fewest == others < DEFAULT_K:
        few = [
            f"Dimensions are over {fewest} neighbors, all there are, instead of {DEFAULT_K}: neighborhoods "
            "are nearly the same for all tokens. A smaller --dimension-k (dimension_k=) tells them apart.",
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

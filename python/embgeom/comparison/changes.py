"""What a fine-tune moved: the result of `diff`, with its tables and its figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector, RowNumbers
from embgeom._common.checks import whole_number
from embgeom._common.result import Columns, new_figure
from embgeom._common.style import NULL, legend_above
from embgeom._common.tables import Block, Table, distribution
from embgeom.comparison.comparison import LocalGeometry, draw_dimensions
from embgeom.comparison.nulls import NORMAL_QUANTILE, Interval
from embgeom.comparison.relabeling import Relation, error_of_lists
from embgeom.comparison.saving import FolderResult, ModelRecord, model_tables, shown
from embgeom.comparison.statistic import rounded

STATUS = {
    "equal": "equal",
    "rounding": "equal up to rounding",
    "noise": "changed no more than by noise",
    "changed": "changed",
}
NoiseKind = Literal["none", "rounding", "bulk"]
Format = Literal["bfloat16", "float16"]
Side = Literal["base", "tuned"]
_EXTREMES = 8
_NEAR = 3
# Of tokens with noise alone, at most one in a hundred lies below this quantile.
_QUANTILE = 0.01
# Numbers that are cut off instead of rounded differ by twice as much.
_HARDLY_MORE = 2.5


@dataclass(frozen=True)
class Noise:
    """How much rows differ that no training has moved.

    Attributes
    ----------
    kind : {"none", "rounding", "bulk"}
        Not at all; by the rounding of one matrix to the format of the other; or as the bulk of rows does.
    side : {"base", "tuned"} or None
        The model whose rows, once rounded, equal those of the other.
    format : {"bfloat16", "float16"} or None
        To what they are rounded.
    level : float
        The median relative change by noise.
    threshold : float
        The relative change above which a row counts as changed; 0 where equality decides.
    """

    kind: NoiseKind
    side: Side | None
    format: Format | None
    level: float
    threshold: float


@dataclass(frozen=True)
class GroupMean:
    """The mean of a measure over a group of tokens, with its 95 % interval over tokens."""

    value: float
    interval: Interval
    n: int

    def text(self) -> str:
        """Return the mean and the half-width of its interval; ``"none"`` for no token."""
        return rounded(self.value, (self.interval.high - self.interval.low) / 2) if self.n else "none"


@dataclass(frozen=True, eq=False, repr=False)
class Diff(FolderResult):
    """What a fine-tune moved, as `diff` measured it, over n tokens of which m count.

    Attributes
    ----------
    base, tuned : ModelRecord
        The models, without their matrices.
    ids_base, ids_tuned : ndarray of int64, shape (n,)
        The rows of the tokens that both have.
    added, removed : ndarray of int64
        Rows of `tuned` whose token `base` lacks, and the reverse.
    change : ndarray of float64, shape (n,)
        The length of each row's change divided by its length before; infinite for a row that was zero.
    cosine : ndarray of float64, shape (n,)
        Between the row before and after; NaN where one is zero.
    status : ndarray of str, shape (n,)
        ``"equal"``, ``"rounding"`` (equal once one is rounded to bfloat16 or float16), ``"noise"`` (not
        above the noise's threshold) or ``"changed"``.
    common_shift : float
        The share of all squared change that is one shift of all rows.
    noise : Noise
        How much unchanged rows differ.
    counted : ndarray of int64, shape (m,)
        The positions among the n tokens whose neighborhoods were measured.
    local_base, local_tuned : LocalGeometry
        Neighbors (numbered among the m tokens), weights and dimensions before and after.
    neighbor_overlap, weight_cosine : ndarray of float64, shape (m,)
        Between before and after.
    overlap_with_noise, weight_cosine_with_noise, dimension_change_with_noise : ndarray of float64, (m,)
        The same, and the absolute difference of dimensions, for rows that differ by noise only.
    options : dict of str to object
        Every parameter.
    versions : dict of str to str
        The versions of the software that measured it.
    from_cache : list of str
        What was read from the cache instead of computed.
    """

    base: ModelRecord
    tuned: ModelRecord
    ids_base: RowNumbers
    ids_tuned: RowNumbers
    added: RowNumbers
    removed: RowNumbers
    change: Float64Vector
    cosine: Float64Vector
    status: npt.NDArray[np.str_]
    common_shift: float
    noise: Noise
    counted: RowNumbers
    local_base: LocalGeometry
    local_tuned: LocalGeometry
    neighbor_overlap: Float64Vector
    weight_cosine: Float64Vector
    overlap_with_noise: Float64Vector
    weight_cosine_with_noise: Float64Vector
    dimension_change_with_noise: Float64Vector
    options: dict[str, Any]
    versions: dict[str, str]
    from_cache: list[str]

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.status_counts().items() if count)
        return f"Diff({self.base.name!r} to {self.tuned.name!r}, {len(self.status)} tokens: {counts})"

    def status_counts(self) -> dict[str, int]:
        """Return how many rows have each status."""
        return {status: int(np.count_nonzero(self.status == status)) for status in STATUS}

    @property
    def dimension_change(self) -> Float64Vector:
        """The intrinsic dimension after minus that before, shape (m,); NaN where either is undefined."""
        return self.local_tuned.dimension.defined - self.local_base.dimension.defined

    @property
    def overlap_threshold(self) -> float:
        """The neighbor overlap below which at most 1 % of the tokens lie when rows differ by noise only."""
        return float(np.quantile(self.overlap_with_noise, _QUANTILE, method="lower"))

    @property
    def moved(self) -> npt.NDArray[np.bool_]:
        """Which of the m tokens have fewer neighbors in common than noise explains."""
        moved: npt.NDArray[np.bool_] = self.neighbor_overlap < self.overlap_threshold
        return moved

    def most_changed(self, count: int = _EXTREMES) -> RowNumbers:
        """Return the positions among the n tokens of the rows that changed most, relative to their length."""
        count = whole_number(count, "count", 0)
        changed = np.flatnonzero(self.status == "changed")
        return changed[np.argsort(-self.change[changed], kind="stable")[:count]]

    def most_moved(self, count: int = _EXTREMES) -> RowNumbers:
        """Return the positions among the m tokens of those whose neighbors changed most, beyond noise."""
        count = whole_number(count, "count", 0)
        moved = np.flatnonzero(self.moved)
        cosine = np.nan_to_num(self.weight_cosine[moved], nan=-1.0)
        return moved[np.lexsort((cosine, self.neighbor_overlap[moved]))[:count]]

    def group_means(self) -> dict[str, dict[str, GroupMean]]:
        """Return the mean of each measure over changed and unchanged rows, and with noise only.

        Intervals of overlap and weight cosine allow for tokens being one another's neighbors, as before and
        after; those of dimensions do not.
        """
        changed = self.status[self.counted] == "changed"
        everyone = np.ones(len(changed), dtype=bool)
        measures = {
            "neighbor_overlap": (self.neighbor_overlap, self.overlap_with_noise),
            "weight_cosine": (self.weight_cosine, self.weight_cosine_with_noise),
            "dimension_change": (np.abs(self.dimension_change), self.dimension_change_with_noise),
        }
        means = {}
        for name, (values, noisy) in measures.items():
            wider = self._widened.get(name, 1.0)
            means[name] = {
                "changed": _mean(values, changed, wider),
                "unchanged": _mean(values, ~changed, wider),
                "noise": _mean(noisy, everyone, wider),
            }
        return means

    @cached_property
    def _widened(self) -> dict[str, float]:
        """How far the neighbors that tokens share widen the intervals of two measures."""
        sides = self.local_base, self.local_tuned
        lists = [Relation(side.neighbors.indices, None) for side in sides]
        weights = [Relation.from_weights(side.lle.indices, side.lle.weights) for side in sides]
        return {
            "neighbor_overlap": _widening(lists, self.neighbor_overlap),
            "weight_cosine": _widening(weights, self.weight_cosine),
        }

    def _facts(self) -> list[Block]:
        return model_tables("models", self.base, self.tuned)

    def _results(self) -> list[Block]:
        """Return rows by status, measures against noise, and the tokens that changed most."""
        n, counts = len(self.status), self.status_counts()
        rows = [(label, counts[status], f"{counts[status] / n:.1%}") for status, label in STATUS.items()]
        rows += [("added", len(self.added), ""), ("removed", len(self.removed), "")]
        status = Table(f"rows of the {n} tokens that both have", ("", "rows", "share"), rows)
        if counts["equal"] == n:
            added = [f"{len(self.added)} tokens were added"] * bool(self.added.size)
            removed = [f"{len(self.removed)} were removed"] * bool(self.removed.size)
            return [
                "; ".join([f"no row differs: all {n} are equal", *added, *removed]),
                "",
                *self._extremes(),
            ]
        changed = self.status == "changed"
        of_these = np.count_nonzero(changed[self.counted])
        heads = f"{of_these} changed rows", f"{len(self.counted) - of_these} unchanged rows"
        quantities = {"relative change": self.change[changed], "cosine": self.cosine[changed]}
        k = self.options["k"]
        labels = {
            "neighbor_overlap": f"neighbor overlap, {k} neighbors",
            "weight_cosine": "weight cosine",
            "dimension_change": f"dimension, difference, {self.options['dimension_k']} neighbors",
        }
        return [
            status,
            *([*lines, ""] if (lines := list(self._noise_lines())) else []),
            *([distribution(quantities, "rows that changed")] if changed.any() else []),
            Table(
                f"neighborhoods of {len(self.counted)} tokens before and after: means with 95 % intervals",
                ("measure", *heads, "noise only"),
                ((labels[name], *(g.text() for g in of.values())) for name, of in self.group_means().items()),
            ),
            f"{np.count_nonzero(self.moved)} tokens have an overlap below {self.overlap_threshold:.2f}, "
            f"where noise alone brings at most {_QUANTILE:.0%} of the tokens",
            "",
            *self._extremes(),
        ]

    def _noise_lines(self) -> Iterator[str]:
        noise = self.noise
        if noise.kind == "rounding":
            yield (
                f"rounding {noise.side} to {noise.format} changes a row by {noise.level:.2g} of its length "
                "(median), and explains what is equal up to it"
            )
            changed = self.change[self.status == "changed"]
            if changed.size and (median := float(np.median(changed))) < _HARDLY_MORE * noise.level:
                yield (
                    f"the changed rows differ by {median:.2g} of their length (median), hardly more than "
                    "rounding changes one: they may have been rounded in another way, which noise='bulk' "
                    "(--noise bulk) takes as noise"
                )
        if noise.kind == "bulk":
            yield (
                f"the bulk of rows, taken as noise, changes by {noise.level:.2g} of its length (median); a "
                f"row counts as changed above {noise.threshold:.2g}. That holds if the fine-tune moved fewer "
                "than half of the rows"
            )
        if noise.kind == "none" and not (self.status == "equal").any():
            yield "no row is equal: the fine-tune moved every row, or noise that is not known did"
        if self.common_shift > 0.1:
            yield f"{self.common_shift:.0%} of the squared change is one shift of all rows"

    def _extremes(self) -> Iterator[Table]:
        where = {int(position): index for index, position in enumerate(self.counted)}
        overlap = {index: f"{value:.2f}" for index, value in enumerate(self.neighbor_overlap)}
        if (rows := self.most_changed()).size:
            yield Table(
                "rows that changed most",
                ("row", "token", "relative change", "cosine", "neighbor overlap"),
                (
                    (
                        str(self.ids_tuned[i]),
                        shown(self.tuned, self.ids_tuned[i]),
                        f"{self.change[i]:.4g}",
                        float(self.cosine[i]),
                        overlap[where[i]] if i in where else "not counted",
                    )
                    for i in rows.tolist()
                ),
            )
        if (moved := self.most_moved()).size:
            yield Table(
                "tokens whose neighbors changed most, beyond noise",
                ("token", "overlap", "relative change", "nearest before", "nearest after"),
                (
                    (
                        self._token(i),
                        overlap[i],
                        f"{self.change[self.counted[i]]:.4g}",
                        self._listed(self.local_base, i),
                        self._listed(self.local_tuned, i),
                    )
                    for i in moved.tolist()
                ),
            )
        change = self.dimension_change
        order = np.argsort(-np.abs(change), kind="stable")[:_EXTREMES]
        if (order := order[np.abs(change[order]) > 0]).size:
            before, after = (local.dimension.n_components for local in (self.local_base, self.local_tuned))
            yield Table(
                "tokens whose intrinsic dimension changed most",
                ("token", "before", "after", "neighbor overlap"),
                ((self._token(i), int(before[i]), int(after[i]), overlap[i]) for i in order.tolist()),
            )
        if self.added.size:
            yield Table(
                f"{len(self.added)} added tokens"
                + (", the first of them" if len(self.added) > _EXTREMES else ""),
                ("row", "token"),
                ((str(row), shown(self.tuned, row)) for row in self.added[:_EXTREMES]),
            )

    def _token(self, index: int) -> str:
        return shown(self.base, self.ids_base[self.counted[index]])

    def _listed(self, local: LocalGeometry, index: int) -> str:
        return "  ".join(self._token(near) for near in local.neighbors.indices[index][:_NEAR] if near >= 0)

    def _record(self) -> dict[str, Any]:
        return {
            "rows": {**self.status_counts(), "added": len(self.added), "removed": len(self.removed)},
            "noise": self.noise,
            "common_shift": self.common_shift,
            "means": self.group_means(),
            "overlap_threshold": self.overlap_threshold,
            "moved": int(np.count_nonzero(self.moved)),
            "options": self.options,
            "models": {"base": self.base.to_dict(), "tuned": self.tuned.to_dict()},
            "from_cache": self.from_cache,
        }

    def _headings(self) -> tuple[str, str]:
        return (
            f"What changed from {self.base.name} to {self.tuned.name}",
            "Relative changes of rows, shares of neighbors in common with those by noise only, and intrinsic "
            "dimensions before and after.",
        )

    def columns(self) -> Columns:
        """Return the table of `to_pandas`: a row for each token of both, empty where it does not count."""
        measured = {
            "neighbor_overlap": self.neighbor_overlap,
            "weight_cosine": self.weight_cosine,
            "moved": self.moved,
            "n_components_base": self.local_base.dimension.n_components,
            "n_components_tuned": self.local_tuned.dimension.n_components,
        }
        spread = {name: np.full(len(self.status), None) for name in measured}
        for name, values in measured.items():
            spread[name][self.counted] = values.tolist()
        return {
            "row_base": self.ids_base,
            "row_tuned": self.ids_tuned,
            "token": [self.tuned.tokens[row] for row in self.ids_tuned],
            "status": self.status,
            "change": self.change,
            "cosine": self.cosine,
            **{name: values.tolist() for name, values in spread.items()},
        }

    def figure(self) -> Any:
        """Draw the changes of rows, the overlaps of neighbors with those by noise, and dimensions."""
        figure, k = new_figure(10, 3.4), self.options["k"]
        first, second, third = figure.subplots(1, 3)
        finite = np.isfinite(self.change) & (self.change > 0)
        for status in ("rounding", "noise", "changed"):
            values = self.change[finite & (self.status == status)]
            if values.size:
                first.hist(np.log10(values), bins=40, alpha=0.6, label=STATUS[status])
        if first.patches:
            legend_above(first)
        first.set_xlabel("log10 of the relative change of a row")
        first.set_ylabel("rows")
        bins = (np.arange(k + 2) - 0.5) / k
        second.hist(self.neighbor_overlap, bins=bins, alpha=0.6, label="before and after")
        second.hist(self.overlap_with_noise, bins=bins, histtype="step", color=NULL, label="noise only")
        second.set_yscale("log")
        legend_above(second)
        second.set_xlabel(f"share of {k} neighbors in common")
        second.set_ylabel("tokens")
        draw_dimensions(figure, third, (self.local_base, self.local_tuned), ("before", "after"))
        figure.suptitle(f"{self.base.name} to {self.tuned.name}", fontsize=10)
        return figure

    def _inputs(self) -> Iterable[Any]:
        return [*self.base.provenance.inputs, *self.tuned.provenance.inputs]


def _widening(lists: list[Relation], values: Float64Vector) -> float:
    """Return how far shared neighbors widen the interval of a mean over all tokens; 1 without a spread."""
    known = values[~np.isnan(values)]
    alone = float(known.std(ddof=1)) / len(known) ** 0.5 if len(known) > 1 else 0.0
    return error_of_lists(lists[0], lists[1], values, None) / alone if alone > 0.0 else 1.0


def _mean(values: npt.NDArray[Any], chosen: npt.NDArray[np.bool_], wider: float) -> GroupMean:
    found = values[chosen & ~np.isnan(values)].astype(np.float64)
    value = float(found.mean()) if found.size else np.nan
    half = (
        wider * NORMAL_QUANTILE * float(found.std(ddof=1)) / len(found) ** 0.5 if len(found) > 1 else np.nan
    )
    return GroupMean(value, Interval(value - half, value + half), len(found))

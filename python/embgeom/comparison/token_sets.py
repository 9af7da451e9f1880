"""What a comparison measures on other sets of tokens than those that count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, RowNumbers
from embgeom._common.threads import in_threads, keep_going
from embgeom.comparison.comparison import CompareOptions, LocalGeometry
from embgeom.comparison.nulls import (
    Estimate,
    correlation_estimate,
    global_similarity_estimate,
    overlap_estimate,
    weight_cosine_estimate,
)
from embgeom.comparison.statistic import defined_mean, null_text
from embgeom.comparison.tokens import TokenClasses
from embgeom.embeddings.vocabulary import MIN_SHARED, Match, require_shared
from embgeom.errors import EmbgeomWarning
from embgeom.geometry.agreement import neighbor_overlap, pearson, spearman, weight_cosine
from embgeom.geometry.knn import Neighbors, knn
from embgeom.geometry.lle import LLE, lle
from embgeom.geometry.rows import centered
from embgeom.geometry.similarity import global_similarity

Mask = npt.NDArray[np.bool_]
MAKES_THE_NUMBER = 0.5
"""A class of tokens, or all strata together, that give this share of a number make it."""
SMALLEST_SHARE = 0.01
"""A smaller class of tokens is not tried: it has too few pairs to make a number."""
_PIECE = 4096


class MadeByClasses(EmbgeomWarning):
    """A number is large only because of a class of tokens; tables and pages say so, too."""


def chosen(rows: Float32Matrix, inside: Mask) -> Float32Matrix:
    """Return the rows that are inside; all of them as they are."""
    return rows if inside.all() else rows[inside]


def part_of(found: Match, counts: Mask, a: TokenClasses, b: TokenClasses, options: CompareOptions) -> Match:
    """Return the matched tokens that count, enough of them, and why others were left out of each model."""
    left_out = []
    for classes, ids, before in ((a, found.ids_a, found.left_out_a), (b, found.ids_b, found.left_out_b)):
        reasons, others = dict(before), ~counts
        for name in options.without:
            of_class = others & classes.excluded((name,))[ids]
            reasons[name] = reasons.get(name, 0) + int(of_class.sum())
            others &= ~of_class
        reasons["not counted in the other model" if options.only is None else "not chosen"] = int(
            others.sum()
        )
        left_out.append(reasons)
    part = replace(
        found,
        ids_a=found.ids_a[counts],
        ids_b=found.ids_b[counts],
        kind=found.kind[counts],
        left_out_a=left_out[0],
        left_out_b=left_out[1],
    )
    require_shared(part)
    return part


@dataclass(frozen=True, eq=False)
class Side:
    """One model: rows of all N matched tokens, and what was measured on the n of them that count.

    The neighbors, (n, k or more), their weights, and the dimensions, with the neighbors that they are over,
    belong to these, numbered among themselves; `mean` was subtracted before the search, if anything was.
    """

    rows: Float32Matrix
    mean: Float64Vector | None
    graph: Neighbors
    around: Neighbors
    local: LocalGeometry

    def searched(self, inside: Mask, threads: int | None) -> Float32Matrix:
        """Return the rows that are inside, as they are searched."""
        rows = chosen(self.rows, inside)
        return rows if self.mean is None else centered(rows, self.mean, threads)

    def measured(
        self, counts: Mask, inside: Mask, options: CompareOptions, **common: Any
    ) -> tuple[Neighbors, LLE]:
        """Return neighbors and weights of the tokens in `inside`: some of those that count, or more."""
        find = self._extended if (inside & ~counts).any() else self._restricted
        near, changed = find(counts, inside, options, **common)
        # A token that keeps its neighbors keeps its weights.
        before, old = self.local.lle, (np.cumsum(counts) - 1)[inside]
        weights, residuals, status = before.weights[old], before.residuals[old], before.status[old]
        if len(changed):
            x = chosen(self.rows, inside)
            found = lle(x, near.indices[changed], rows=changed, reg=options.reg, **common)
            weights[changed], residuals[changed] = found.weights, found.residuals
            status[changed] = found.status
        return near, LLE(weights, residuals, status, near.indices)

    def _restricted(
        self, counts: Mask, inside: Mask, options: CompareOptions, **common: Any
    ) -> tuple[Neighbors, RowNumbers]:
        """Return the first neighbors that are inside, and which tokens have others than before."""
        # The few tokens with too few of them are searched.
        within, k = inside[counts], options.k
        numbers = np.cumsum(within, dtype=np.int32) - np.int32(1)
        indices = np.full((int(within.sum()), k), -1, dtype=np.int32)
        similarities = np.full(indices.shape, np.nan, dtype=np.float32)
        members = np.flatnonzero(within)
        lacking = []
        changed = []
        for begin in range(0, len(members), _PIECE):
            near = self.graph.indices[members[begin : begin + _PIECE]]
            usable = (near >= 0) & within[near]
            first = np.argsort(~usable, axis=1, kind="stable")[:, :k]
            piece = slice(begin, begin + len(near))
            indices[piece] = numbers[np.take_along_axis(near, first, axis=1)]
            values = self.graph.similarities[members[begin : begin + _PIECE]]
            similarities[piece] = np.take_along_axis(values, first, axis=1)
            lacking.append(begin + np.flatnonzero(usable.sum(axis=1) < k))
            changed.append(begin + np.flatnonzero(~usable[:, :k].all(axis=1)))
        if len(rows := np.concatenate(lacking)):
            found = knn(
                self.searched(inside, common["threads"]), k, rows=rows, metric=options.metric, **common
            )
            indices[rows], similarities[rows] = found.indices, found.similarities
        return Neighbors(indices, similarities, options.metric), np.concatenate(changed)

    def _extended(
        self, counts: Mask, inside: Mask, options: CompareOptions, **common: Any
    ) -> tuple[Neighbors, RowNumbers]:
        """Return the neighbors among more tokens, and which tokens have others than before."""
        # Only pairs with the new ones are compared.
        k, metric = options.k, options.metric
        x, new = self.searched(inside, common["threads"]), np.flatnonzero(~counts[inside])
        old = np.flatnonzero(counts[inside])
        near = knn(x[new], min(k, len(new)), queries=x, metric=metric, **common).select(old)
        indices = np.empty((len(x), k), dtype=np.int32)
        similarities = np.empty((len(x), k), dtype=np.float32)
        known = self.graph.indices[:, :k]
        indices[old] = np.where(known >= 0, old[known], -1)
        similarities[old] = self.graph.similarities[:, :k]
        # Few lists change: those whose last neighbor is no nearer than the nearest new token.
        last = np.nan_to_num(self.graph.similarities[:, k - 1], nan=-np.inf)
        changing = np.flatnonzero(~(near.similarities[:, 0] < last))
        rows = old[changing]
        found = near.indices[changing]
        candidates = np.concatenate([indices[rows], np.where(found >= 0, new[found], -1)], axis=1)
        values = np.concatenate([similarities[rows], near.similarities[changing]], axis=1)
        values = np.nan_to_num(values, nan=-np.inf)
        ranked = np.argsort(-values, axis=1, kind="stable")
        best = ranked[:, :k]
        # Of a new and an old neighbor that are alike in float32, only a search knows the nearer.
        of_new, ordered = ranked >= k, np.take_along_axis(values, ranked, axis=1)
        alike = (ordered[:, 1:] == ordered[:, :-1]) & (of_new[:, 1:] != of_new[:, :-1])
        alike &= ordered[:, 1:] >= ordered[:, k - 1 : k]
        searched = np.sort(np.concatenate([new, rows[alike.any(axis=1)]]))
        exact = knn(x, k, rows=searched, metric=metric, **common)
        indices[rows] = np.take_along_axis(candidates, best, axis=1)
        similarities[rows] = np.take_along_axis(values, best, axis=1)
        indices[searched], similarities[searched] = exact.indices, exact.similarities
        return Neighbors(indices, similarities, metric), np.union1d(searched, rows)


@dataclass(frozen=True, eq=False)
class TokenSets:
    """Measures on other sets of the N matched tokens than the n that `counts` names, shape (N,)."""

    a: Side
    b: Side
    counts: Mask
    classes: dict[str, Mask]
    options: CompareOptions

    def sets(self) -> Iterator[tuple[str, Mask]]:
        """Yield all matched tokens if some do not count, and those that count without each class of them."""
        if not self.counts.all():
            yield "with all", np.ones_like(self.counts)
        for name, of_class in self.classes.items():
            inside = self.counts & ~of_class
            share = 1.0 - inside.sum() / self.counts.sum()
            if share >= SMALLEST_SHARE and inside.sum() >= max(MIN_SHARED, self.options.k + 1):
                yield f"without {name}", inside

    def differing(
        self, inside: Mask, estimates: Mapping[str, Estimate], **common: Any
    ) -> Iterator[tuple[str, Estimate]]:
        """Yield the measures on a set of tokens which differ from `estimates` by more than the interval."""
        sides = self.a, self.b
        rows = chosen(self.a.rows, inside), chosen(self.b.rows, inside)
        alone = common | {"progress": keep_going}
        local = in_threads(
            lambda side: side.measured(self.counts, inside, self.options, **alone), sides, common["threads"]
        )
        near, weights = [lists for lists, _ in local], [of_lists for _, of_lists in local]
        measures: dict[str, tuple[Callable[[], float], Callable[[], Estimate]]] = {
            name: (
                partial(global_similarity, *rows, center=center, **common),
                partial(global_similarity_estimate, *rows, center=center, **common),
            )
            for name, center in (("global_similarity", False), ("global_similarity_centered", True))
        }
        measures["neighbor_overlap"] = (
            lambda: float(neighbor_overlap(*near, threads=common["threads"]).mean()),
            partial(overlap_estimate, *near, threads=common["threads"]),
        )
        measures["weight_cosine"] = (
            lambda: defined_mean(weight_cosine(*weights, threads=common["threads"])),
            partial(weight_cosine_estimate, *weights, threads=common["threads"]),
        )
        # Dimensions would take a graph of their own on more tokens; on fewer, those measured stay.
        if not (inside & ~self.counts).any():
            within, rows_of = inside[self.counts], self.a.around.rows
            of_set = within if rows_of is None else within[rows_of]
            dimensions = [side.local.dimension.defined[of_set] for side in sides]
            around = self.a.around.select(of_set), self.b.around.select(of_set)
            measures["dimension_pearson"] = (
                partial(pearson, *dimensions),
                partial(correlation_estimate, *dimensions, kind="pearson", neighbors=around),
            )
            measures["dimension_spearman"] = (
                partial(spearman, *dimensions),
                partial(correlation_estimate, *dimensions, kind="spearman", neighbors=around),
            )
        for name, (value_of, estimate) in measures.items():
            if abs(value_of() - estimates[name].value) > estimates[name].half_width:
                yield name, estimate()

    def made_by_classes(self, name: str, found: Estimate, inside: Mask, **common: Any) -> str:
        """Say which classes make a global similarity over the tokens `inside`; empty where none does."""
        center, making = name == "global_similarity_centered", dict[str, Mask]()
        without, within = list[str](), list[str]()
        for class_name, of_class in self.classes.items():
            members = of_class[inside]
            if not SMALLEST_SHARE <= members.mean() <= 1.0 - MIN_SHARED / len(members):
                continue
            rows = chosen(self.a.rows, inside), chosen(self.b.rows, inside)
            others = global_similarity_estimate(*(x[~members] for x in rows), center=center, **common)
            if abs(others.value - found.value) <= found.half_width:
                continue
            labels = members.astype(np.int64)
            alone = global_similarity_estimate(*rows, center=center, strata=labels, **common).stratified
            if alone is not None and alone.mean >= MAKES_THE_NUMBER * found.value:
                making[class_name] = members
                without.append(
                    f"{others.text()} without {class_name} tokens ({members.sum()} of {len(members)})"
                )
                within.append(f"{null_text(alone)} ({class_name})")
        if not making:
            return ""
        shared = np.sum(list(making.values()), axis=0).max() > 1
        overlap = " These classes overlap." if shared else ""
        return (
            f"{name} is {found.text()}, but {' and '.join(without)}. Null with tokens relabeled only "
            f"inside and only outside the class: {', '.join(within)}.{overlap}"
        )

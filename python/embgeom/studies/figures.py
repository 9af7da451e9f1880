"""The figures of a study: everything that its report and its folder show, with captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from embgeom._common.style import shortened
from embgeom.studies.charts import Cell, Cells, against, curves, distributions, heatmap, heatmaps, small, tree
from embgeom.studies.results import PairResult, Study

_IN_CELLS = (
    "In each cell: the value, half of its 95 % interval, then mean and standard deviation of its null (all "
    "tokens relabeled), and last of its null in strata (only like tokens relabeled), if there is one."
)
# Of measures whose meanings refer to another in tables.
_MEANINGS = {
    "global_similarity_centered": (
        "correlation of the cosines of all pairs of tokens after subtracting the mean embedding"
    ),
    "dimension_spearman": "correlation of the ranks of the tokens' intrinsic dimensions",
}


@dataclass(frozen=True)
class Drawing:
    """A figure of a study: the name of its files, what to take from it, and the matplotlib Figure."""

    name: str
    caption: str
    figure: Any


def drawings(study: Study) -> list[Drawing]:
    """Return all figures of a study, as far as it measured what they show."""
    return [
        *_heatmaps(study),
        *_curves(study),
        *_dimensions(study),
        *_weights(study),
        *_norms(study),
        *_lineage(study),
        *_maps(study),
        *_states(study),
    ]


def _heatmaps(study: Study) -> Iterator[Drawing]:
    for statistic in study.pairs[0].statistics:
        cells = {(pair.a, pair.b): Cell.from_estimate(pair[statistic.name].estimate) for pair in study.pairs}
        title = statistic.label[:1].upper() + statistic.label[1:]
        meaning = _MEANINGS.get(statistic.name, statistic.meaning)
        caption = f"{title}: {meaning}, for each pair of models. {_IN_CELLS}"
        yield Drawing(f"heatmap_{statistic.name}", caption, heatmap(study.names, cells, statistic.label))


_CURVES = {
    ("neighbor_overlap", "k"): ("curves_overlap", "neighbor overlap", "Neighbor overlap"),
    ("weight_cosine", "k"): ("curves_weights", "mean weight cosine", "Mean cosine of LLE weights"),
    ("dimension_spearman", "k"): (
        "curves_dimension",
        "Spearman correlation of dimensions",
        "Rank correlation of intrinsic dimensions",
    ),
    ("dimension_spearman", "variance"): (
        "curves_variance",
        "Spearman correlation of dimensions",
        "Rank correlation of intrinsic dimensions",
    ),
}


def _curves(study: Study) -> Iterator[Drawing]:
    for (measure, over), (name, label, title) in _CURVES.items():
        found = [
            (_pair_name(study, pair), curve, number)
            for number, pair in enumerate(study.pairs)
            for curve in pair.curves
            if (curve.name, curve.over) == (measure, over) and len(curve.at) > 1
        ]
        if not found:
            continue
        along = "the number of neighbors" if over == "k" else "the share of variance that defines a dimension"
        caption = (
            f"{title} over {along}, for each pair of models. Bars are 95 % intervals; the dotted line is "
            "the highest null. A conclusion should not hang on one value."
        )
        names, drawn, numbers = zip(*found, strict=True)
        yield Drawing(name, caption, curves(names, drawn, label, numbers))


def _dimensions(study: Study) -> Iterator[Drawing]:
    dimensions = [model.geometry.dimension for model in study.models]
    values = [dimension.n_components[dimension.n_components >= 0] for dimension in dimensions]
    most = [float(dimension.max_components) for dimension in dimensions]
    yield Drawing(
        "dimension_histograms",
        f"Intrinsic dimension of the tokens of each model, over {study.dimension_k} neighbors. The dashed "
        "line is the highest possible: where most tokens come near it, neighbors or columns set the "
        "dimension. Dotted: the mean of Gaussian rows with the same mean and covariance.",
        distributions(
            shortened(study.names, 40),
            values,
            f"intrinsic dimension ({dimensions[0].variance:.0%} of variance, {study.dimension_k} neighbors)",
            levels={
                "highest possible": most,
                "Gaussian rows": [model.geometry.gaussian.mean for model in study.models],
            },
        ),
    )
    pairs, correlations = {}, {}
    for pair in study.pairs:
        tokens, ends = study.shared[pair.tokens], (pair.a, pair.b)
        both = tokens.n_components[[tokens.index_of(pair.a), tokens.index_of(pair.b)]]
        pairs[ends] = tuple(both[:, (both >= 0).all(axis=0)])
        correlations[ends] = pair["dimension_spearman"].estimate
    figure = against(study.names, pairs, correlations)
    # Where no dimension of one model is one of the other, there is no line.
    equal = "Dashed: equal dimensions. " if any(axes.lines for axes in figure.axes) else ""
    yield Drawing(
        "dimension_against_dimension",
        "Intrinsic dimension of each shared token in one model against that in another; darker: more tokens, "
        f"on a logarithmic scale. {equal}Above each panel: their Spearman correlation with half of its 95 % "
        "interval; the null is 0 with a standard deviation of 1 / sqrt(tokens - 1).",
        figure,
    )


def _weights(study: Study) -> Iterator[Drawing]:
    names = [_pair_name(study, pair) for pair in study.pairs]
    yield Drawing(
        "weight_cosine_histogram",
        "Cosine of each shared token's LLE weights in two models, for each pair: 1 where the same neighbors "
        "reconstruct it with the same weights, 0 where no neighbor is shared. Dashed: the mean of the null.",
        distributions(
            names,
            [pair.weight_cosine for pair in study.pairs],
            "cosine of a token's LLE weights",
            levels={"null, mean": [pair["weight_cosine"].estimate.null.mean for pair in study.pairs]},
        ),
    )


def _norms(study: Study) -> Iterator[Drawing]:
    norms = [model.geometry.norms for model in study.models]
    shares = ", ".join(f"{model.name} {model.geometry.mean_share:.0%}" for model in study.models)
    yield Drawing(
        "norms",
        "Lengths of the rows of each model, in units of their median. Share of the mean squared length that "
        f"the mean row has, near 0 for rows in independent directions: {shares}.",
        distributions(
            shortened(study.names, 40),
            [lengths / (np.median(lengths) or 1.0) for lengths in norms],
            "length of a row / median length",
            levels={},
        ),
    )


def _lineage(study: Study) -> Iterator[Drawing]:
    lineage = study.lineage
    if lineage is None:
        return
    measure = lineage.measure.replace("_", " ")
    null = float(np.nanmean([pair[lineage.measure].estimate.null.mean for pair in study.pairs]))
    yield Drawing(
        "lineage",
        f"Tree of the models by average linkage of 1 - {measure}. At each node but the last, which has all "
        f"models: the share of {lineage.draws:,} trees from resampled tokens that have this branch"
        f"{'' if lineage.same_tokens else ', approximate, as pairs are over different tokens'}. Models "
        "that share no more than relabeled tokens (the null) meet at the dotted line.",
        tree(
            shortened(lineage.models, 40),
            lineage.linkage,
            lineage.support.tolist(),
            1.0 - null,
            f"1 - {measure}",
        ),
    )


def _maps(study: Study) -> Iterator[Drawing]:
    r2: dict[tuple[int, int], Cell] = {}
    retrieval: dict[tuple[int, int], Cell] = {}
    for pair in study.pairs:
        for ends, map_ in zip(((pair.a, pair.b), (pair.b, pair.a)), pair.maps, strict=False):
            found, shuffled = map_.scores, map_.shuffled
            r2[ends] = Cell(found.r2, found.r2_half_width, {"shuffled": small(shuffled.r2)})
            retrieval[ends] = Cell(
                found.retrieval_at_1,
                found.retrieval_at_1_half_width,
                {"shuffled": small(shuffled.retrieval_at_1), "chance": small(1.0 / found.candidates)},
            )
    if not r2:
        return
    panels: dict[str, Cells] = {"R² on held-out tokens": r2, "retrieval@1 of held-out tokens": retrieval}
    yield Drawing(
        "map_scores",
        "How well a linear map from one model (row) to another (column) predicts held-out tokens: R², and "
        "the share of tokens whose own row is the nearest to the predicted one, each with half of its 95 % "
        "interval. Below: the same by a map fitted on shuffled tokens; for the share, last of all chance, "
        "1 / rows among which the nearest is sought.",
        heatmaps(study.names, panels),
    )


def _states(study: Study) -> Iterator[Drawing]:
    for pair in study.pairs:
        if pair.states is not None:
            yield Drawing(
                f"states_{pair.a + 1}_{pair.b + 1}",
                f"Hidden states of {study.names[pair.a]} and {study.names[pair.b]} in all pairs of layers, "
                f"on {pair.states.positions} positions of {pair.states.prompts} texts. Dot: most similar; "
                "cross: same relative depth.",
                pair.states.figure(),
            )


def _pair_name(study: Study, pair: PairResult) -> str:
    names = shortened(study.names)
    return f"{names[pair.a]} / {names[pair.b]}"

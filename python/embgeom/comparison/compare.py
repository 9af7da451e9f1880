"""The main job: measure what the token embeddings of two models share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import warn
from embgeom._common.progress import Progress, reporter
from embgeom._common.record import versions
from embgeom._common.threads import in_threads, one_blas_thread, resolve_threads
from embgeom.comparison.comparison import CompareKeywords, CompareOptions, Comparison, LocalGeometry
from embgeom.comparison.curves import KS, Curve, overlap_curve, weight_curve
from embgeom.comparison.nulls import (
    Estimate,
    correlation_estimate,
    global_similarity_estimate,
    holm,
    overlap_estimate,
    weight_cosine_estimate,
)
from embgeom.comparison.panel import panel_estimates
from embgeom.comparison.saving import ModelRecord
from embgeom.comparison.statistic import FREQUENCY, Statistic, TokenGroup, defined_mean, null_text
from embgeom.comparison.token_sets import (
    MAKES_THE_NUMBER,
    MadeByClasses,
    Mask,
    Side,
    TokenSets,
    part_of,
)
from embgeom.comparison.tokens import CLASSES, TokenClasses, classify, tokens_that_count
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.vocabulary import MIN_SHARED, Match, match, require_shared
from embgeom.errors import InputError
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import IntrinsicDimension, dimension_neighbors, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, check_k, knn
from embgeom.geometry.lle import lle
from embgeom.geometry.rows import mean_row
from embgeom.loading import load
from embgeom.runs.cache import Cached, active

if TYPE_CHECKING:
    from typing_extensions import Unpack

# Curves over more neighbors take half as long as everything else.
_MOST_NEIGHBORS = 50


@one_blas_thread()
def compare(
    a: Embeddings | str | PathLike[str],
    b: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    progress: Progress = False,
    **options: Unpack[CompareKeywords],
) -> Comparison:
    """Measure what the token embeddings of two models share, over all tokens that both have and that count.

    Every statistic comes with a 95 % interval over tokens and with two nulls, each as mean and standard
    deviation: the statistic with the tokens of the second model relabeled at random, and with tokens
    relabeled only within strata of like class, frequency and length. Frequency goes by row number in the
    first model, so that the second null changes a little where the models change places.

    Parameters
    ----------
    a, b : Embeddings, or what `load` takes
        The models.
    which : {"input", "output"}
        Embeddings or unembeddings, where models are given by name.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.
    **options
        The attributes of `CompareOptions <embgeom.comparison.CompareOptions>`, such as ``k=10`` or
        ``without=()``.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the models share too few tokens, or a parameter does not fit them.
    LoadError
        If a model cannot be loaded.

    Warns
    -----
    EmbgeomWarning
        If one class of tokens makes most of a global similarity.

    Notes
    -----
    One search for neighbors in each model, whose graph of `dimension_k` neighbors also gives the overlap and
    the weights, and one eigenvalue problem for each token and model, which dominate. Nulls and intervals are
    exact, in closed form, wherever such a form is known. Within `use_cache`, results of the two models that
    were computed before are read instead. Memory: the shared rows of both models twice more, and
    n `dimension_k` numbers for each.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Mantel (1967). The detection of disease clustering and a generalized regression approach. Cancer
    Research, 27.

    Examples
    --------
    >>> import embgeom
    >>> comparison = embgeom.compare("example:small", "example:large", dimension_sample=100)
    >>> overlap = comparison["neighbor_overlap"]
    >>> overlap.value > 50 * overlap.null.mean
    True
    >>> overlap.z > 100
    True
    """
    chosen = _chosen(cast(dict[str, Any], options))
    a, b = (
        model
        if isinstance(model, Embeddings)
        else load(model, which, threads=chosen.threads, progress=progress is True)
        for model in (a, b)
    )
    found = match(a, b)
    require_shared(found)
    # One model's tokens are encoded while the other's rows are measured.
    class_a, class_b = in_threads(partial(classify, threads=chosen.threads), (a, b), chosen.threads)
    classes = class_a, class_b
    counts = tokens_that_count(classes, (found.ids_a, found.ids_b), without=chosen.without, only=chosen.only)
    matched = part_of(found, counts, *classes, chosen)
    n = len(matched)
    # All parameters are checked before the first search, which may take minutes.
    chosen = replace(
        chosen,
        k=check_k(chosen.k, n - 1),
        dimension_k=dimension_neighbors(chosen.dimension_k, n - 1),
        dimension_sample=chosen.dimension_sample and min(chosen.dimension_sample, n),
    )
    common: dict[str, Any] = {"threads": chosen.threads, "progress": progress}
    x_a, x_b = in_threads(_rows_of, zip((a, b), matched, strict=True), chosen.threads)
    cached = active((a.name, x_a), (b.name, x_b))
    sampled = sample_of(n, chosen)
    graphs = graph_of(cached, x_a, chosen, **common), graph_of(cached, x_b, chosen, **common)
    around = tuple(
        dimension_graph(cached, x, graph, sampled, chosen, **common)
        for x, graph in zip((x_a, x_b), graphs, strict=True)
    )
    local_a, local_b = (
        local_geometry(cached, x, graph, near, chosen, **common)
        for x, graph, near in zip((x_a, x_b), graphs, around, strict=True)
    )
    strata = class_a.strata(matched.ids_a)
    measures = pair_estimates(x_a, x_b, local_a, local_b, around, strata, chosen, **common)
    sets = _token_sets((a, b), (x_a, x_b), found, counts, classes, graphs, around, (local_a, local_b), chosen)
    others = {where: dict(sets.differing(inside, measures, **common)) for where, inside in sets.sets()}
    cautions = tuple(_cautions(sets, measures, others, **common))
    overlap = neighbor_overlap(local_a.neighbors, local_b.neighbors, threads=chosen.threads)
    cosine = weight_cosine(local_a.lle, local_b.lle, threads=chosen.threads)
    return Comparison(
        a=ModelRecord.from_embeddings(a),
        b=ModelRecord.from_embeddings(b),
        match=matched,
        options=chosen,
        statistics=statistics(measures, chosen, others),
        groups=tuple(token_groups(class_a, matched.ids_a, overlap, cosine, measures)),
        cautions=cautions,
        curves=curves(x_a, x_b, *graphs, strata, chosen, **common) if chosen.curves else (),
        strata=strata,
        neighbor_overlap=overlap,
        weight_cosine=cosine,
        sampled=sampled,
        local_a=local_a,
        local_b=local_b,
        versions=versions(),
        from_cache=cached.served,
    )


def _chosen(options: dict[str, Any]) -> CompareOptions:
    known = CompareKeywords.__annotations__
    if unknown := sorted(options.keys() - known.keys()):
        raise InputError(
            f"{', '.join(unknown)}: no option of compare, which takes which, progress, {', '.join(known)}"
        )
    return CompareOptions(**options)


# Each statistic's name, which keys and files have, with its label in figures and its meaning.
STATISTICS = {
    "global_similarity": ("global similarity", "correlation of all pairwise cosines"),
    "global_similarity_centered": (
        "global similarity, centered",
        "the same after subtracting the mean embedding",
    ),
    "neighbor_overlap": ("neighbor overlap", "share of the {options.k} nearest neighbors in common"),
    "weight_cosine": ("weight cosine", "mean cosine of LLE weights over {options.k} neighbors"),
    "dimension_pearson": (
        "dimension, Pearson",
        "correlation of intrinsic dimensions, {options.dimension_k} neighbors",
    ),
    "dimension_spearman": ("dimension, Spearman", "the same for their ranks"),
    "cka": ("CKA", "debiased linear centered kernel alignment"),
    "rsa": ("RSA", "rank correlation of the cosines of pairs of a sample"),
    "procrustes": ("Procrustes similarity", "agreement after the best rotation, scale and shift"),
}


def sample_of(n: int, options: CompareOptions) -> RowNumbers:
    """Return the tokens whose dimension is measured."""
    return np.arange(n) if (count := options.dimension_sample) is None else drawn(n, count, options.seed)


def drawn(n: int, count: int, seed: int) -> RowNumbers:
    """Return some of n tokens, in ascending order."""
    chosen = np.random.default_rng(seed).choice(n, min(count, n), replace=False)
    return np.sort(chosen).astype(np.int64)


def graph_of(call: Cached, x: Float32Matrix, options: CompareOptions, **common: Any) -> Neighbors:
    """Return the neighbors from which all measures take their first ones."""
    wide = max(options.k, min(_MOST_NEIGHBORS, len(x) - 1) if options.curves else 0)
    # A sample of dimensions needs only the neighbors of the sample.
    if options.dimension_sample is None:
        wide = max(wide, options.dimension_k or 0)
    return call(knn, x, wide, metric=options.metric, center=options.center, **common)


def dimension_graph(
    call: Cached,
    x: Float32Matrix,
    graph: Neighbors,
    sampled: RowNumbers,
    options: CompareOptions,
    **common: Any,
) -> Neighbors:
    """Return the neighbors that dimensions are over, of the tokens whose dimension is measured."""
    k = options.dimension_k or 0
    if graph.k < k:
        search: dict[str, Any] = {"metric": options.metric, "center": options.center, **common}
        return call(knn, x, k, rows=sampled, **search)
    near = graph.first(k)
    return near if options.dimension_sample is None else near.select(sampled)


def local_geometry(
    call: Cached,
    x: Float32Matrix,
    graph: Neighbors,
    near: Neighbors,
    options: CompareOptions,
    **common: Any,
) -> LocalGeometry:
    neighbors = graph.first(options.k)
    weights = call(lle, x, neighbors, reg=options.reg, **common)
    return LocalGeometry(neighbors, weights, dimension_of(call, x, near, options, **common))


def dimension_of(
    call: Cached,
    x: Float32Matrix,
    near: Neighbors,
    options: CompareOptions,
    *,
    measure: Callable[..., IntrinsicDimension] = intrinsic_dimension,
    **common: Any,
) -> IntrinsicDimension:
    """Return dimensions, which are kept as those of a search of their own; `measure` takes the graph."""
    around: dict[str, Any] = {
        "k": options.dimension_k,
        "metric": options.metric,
        "center": options.center,
        "variance": options.variance,
        **common,
    }
    if options.dimension_sample is not None:
        around["rows"] = near.rows
    found = call.find(intrinsic_dimension, x, **around)
    if found is None:
        found = measure(x, near, variance=options.variance, **common)
        call.keep(found, intrinsic_dimension, x, **around)
    return found


def pair_estimates(
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    local_a: LocalGeometry,
    local_b: LocalGeometry,
    around: tuple[Neighbors, ...],
    strata: RowNumbers | None,
    options: CompareOptions,
    **common: Any,
) -> dict[str, Estimate]:
    """Return every measure of two models by its name; dimensions are over the neighbors `around`."""
    found = {
        name: global_similarity_estimate(x_a, x_b, center=center, strata=strata, **common)
        for name, center in (("global_similarity", False), ("global_similarity_centered", True))
    }
    found |= _local_estimates(local_a, local_b, around, strata, options, common["progress"])
    if options.panel:
        drawn: dict[str, Any] = {
            "draws": options.relabelings,
            "seed": options.seed,
            "threads": options.threads,
        }
        found |= panel_estimates(x_a, x_b, strata=strata, **drawn, progress=common["progress"])
    return found


def _local_estimates(
    a: LocalGeometry,
    b: LocalGeometry,
    around: tuple[Neighbors, ...],
    strata: RowNumbers | None,
    options: CompareOptions,
    progress: Progress,
) -> dict[str, Estimate]:
    """Return the measures of lists and dimensions, which share threads: most of their time takes NumPy."""
    threads = resolve_threads(options.threads)
    drawn: dict[str, Any] = {
        "strata": strata,
        "draws": options.relabelings,
        "seed": options.seed,
        "threads": max(1, threads // 2),
    }
    measured = a.dimension.rows
    dimensions: dict[str, Any] = {
        "strata": strata if strata is None or measured is None else strata[measured],
        "neighbors": (around[0], around[1]),
    }
    correlate = partial(correlation_estimate, a.dimension.defined, b.dimension.defined, **dimensions)
    measures: dict[str, Callable[[], Estimate]] = {
        "neighbor_overlap": partial(overlap_estimate, a.neighbors, b.neighbors, **drawn),
        "weight_cosine": partial(weight_cosine_estimate, a.lle, b.lle, **drawn),
        "dimension_pearson": partial(correlate, kind="pearson"),
        "dimension_spearman": partial(correlate, kind="spearman"),
    }
    with reporter(progress, "lists and dimensions") as report:
        found = in_threads(lambda measure: measure(), measures.values(), threads, report)
    return dict(zip(measures, found, strict=True))


def curves(
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    graph_a: Neighbors,
    graph_b: Neighbors,
    strata: RowNumbers,
    options: CompareOptions,
    **common: Any,
) -> tuple[Curve, ...]:
    """Return overlap and weight cosine over k, up to 50 neighbors."""
    few = [k for k in KS if k <= min(_MOST_NEIGHBORS, graph_a.k)]
    weights = (
        [lle(x, graph.first(k), reg=options.reg, **common) for k in few]
        for x, graph in ((x_a, graph_a), (x_b, graph_b))
    )
    drawn: dict[str, Any] = {"strata": strata, "draws": options.relabelings, "seed": options.seed}
    drawn |= common
    return overlap_curve(graph_a, graph_b, few, **drawn), weight_curve(*weights, **drawn)


def statistics(
    found: Mapping[str, Estimate],
    options: CompareOptions,
    others: Mapping[str, Mapping[str, Estimate]] | None = None,
) -> tuple[Statistic, ...]:
    """Return estimates as statistics, with their values on other sets of tokens, by the names of these."""
    adjusted = holm([estimate.p for estimate in found.values()])
    return tuple(
        Statistic(
            name,
            STATISTICS[name][0],
            STATISTICS[name][1].format(options=options),
            estimate,
            float(p),
            {where: values[name] for where, values in (others or {}).items() if name in values},
        )
        for (name, estimate), p in zip(found.items(), adjusted, strict=True)
    )


def _rows_of(side: tuple[Embeddings, RowNumbers]) -> Float32Matrix:
    """Return some rows of a model; most of the time takes the memory that they are copied into."""
    model, rows = side
    return model.matrix[rows]


def _token_sets(
    models: tuple[Embeddings, Embeddings],
    counted: tuple[Float32Matrix, Float32Matrix],
    found: Match,
    counts: Mask,
    classes: tuple[TokenClasses, TokenClasses],
    graphs: tuple[Neighbors, Neighbors],
    around: tuple[Neighbors, ...],
    local: tuple[LocalGeometry, LocalGeometry],
    options: CompareOptions,
) -> TokenSets:
    def side(number: int) -> Side:
        x, mean = counted[number], None
        rows = x if counts.all() else _rows_of((models[number], tuple(found)[number]))
        if options.center and options.metric != "euclidean":
            mean = mean_row(x, options.threads)
        return Side(rows, mean, graphs[number], around[number], local[number])

    sides = in_threads(side, (0, 1), options.threads)
    of_class = {
        name: np.logical_or(*(each.excluded((name,))[ids] for each, ids in zip(classes, found, strict=True)))
        for name in CLASSES
    }
    return TokenSets(sides[0], sides[1], counts, of_class, options)


def _cautions(
    sets: TokenSets,
    estimates: dict[str, Estimate],
    others: dict[str, dict[str, Estimate]],
    **common: Any,
) -> Iterator[str]:
    """Yield what stands in the way of a conclusion: a class of tokens that makes a number, strata that do."""
    for name in ("global_similarity", "global_similarity_centered"):
        found, everything = estimates[name], others.get("with all", {}).get(name)
        if made := sets.made_by_classes(name, found, sets.counts, **common):
            warn(made, MadeByClasses)
            yield made
        if everything is not None:
            every = np.ones_like(sets.counts)
            if made := sets.made_by_classes(name, everything, every, **common):
                yield f"with all {len(every)} matched tokens, {made}"
        within = found.stratified
        if within is not None and found.interval.low > 0.0 and within.mean >= MAKES_THE_NUMBER * found.value:
            yield (
                f"class, length and frequency of tokens make most of {name}: value {found.text()}, null in "
                f"strata {null_text(within)}"
            )
    if undefined := [name for name, estimate in estimates.items() if np.isnan(estimate.value)]:
        yield f"undefined: {', '.join(undefined)} (constant values, or no token has weights)"


def token_groups(
    classes: TokenClasses,
    ids: RowNumbers,
    overlap: npt.NDArray[np.float64],
    cosine: npt.NDArray[np.float64],
    measures: Mapping[str, Estimate],
) -> Iterator[TokenGroup]:
    """Yield the agreement of the tokens of each class, and of each tenth by row number."""
    # Neighbors depend on one another, in a group as among all tokens: intervals are wider than sd / sqrt(n).
    widened = {
        name: measures[name].half_width / _standard_error(values)
        for name, values in (("neighbor_overlap", overlap), ("weight_cosine", cosine))
    }
    tenth = np.arange(len(ids)) * 10 // len(ids)
    kinds: dict[str, npt.NDArray[Any]] = {
        "all": np.full(len(ids), "tokens"),
        "space": classes.position[ids],
        "letters": classes.case[ids],
        "script": classes.script[ids],
    }
    for name in CLASSES:
        kinds[name] = np.where(classes.excluded((name,))[ids], "yes", "")
    kinds[FREQUENCY] = np.array([f"tenth {i + 1}" for i in range(10)])[tenth]
    for kind, labels in kinds.items():
        for name in filter(None, dict.fromkeys(labels.tolist())):
            of_group = labels == name
            if np.count_nonzero(of_group) < MIN_SHARED:
                continue
            shares, cosines = overlap[of_group], cosine[of_group]
            yield TokenGroup(
                kind,
                str(name),
                len(shares),
                float(shares.mean()),
                widened["neighbor_overlap"] * _standard_error(shares),
                defined_mean(cosines),
                widened["weight_cosine"] * _standard_error(cosines),
                float((shares == 0).mean()),
            )


def _standard_error(values: npt.NDArray[np.float64]) -> float:
    """Return that of the mean of independent numbers, of which some may be undefined; NaN for equal ones."""
    defined = values[~np.isnan(values)]
    return float(defined.std(ddof=1)) / len(defined) ** 0.5 or np.nan if len(defined) > 1 else np.nan

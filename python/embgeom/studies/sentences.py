"""What a study found, in sentences with their numbers: how sure each is, its null, and what it means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embgeom._common.tables import number
from embgeom.comparison.nulls import holm
from embgeom.comparison.statistic import READING, SIGNIFICANCE, Statistic, null_text, short_p, short_z
from embgeom.studies.lineage import Lineage
from embgeom.studies.results import PairResult, Study

# What a value of these measures means; the others stand in the table of pairs.
_MEANINGS = {
    "global_similarity_centered": (
        "Global geometry",
        "How alike the cosines of all pairs of tokens are, after subtracting the mean embedding "
        "(1: equal up to scale and shift; 0: unrelated).",
    ),
    "neighbor_overlap": ("Nearest neighbors", "Which share of a token's {k} nearest neighbors is the same."),
    "weight_cosine": (
        "Local linear weights",
        "How alike the weights are that reconstruct a token from its {k} nearest neighbors "
        "(1: the same weights; 0: no neighbor in common).",
    ),
    "dimension_spearman": (
        "Intrinsic dimension",
        "Whether tokens in low-dimensional neighborhoods of one model are so in the other, as a rank "
        "correlation (1: the same order; 0: unrelated).",
    ),
}
_SURE_BRANCH = 0.95
_NAMED_PAIRS = 5


def reading_guide(study: Study) -> str:
    """Return how to read the numbers of a report."""
    draws = {statistic.null.draws for pair in study.pairs for statistic in pair.statistics} - {0}
    drawn = f" Nulls without a closed form are from {max(draws)} relabelings." if draws else ""
    reading = " ".join(READING).format(measures="all measures and pairs of this report")
    significant = f"“Significant” means p < {SIGNIFICANCE} and an interval above the null."
    return f"How to read the numbers. {reading} {significant}{drawn}"


def summary(study: Study) -> Iterator[tuple[str, str]]:
    """Yield the summary: what each paragraph is about, and the paragraph."""
    yield "Tokens", _tokens(study)
    for name, (title, meaning) in _MEANINGS.items():
        found = [(pair, each) for pair in study.pairs for each in pair.statistics if each.name == name]
        if found:
            yield title, f"{meaning.format(k=study.options.k)} {_values(study, found)}"
    yield from _dimensions(study)
    yield from _coherence(study)
    yield from _maps(study)
    if study.lineage is not None:
        yield "Lineage", _lineage(study.lineage)


def pair_name(study: Study, pair: PairResult) -> str:
    return f"{study.models[pair.a].name} and {study.models[pair.b].name}"


def _tokens(study: Study) -> str:
    counts = sorted(len(tokens) for tokens in study.shared)
    models = ", ".join(
        f"{model.name} ({len(model.rows):,} of {model.record.shape[0]:,} rows count)"
        for model in study.models
    )
    if len(study.shared) == 1:
        n = f"on the {counts[0]:,} tokens that all of them share"
    else:
        n = f"each pair on the tokens that the two share ({counts[0]:,} to {counts[-1]:,})"
    return f"{len(study.models)} models were compared {n}: {models}."


def _values(study: Study, found: Sequence[tuple[PairResult, Statistic]]) -> str:
    defined = sorted((each for each in found if not np.isnan(each[1].value)), key=lambda each: each[1].value)
    if not defined:
        return "It is undefined for every pair, as where all numbers are equal."
    (low, lowest), (high, highest) = defined[0], defined[-1]
    if len(defined) == 1:
        parts = [f"{pair_name(study, high)}: {_value(highest)}."]
    else:
        parts = [
            f"It is highest for {pair_name(study, high)}, {_value(highest)}, and lowest for "
            f"{pair_name(study, low)}, {_value(lowest)}."
        ]
    parts += [_significance(study, defined), *_strata(study, defined)]
    if undefined := len(found) - len(defined):
        parts.append(f"It is undefined for {undefined} of {len(found)} pairs.")
    return " ".join(parts)


def _value(statistic: Statistic) -> str:
    estimate, p = statistic.estimate, _p(statistic.p_adjusted)
    return f"{estimate.text()} (null {null_text(estimate.null)}, z = {short_z(estimate.z)}, p {p})"


def _p(p: float) -> str:
    text = short_p(p)
    return f"< {text[1:]}" if text.startswith("<") else f"= {text}"


def _significance(study: Study, found: Sequence[tuple[PairResult, Statistic]]) -> str:
    unsure = [pair for pair, each in found if not each.p_adjusted < SIGNIFICANCE]
    below = [pair for pair, each in found if each.p_adjusted < SIGNIFICANCE and not each.is_above_null]
    above = len(found) - len(unsure) - len(below)
    if len(found) == 1:
        if unsure:
            return "That is not significant."
        return f"That is significantly {'below' if below else 'above'} the null."
    count = "All pairs are" if above == len(found) else f"{above} of {len(found)} pairs are"
    parts = [f"{count} significantly above the null"]
    for pairs, what in ((below, "significantly below it"), (unsure, "not significant")):
        if pairs:
            names = "; ".join(pair_name(study, pair) for pair in pairs[:_NAMED_PAIRS])
            more = f" and {len(pairs) - _NAMED_PAIRS} others" if len(pairs) > _NAMED_PAIRS else ""
            parts.append(f"{what}: {names}{more}")
    return "; ".join(parts) + "."


def _strata(study: Study, found: Sequence[tuple[PairResult, Statistic]]) -> Iterator[str]:
    """Say how much of the values the classes and frequencies of tokens explain."""
    above = [each for _, each in found if each.is_above_null and each.stratified is not None]
    if not above:
        return
    middle = float(np.median([each.share_of_strata for each in above]))
    unsure = sum(not each.is_above_strata for each in above)
    text = (
        "Tokens relabeled only among those of the same class, length and similar frequency still give "
        f"{middle:.0%} of what is above the null{' (median of pairs)' if len(above) > 1 else ''}"
    )
    if unsure:
        pairs = "" if len(found) == 1 else f" for {unsure} of {len(above)} pairs"
        text += f";{pairs} the value is no more than class and frequency give (z not above 2)"
    yield f"{text}."


def _dimensions(study: Study) -> Iterator[tuple[str, str]]:
    parts = []
    for model in study.models:
        dimension = model.geometry.dimension
        known = dimension.n_components[dimension.n_components >= 0]
        if len(known):
            near = float(np.mean(dimension.near_max))
            limit = f"; {near:.0%} of tokens come near it" if near > 0.1 else ""
            gaussian = f"Gaussian rows of the same covariance: {model.geometry.levels()['gaussian']}"
            most = f"of at most {dimension.max_components}{limit}"
            parts.append(f"{model.name} {known.mean():.1f} {most} ({gaussian})")
    k, variance = study.dimension_k, study.options.variance
    if parts:
        yield (
            "Dimension of each model",
            f"The mean intrinsic dimension ({variance:.0%} of the variance of the {k} nearest neighbors) is: "
            f"{'; '.join(parts)}. It depends on the number of neighbors, and compares only at the same one.",
        )


def _coherence(study: Study) -> Iterator[tuple[str, str]]:
    parts = []
    known = [model.coherence for model in study.models if model.coherence is not None]
    p_values = iter(holm([each.spearman.p for found in known for each in found.statistics]).tolist())
    for model in study.models:
        if model.coherence is not None:
            p = {each.name: next(p_values) for each in model.coherence.statistics}["lexicographer_file"]
            found = model.coherence["lexicographer_file"]
            estimate = found.spearman
            unsure = "" if p < SIGNIFICANCE else ", not significant"
            parts.append(
                f"{model.name} {estimate.text()} (null {null_text(estimate.null)}, "
                f"z = {short_z(estimate.z)}, p {_p(p)}{unsure}; given row number and norm "
                f"{found.given_frequency_and_norm:.2f}; nouns alone {found.nouns.text()})"
            )
    if parts:
        yield (
            "Coherence",
            "Whether words of low dimension have neighbors of their kind: the rank correlation of dimension "
            "with the share of neighbors in a word's WordNet lexicographer file minus its base rate "
            f"(negative: yes; 0: unrelated): {'; '.join(parts)}. p is corrected for all measures of "
            "coherence of all models (Holm).",
        )


def _maps(study: Study) -> Iterator[tuple[str, str]]:
    found = [
        (one, other, scores)
        for pair in study.pairs
        for (one, other), scores in zip(((pair.a, pair.b), (pair.b, pair.a)), pair.maps, strict=False)
        if not np.isnan(scores.scores.r2)
    ]
    if not found:
        return
    one, other, best = max(found, key=lambda each: each[2].scores.r2)
    r2 = [each[2].scores.r2 for each in found]
    worst = f" (lowest of all ordered pairs: {number(min(r2), 3)})" if len(found) > 1 else ""
    scores = best.scores
    (r_squared, _, nearest, _), (by_chance, _, nearest_by_chance, _) = scores.cells(), best.shuffled.cells()
    yield (
        "Linear maps",
        f"A linear map predicts held-out tokens best from {study.models[one].name} to "
        f"{study.models[other].name}: R² {r_squared}{worst}, and for a share of {nearest} of "
        f"{scores.tokens:,} tokens the right one of {scores.candidates:,} rows is nearest. A map of shuffled "
        f"tokens reaches R² {by_chance} and {nearest_by_chance}.",
    )


def _lineage(tree: Lineage) -> str:
    sure = [
        (branch, 1.0 - height, support)
        for branch, height, support in zip(
            tree.branches()[:-1], tree.linkage[:-1, 2].tolist(), tree.support[:-1].tolist(), strict=True
        )
        if support >= _SURE_BRANCH
    ]
    if not sure:
        return (
            f"No branch of the tree of models has {_SURE_BRANCH:.0%} bootstrap support: it shows no lineage."
        )
    approximate = "" if tree.same_tokens else "approximate "
    names = "; ".join(
        f"{' + '.join(tree.models[i] for i in branch)} (similarity {similarity:.3f}, support {support:.0%})"
        for branch, similarity, support in sure
    )
    return (
        f"In the tree of models by {tree.measure.replace('_', ' ')}, these branches have at least "
        f"{_SURE_BRANCH:.0%} {approximate}support from {tree.draws} resamples of tokens: {names}. The tree "
        "shows similarity, which training data and tokenizers cause, too; it proves no descent."
    )

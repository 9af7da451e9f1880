"""Fitting on paired rows, and how well the map predicts the rows of tokens that it was not fitted on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embgeom._common.arrays import Float64Matrix, Float64Vector, RowNumbers
from embgeom._common.progress import ProgressCallable
from embgeom._common.record import array_digest, plain
from embgeom._common.result import Result
from embgeom._common.tables import Block, Table, plus_minus
from embgeom._common.threads import one_blas_thread
from embgeom.comparison.nulls import NORMAL_QUANTILE
from embgeom.emb2emb.methods import LowRank, Method, gather, ridge_regression
from embgeom.emb2emb.pairs import Pairs, PreparedRows, draw
from embgeom.emb2emb.transfer import FittedMap, predict
from embgeom.errors import InputError
from embgeom.geometry.knn import knn
from embgeom.runs.cache import active
from embgeom.runs.requests import Request, code_key

MOST_SCORED = 4096
MOST_CANDIDATES = 16384
NEAREST = 10
COLUMNS = ("R2", "cosine", "retrieval@1", "@10")

Predict = Callable[[Float64Matrix], Float64Matrix]


@dataclass(frozen=True, eq=False)
class FitResult:
    """A map, its scores, those of a control, and what is known of the fit."""

    fitted: FittedMap
    scores: Scores | None
    shuffled: Scores | None
    details: dict[str, Any]


@dataclass(frozen=True)
class Scores(Result):
    """What a map achieves on held-out tokens.

    All of it is measured on deviations from one vector, the mean target row of the tokens fitted on:
    embeddings share a large mean, by which all of them lie close to each other.

    Attributes
    ----------
    tokens : int
        How many tokens were scored: those held out, or 4,096 of them drawn by the seed.
    r2 : float
        1 - squared error / squared deviation: 1 for a perfect fit, 0 for predicting the mean, negative for a
        map that misleads. NaN where no true row deviates.
    cosine : float
        Mean cosine of predicted and true deviations.
    retrieval_at_1, retrieval_at_10 : float
        The share of tokens whose true row is the nearest, or among the ten nearest, to the predicted one by
        cosine of the deviations.
    candidates : int
        Among how many rows: the scored tokens' and those of tokens fitted on, at most 16,384.
    r2_half_width, cosine_half_width, retrieval_at_1_half_width, retrieval_at_10_half_width : float
        Half of the 95 % interval of each over tokens, the map being what it is. Those of a map of hidden
        states are over texts, whose positions depend on one another. NaN for one token or text.
    """

    tokens: int
    r2: float
    cosine: float
    retrieval_at_1: float
    retrieval_at_10: float
    candidates: int
    r2_half_width: float
    cosine_half_width: float
    retrieval_at_1_half_width: float
    retrieval_at_10_half_width: float

    def __post_init__(self) -> None:
        # Beyond this bound nothing is counted, and a number may be too large for a float.
        if not all(abs(value) <= 2**53 for value in vars(self).values() if value == value):  # noqa: PLR0124
            raise InputError(f"{self!r:.200} holds a number that is not a score")

    def cells(self) -> tuple[str, ...]:
        """Return what tables show under `COLUMNS`."""
        return (
            plus_minus(self.r2, self.r2_half_width, 4),
            plus_minus(self.cosine, self.cosine_half_width, 4),
            plus_minus(self.retrieval_at_1, self.retrieval_at_1_half_width, 4),
            plus_minus(self.retrieval_at_10, self.retrieval_at_10_half_width, 4),
        )

    def tables(self) -> list[Block]:
        """Return the scores as one row."""
        return [Table(f"{self.tokens} tokens among {self.candidates} rows", COLUMNS, [self.cells()])]


def score(
    predict: Predict,
    source: PreparedRows,
    target: PreparedRows,
    others: PreparedRows,
    mean: Float64Matrix,
    *,
    groups: RowNumbers | None,
    threads: int,
) -> Scores:
    """Score predicted target rows, minus a mean, among the true ones and those of other tokens.

    Rows of one group, such as the positions of a text, may err together; by default each is one.
    """
    everything = slice(0, len(target))
    predicted = predict(source.take(everything)) - mean
    true = target.take(everything) - mean
    around, error = np.square(true).sum(axis=1), np.square(true - predicted).sum(axis=1)
    total, count = float(around.sum()), len(true)
    unexplained = float(error.sum()) / total if total > 0 else math.nan
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true, axis=1)
    products = (predicted * true).sum(axis=1)
    cosine = np.divide(products, lengths, out=np.zeros(count), where=lengths > 0)
    # From here on float32 does, and together with the candidates float64 would be the largest part of a fit.
    queries = predicted.astype(np.float32)
    del predicted, true
    candidates = np.empty((len(target) + len(others), len(mean)), dtype=np.float32)
    target.deviations(mean, out=candidates[: len(target)])
    others.deviations(mean, out=candidates[len(target) :])
    nearest = knn(candidates, min(NEAREST, len(candidates)), queries=queries, threads=threads).indices
    hits = nearest == np.arange(len(queries))[:, None]
    first, any_of_ten = hits[:, 0].astype(np.float64), hits.any(axis=1).astype(np.float64)
    of_group = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    return Scores(
        tokens=count,
        r2=1 - unexplained,
        cosine=float(cosine.mean()),
        retrieval_at_1=float(first.mean()),
        retrieval_at_10=float(any_of_ten.mean()),
        candidates=len(candidates),
        # To first order a token moves the ratio of two sums by what it adds to the first beyond its share.
        r2_half_width=NORMAL_QUANTILE
        * _standard_error((error - unexplained * around) / (total or 1), of_group),
        cosine_half_width=NORMAL_QUANTILE * _standard_error((cosine - cosine.mean()) / count, of_group),
        retrieval_at_1_half_width=_share_half_width(first, of_group),
        retrieval_at_10_half_width=_share_half_width(any_of_ten, of_group),
    )


def _standard_error(terms: Float64Vector, of_group: RowNumbers) -> float:
    """Return the standard error of a sum of terms, which is 0, of groups that are independent."""
    sums = np.bincount(of_group, terms)
    return math.sqrt(len(sums) / (len(sums) - 1.0) * float(sums @ sums)) if len(sums) > 1 else math.nan


def _share_half_width(hits: Float64Vector, of_group: RowNumbers) -> float:
    """Return half of Wilson's 95 % interval of a share, which is not 0 where all or none are hits."""
    share, groups, z = float(hits.mean()), int(of_group.max()) + 1, NORMAL_QUANTILE
    if groups < 2:
        return math.nan
    error = _standard_error((hits - share) / len(hits), of_group)
    # How many independent tokens would err as much.
    n = min(share * (1.0 - share) / error**2, float(len(hits))) if error > 0.0 else float(groups)
    return z / (1.0 + z * z / n) * math.sqrt(share * (1.0 - share) / n + (z / (2.0 * n)) ** 2)


def fit_once(
    pairs: Pairs, kept: RowNumbers, held: RowNumbers, method: Method, *, about: dict[str, Any], **options: Any
) -> FitResult:
    """Fit as `fit` does, or read the map that was fitted on the same numbers from the cache in use."""
    cached = active()
    if not cached.in_use:
        return fit(pairs, kept, held, method, about=about, **options)
    weights, drawn = options["weights"], {name: options[name] for name in ("shuffle", "seed")}
    sides = (pairs.source, pairs.target)
    key = {
        **code_key("Emb2Emb.fit"),
        "rows": [side.digests() for side in sides],
        "split": [array_digest(kept), array_digest(held)],
        "weights": None if weights is None else array_digest(weights),
        "method": plain(asdict(method)),
        **drawn,
    }
    chosen = {"method": method.name, **{name: value for name, value in drawn.items() if value}}
    request = Request(key, chosen, [side.matrix.shape for side in sides], 0, None, None, FitResult)
    found = cached.once(
        request, list(about["names"]), lambda: fit(pairs, kept, held, method, about=about, **options)
    )
    # The same numbers may come from other files, by other names.
    return replace(found, fitted=replace(found.fitted, **about))


@one_blas_thread()
def fit(
    pairs: Pairs,
    kept: RowNumbers,
    held: RowNumbers,
    method: Method,
    *,
    weights: Float64Vector | None,
    shuffle: bool,
    seed: int,
    threads: int,
    report: ProgressCallable | None,
    about: dict[str, Any],
    groups: RowNumbers | None = None,
) -> FitResult:
    """Return a map fitted on the pairs at `kept`, scored on those at `held`, of which groups err together."""
    drawn = draw(held, MOST_SCORED, [seed, 3])
    fitted_on, scored = pairs.choose(kept), pairs.choose(drawn)
    if shuffle:
        fitted_on = fitted_on.shuffled(seed)
    others = draw(np.arange(len(fitted_on)), MOST_CANDIDATES - len(scored), [seed, 2])

    def scores_of(fitted: FittedMap) -> Scores | None:
        if len(scored) == 0:
            return None
        return score(
            lambda rows: predict(fitted, rows, threads),
            scored.source,
            scored.target,
            fitted_on.target.choose(others),
            fitted_on.target.mean(),
            groups=None if groups is None else groups[drawn],
            threads=threads,
        )

    fitted, details = fit_arrays(fitted_on, method, weights, threads, report, about)
    scores, control = scores_of(fitted), None
    if scores is not None and not shuffle:
        other, _ = fit_arrays(fitted_on.shuffled(seed), method, weights, threads, report, about)
        control = scores_of(other)
    counts = {"shared": len(pairs), "fitted_on": len(kept), "held_out": len(held), "scored": len(scored)}
    return FitResult(fitted, scores, control, {"tokens": counts, **details})


@one_blas_thread()
def fit_arrays(
    pairs: Pairs,
    method: Method,
    weights: Float64Vector | None,
    threads: int,
    report: ProgressCallable | None,
    about: dict[str, Any],
) -> tuple[FittedMap, dict[str, Any]]:
    """Fit a map on all of these pairs; `about` holds its models and names."""
    narrower = min(pairs.source.matrix.shape[1], pairs.target.matrix.shape[1])
    if isinstance(method, LowRank) and method.rank is not None and method.rank > narrower:
        raise InputError(
            f"rank = {method.rank} is above the smaller hidden size, {narrower}; give {narrower} at most"
        )
    moments = gather(
        pairs.source, pairs.target, weights=weights, center=method.center, threads=threads, progress=report
    )
    for name, squares in (("source", moments.xx), ("target", moments.yy)):
        if np.trace(squares) <= 0:
            raise InputError(f"all {name} rows are the same: there is nothing to fit a map on")
    solution = method.solve(moments, pairs.source, pairs.target)
    # |U_t h - U_s v|^2 + s |h|^2 for all v at once: a regression of source rows on target rows.
    logits = ridge_regression(moments.swapped(), None)
    logits_matrix: Any = logits.matrix
    source_rows, target_rows = solution.rows or (None, None)
    fitted = FittedMap(
        method,
        # A file holds an array's memory as it lies, so in C order.
        np.array(logits_matrix.T, order="C"),
        moments.x_mean,
        moments.y_mean,
        solution.matrix,
        source_rows,
        target_rows,
        **about,
    )
    return fitted, {"fit": solution.details, "logits": logits.details}


def undetermined(found: FitResult, loses_mean: bool) -> str | None:
    """Return a warning where the tokens leave a least-squares map open, but for a folded norm's centering."""
    # Rows that lose their mean have nothing in the direction of equal coordinates.
    fitted, rank = found.fitted, found.details["fit"].get("rank", 0)
    wanted = fitted.source_size - loses_mean
    if fitted.method.name != "least_squares" or rank >= wanted:
        return None
    return (
        f"the tokens determine {rank} of {wanted} directions: the map of smallest norm is returned, which "
        "ignores the others; method='ridge' is safer with few tokens"
    )

"""Fitting on paired rows: add up moments, solve, score; the same again on shuffled pairs."""

from __future__ import annotations

from typing import Any

import numpy as np

from embgeom._common.arrays import Float64Vector, RowNumbers
from embgeom._common.progress import ProgressCallable
from embgeom.emb2emb.methods import LowRank, Method, ridge_regression
from embgeom.emb2emb.moments import gather
from embgeom.emb2emb.pairs import Pairs, draw
from embgeom.emb2emb.score import MOST_CANDIDATES, MOST_SCORED, Scores, score
from embgeom.emb2emb.transfer import FittedMap, predict
from embgeom.errors import InputError


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
) -> tuple[FittedMap, Scores | None, Scores | None, dict[str, Any]]:
    """Return a map fitted on the pairs at `kept`, its scores on those at `held`, a control's, and details."""
    fitted_on, scored = pairs.choose(kept), pairs.choose(draw(held, MOST_SCORED, [seed, 3]))
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
            threads=threads,
        )

    fitted, details = fit_arrays(fitted_on, method, weights, threads, report, about)
    scores, control = scores_of(fitted), None
    if scores is not None and not shuffle:
        other, _ = fit_arrays(fitted_on.shuffled(seed), method, weights, threads, report, about)
        control = scores_of(other)
    counts = {"shared": len(pairs), "fitted_on": len(kept), "held_out": len(held), "scored": len(scored)}
    return fitted, scores, control, {"tokens": counts, **details}


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


def undetermined(fitted: FittedMap, rank: int, loses_mean: bool) -> str | None:
    """Return a warning where the tokens leave a least-squares map open, but for a folded norm's centering."""
    # Rows that lose their mean have nothing in the direction of equal coordinates.
    wanted = fitted.source_size - loses_mean
    if fitted.method.name != "least_squares" or rank >= wanted:
        return None
    return (
        f"the tokens determine {rank} of {wanted} directions: the map of smallest norm is returned, which "
        "ignores the others; method='ridge' is safer with few tokens"
    )

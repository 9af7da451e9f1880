"""The course of a fit: pair tokens, hold some out, add up moments, solve, score; then on shuffled pairs."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from embgeom._arrays import RowNumbers
from embgeom._numbers import check_seed, real_number, whole_number
from embgeom._progress import Progress, ProgressCallable, reporter
from embgeom.emb2emb.map import Emb2Emb
from embgeom.emb2emb.moments import FloatVector, Moments, gather
from embgeom.emb2emb.neighbors import NeighborMap
from embgeom.emb2emb.pairs import Pairs
from embgeom.emb2emb.rows import PreparedRows
from embgeom.emb2emb.score import MOST_CANDIDATES, Scores, score
from embgeom.emb2emb.solve import LINEAR, Method, Solution, ridge_regression, solve
from embgeom.embeddings import Embeddings
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.final_norm import FinalNorm


@dataclass(frozen=True)
class Options:
    """What a user chose, as `Emb2Emb.fit` explains it."""

    method: Method
    center: bool
    normalize: bool
    ridge: float | None
    rank: int | None
    scaled: bool
    k: int
    reg: float
    held_out: float
    shuffle: bool
    seed: int

    def checked(self) -> Options:
        """Return the options as plain numbers, which a file can hold; refuse what no fit can use.

        Raises
        ------
        InputError
            If a value is out of its range.
        """
        if self.method not in get_args(Method):
            raise InputError(f"method = {self.method!r} is unknown: use one of {', '.join(get_args(Method))}")
        ridge = None if self.ridge is None else real_number(self.ridge, "ridge")
        if ridge is not None and not 0 < ridge < np.inf:
            raise InputError(f"ridge = {ridge} must be above 0 and finite; method='least_squares' has none")
        reg = real_number(self.reg, "reg")
        # Where neighbors are more than columns, only the regularization makes their weights determined.
        if self.method == "lle" and not 1e-12 <= reg < np.inf:
            raise InputError(f"reg = {reg} must be 1e-12 at least and finite")
        return replace(
            self,
            ridge=ridge,
            rank=None if self.rank is None else whole_number(self.rank, "rank", 1),
            k=whole_number(self.k, "k", 1),
            reg=reg,
            held_out=real_number(self.held_out, "held_out"),
            seed=check_seed(self.seed),
        )


@dataclass(frozen=True, eq=False)
class _Side:
    """The prepared rows of both models for some tokens."""

    source: PreparedRows
    target: PreparedRows

    def choose(self, places: RowNumbers) -> _Side:
        return _Side(self.source.choose(places), self.target.choose(places))

    def shuffled(self, seed: int) -> _Side:
        order = np.random.default_rng([seed, 1]).permutation(len(self.target.rows))
        return _Side(self.source, self.target.choose(order.astype(np.int64)))


def fit(
    source: Embeddings | npt.ArrayLike,
    target: Embeddings | npt.ArrayLike,
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    weights: npt.ArrayLike | None,
    norms: tuple[FinalNorm | None, FinalNorm | None],
    options: Options,
    threads: int,
    progress: Progress,
) -> Emb2Emb:
    """Fit a map; see `Emb2Emb.fit`.

    Raises
    ------
    InputError
        If an argument does not fit.
    """
    options = options.checked()
    pairs = Pairs.of(source, target, tokens, threads)
    counts = _checked_weights(weights, len(pairs), options.method)
    kept, held = pairs.split(options.held_out, options.seed)
    everything = _Side(
        PreparedRows.prepare(pairs.source, pairs.source_rows, norms[0], options.normalize),
        PreparedRows.prepare(pairs.target, pairs.target_rows, norms[1], options.normalize),
    )
    fitted, scored = everything.choose(kept), everything.choose(held)
    if options.shuffle:
        fitted = fitted.shuffled(options.seed)
    if counts is not None:
        counts = _normalized(counts[kept])
    with reporter(progress, "emb2emb") as report:
        carrier = _fit_pairs(fitted, counts, options, threads, report)
        scores = _score(carrier, scored, fitted, options, threads)
        control = None
        if scores is not None and not options.shuffle:
            with warnings.catch_warnings():
                # What there was to warn of was said by the fit itself.
                warnings.simplefilter("ignore", EmbgeomWarning)
                shuffled = _fit_pairs(fitted.shuffled(options.seed), counts, options, threads, report)
            control = _score(shuffled, scored, fitted, options, threads)
    provenance = {
        "names": list(pairs.names),
        **pairs.described,
        "tokens": {"shared": len(pairs), "fitted_on": len(kept), "held_out": len(held)},
        "options": asdict(options) | {"weights": weights is not None},
        "folded": [norm is not None for norm in norms],
        **carrier.provenance,
    }
    return replace(carrier, scores=scores, shuffled=control, provenance=provenance)


def _fit_pairs(
    rows: _Side, weights: FloatVector | None, options: Options, threads: int, report: ProgressCallable | None
) -> Emb2Emb:
    """Fit on these pairs, all of them."""
    moments = gather(
        rows.source, rows.target, weights=weights, center=options.center, threads=threads, progress=report
    )
    if np.trace(moments.xx) <= 0:
        raise InputError("all source rows are the same: there is nothing to fit a map on")
    if options.method in LINEAR:
        solution = solve(
            moments, options.method, ridge=options.ridge, rank=options.rank, scaled=options.scaled
        )
        matrix, neighbors = solution.matrix, None
    else:
        solution = Solution(moments.xy, {"k": options.k, "reg": options.reg})
        matrix, neighbors = None, _neighbor_map(rows, moments, options)
    logits = _logits_map(moments)
    facts = {"fit": solution.facts, "logits": logits.facts}
    means = moments.x_mean, moments.y_mean
    return Emb2Emb(options.method, matrix, logits.matrix.T, neighbors, *means, provenance=facts)


def _logits_map(moments: Moments) -> Solution:
    """Solve |U_t h - U_s v|^2 + ridge |h|^2 for all v at once: a regression of source rows on target rows."""
    if np.trace(moments.yy) <= 0:
        raise InputError("all target rows are the same: there is nothing to fit a map on")
    return ridge_regression(moments.swapped(), None)


def _neighbor_map(rows: _Side, moments: Moments, options: Options) -> NeighborMap:
    sides = [
        np.concatenate([(side.take(piece) - mean).astype(np.float32) for piece in side.pieces()])
        for side, mean in ((rows.source, moments.x_mean), (rows.target, moments.y_mean))
    ]
    k = whole_number(options.k, "k", 1, len(sides[0]), f": there are {len(sides[0])} tokens to fit on")
    return NeighborMap(sides[0], sides[1], k, real_number(options.reg, "reg"))


def _score(carrier: Emb2Emb, scored: _Side, fitted: _Side, options: Options, threads: int) -> Scores | None:
    count = len(scored.target.rows)
    if count == 0:
        return None
    generator = np.random.default_rng([options.seed, 2])
    most = max(0, min(len(fitted.target.rows), MOST_CANDIDATES - count))
    others = np.sort(generator.choice(len(fitted.target.rows), most, replace=False)).astype(np.int64)
    mean = _mean(fitted.target)
    return score(
        lambda rows: carrier.predict(rows, threads=threads),
        scored.source,
        scored.target,
        fitted.target.choose(others),
        mean,
        threads=threads,
    )


def _mean(rows: PreparedRows) -> FloatVector:
    sums: Any = sum(rows.take(piece).sum(axis=0) for piece in rows.pieces())
    return np.asarray(sums / len(rows.rows))


def _checked_weights(weights: npt.ArrayLike | None, count: int, method: Method) -> FloatVector | None:
    if weights is None:
        return None
    if method == "lle":
        raise InputError("method 'lle' fits nothing, so weights have no meaning for it")
    try:
        values = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"weights are no numbers: {error}") from None
    if values.shape != (count,):
        raise InputError(
            f"weights must be one number for each of the {count} pairs, not of shape {values.shape}"
        )
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InputError("weights must be finite, not negative, and not all zero")
    return values


def _normalized(weights: FloatVector) -> FloatVector:
    """Scale the weights of the pairs that are fitted on to mean 1."""
    if not weights.any():
        raise InputError("weights are zero for all pairs that are not held out; weigh more pairs")
    # The largest first, so that no sum overflows.
    weights = weights / weights.max()
    return np.asarray(weights / weights.mean())

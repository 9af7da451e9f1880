"""`fit`: pair tokens, hold some out, add up moments, solve, score; the last three again on shuffled pairs."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Vector, RowNumbers
from embgeom._common.checks import whole_number
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import digest, versions
from embgeom._common.threads import resolve_threads
from embgeom.emb2emb.moments import Moments, gather
from embgeom.emb2emb.neighbors import NeighborMap, check_reg
from embgeom.emb2emb.options import Options
from embgeom.emb2emb.pairs import Pairs
from embgeom.emb2emb.rows import PreparedRows, check_norm
from embgeom.emb2emb.score import MOST_CANDIDATES, MOST_SCORED, Scores, score
from embgeom.emb2emb.solve import LINEAR, Method, Solution, ridge_regression, solve
from embgeom.emb2emb.weights import checked_weights, normalized
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.norm import FinalNorm
from embgeom.errors import EmbgeomWarning, InputError

if TYPE_CHECKING:
    from embgeom.emb2emb.map import Emb2Emb


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
    *,
    method: Method = "low_rank",
    tokens: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    center: bool = True,
    normalize: bool = False,
    weights: npt.ArrayLike | None = None,
    source_norm: FinalNorm | None = None,
    target_norm: FinalNorm | None = None,
    ridge: float | None = None,
    rank: int | None = None,
    scaled: bool | None = None,
    k: int | None = None,
    reg: float | None = None,
    held_out: float = 0.1,
    shuffle: bool = False,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Emb2Emb:
    """Fit a map on the tokens that two models share.

    Parameters
    ----------
    source, target : Embeddings or array_like
        The two models, both of the same side (input or output); or two arrays whose rows are paired.
    method : {"least_squares", "ridge", "procrustes", "low_rank", "lle"}
        Least squares is the published method; where tokens are few beside the width, its map fits
        noise, and ridge does not. "low_rank" is a ridge map of limited rank, the default because
        vectors transferred by it did most (``docs/steering.md``). "procrustes" turns and, where the widths
        differ, projects; "lle" rebuilds each vector from neighbors.
    tokens : pair of array_like of int, optional
        Rows of the source and of the target to pair, instead of the tokens that `embgeom.match` finds.
    center : bool
        Whether to subtract both means first, which gives the map an intercept.
    normalize : bool
        Whether to scale all rows to length 1 first.
    weights : array_like, shape (n,), optional
        How much each pair counts, not negative; equally by default. Not for "lle".
    source_norm, target_norm : FinalNorm, optional
        Final norms to fold into unembeddings, see `embgeom.load_final_norm`. An input embedding takes none,
        unless it is tied.
    ridge : float, optional
        For "ridge" and "low_rank": the strength relative to the mean eigenvalue of the source's moments; by
        default chosen by generalised cross-validation from one eigendecomposition.
    rank : int, optional
        For "low_rank"; by default the fewest directions that keep 95 % of the fitted variance.
    scaled : bool, optional
        For "procrustes": whether it also scales; True by default.
    k : int, optional
        For "lle": how many neighbors; 20 by default.
    reg : float, optional
        For "lle": the regularization of the neighbors' weights, see `embgeom.lle`; 1e-3 by default.
    held_out : float
        The share of the tokens that the map is not fitted on, and is scored on, one token at least; 0 for no
        scores. Of more than 4,096 tokens held out so many are scored.
    shuffle : bool
        Whether to pair source rows with the rows of random other tokens: a control that should transfer
        nothing.
    seed : int
        Draws the held-out tokens, those of them that are scored, and the shuffled pairs.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

    Returns
    -------
    Emb2Emb
        The map, with its scores.

    Raises
    ------
    InputError
        If there are too few shared tokens, an option is out of its range or given to a method that does not
        use it, a norm is to be folded into an input embedding that is not tied, or a value is not finite.

    Warns
    -----
    EmbgeomWarning
        If least squares is asked for and the tokens do not determine a single map, but for the direction that
        a folded LayerNorm takes away; the one of smallest norm is returned.

    Notes
    -----
    One pass over both matrices by the kernel, n (d_s^2 / 2 + d_s d_t + d_t^2 / 2) multiply-adds in float64,
    and as many for the shuffled control; then an eigendecomposition or singular value decomposition of d x d;
    and the scores, at most 4,096 x 16,384 d_t multiply-adds in float32. Memory besides the matrices: 24 bytes
    for each of d_s^2 + d_s d_t + d_t^2 numbers or so; for the scores, up to 16,384 rows of the target in
    float32, or before that 4,096 of both models in float64 a few times over, and what `knn` takes; for "lle"
    the shared tokens' rows of both models. Two matrices of 50,257 x 768 on two threads take 233 MB so.
    Through the squares of x'x a least-squares fit sees singular values down to 7e-7 of the largest; float32
    rows hold no more than that.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import embgeom
    >>> small, large = (embgeom.load(folder, "output") for folder in embgeom.examples.pair())
    >>> mapping = embgeom.Emb2Emb.fit(small, large, method="low_rank", rank=20)
    >>> mapping
    Emb2Emb('small' -> 'large', low_rank, 128 -> 192)
    >>> mapping.provenance["tokens"]["shared"], mapping.provenance["fit"]["rank"]
    (4095, 20)
    """
    options = Options(
        method=method,
        center=center,
        normalize=normalize,
        ridge=ridge,
        rank=rank,
        scaled=scaled,
        k=k,
        reg=reg,
        held_out=held_out,
        shuffle=shuffle,
        seed=seed,
    ).checked()
    norms = (source_norm, target_norm)
    for name, side, norm in zip(("source", "target"), (source, target), norms, strict=True):
        check_norm(norm, side, name)
    team = resolve_threads(threads)
    pairs = Pairs.from_tokens(source, target, tokens, team)
    counts = checked_weights(weights, len(pairs), options.method)
    kept, held = pairs.split(options.held_out, options.seed)
    everything = _Side(
        PreparedRows.prepare(pairs.source, pairs.source_rows, source_norm, options.normalize),
        PreparedRows.prepare(pairs.target, pairs.target_rows, target_norm, options.normalize),
    )
    fitted, scored = everything.choose(kept), everything.choose(_drawn(held, MOST_SCORED, [options.seed, 3]))
    if options.shuffle:
        fitted = fitted.shuffled(options.seed)
    if counts is not None:
        counts = normalized(counts[kept])
    with reporter(progress, "emb2emb") as report:
        mapping = _fit_pairs(fitted, counts, options, team, report)
        if doubt := _undetermined(mapping, source_norm):
            warnings.warn(doubt, EmbgeomWarning, stacklevel=2)
        scores = _score(mapping, scored, fitted, options, team)
        control = None
        if scores is not None and not options.shuffle:
            shuffled = _fit_pairs(fitted.shuffled(options.seed), counts, options, team, report)
            control = _score(shuffled, scored, fitted, options, team)
    provenance = {
        "names": list(pairs.names),
        **pairs.described,
        "tokens": {
            "shared": len(pairs),
            "fitted_on": len(kept),
            "held_out": len(held),
            "scored": len(scored.target.rows),
        },
        "rows_sha256": [digest(rows.tolist()) for rows in (pairs.source_rows, pairs.target_rows)],
        "options": asdict(options) | {"weights": weights is not None},
        "folded": [norm is not None for norm in norms],
        "versions": versions(),
        **mapping.provenance,
    }
    return replace(mapping, scores=scores, shuffled=control, provenance=provenance)


def _fit_pairs(
    rows: _Side,
    weights: Float64Vector | None,
    options: Options,
    threads: int,
    report: ProgressCallable | None,
) -> Emb2Emb:
    """Fit on these pairs, all of them."""
    # Not at the head: the class takes its method `fit` from this module.
    from embgeom.emb2emb.map import Emb2Emb

    moments = gather(
        rows.source, rows.target, weights=weights, center=options.center, threads=threads, progress=report
    )
    if np.trace(moments.xx) <= 0:
        raise InputError("all source rows are the same: there is nothing to fit a map on")
    if options.method in LINEAR:
        solution = solve(
            moments, options.method, ridge=options.ridge, rank=options.rank, scaled=options.scaled is True
        )
        matrix, neighbors, facts = solution.matrix, None, solution.facts
    else:
        matrix, neighbors = None, _neighbor_map(rows, moments, options)
        facts = {"k": neighbors.k, "reg": neighbors.reg}
    logits = _logits_map(moments)
    means = moments.x_mean, moments.y_mean
    found = {"fit": facts, "logits": logits.facts}
    return Emb2Emb(options.method, matrix, logits.matrix.T, neighbors, *means, provenance=found)


def _undetermined(mapping: Emb2Emb, source_norm: FinalNorm | None) -> str | None:
    """Say that tokens leave a least-squares map open, more than by what a folded LayerNorm takes away."""
    if mapping.method != "least_squares":
        return None
    rank, width = mapping.provenance["fit"]["rank"], mapping.widths[0]
    # Rows that lose their mean have nothing in the direction of equal coordinates.
    wanted = width - (source_norm is not None and source_norm.centers)
    if rank >= wanted:
        return None
    return (
        f"the tokens determine {rank} of {wanted} directions: the map of smallest norm is returned, which "
        "ignores the others; method='ridge' is safer with few tokens"
    )


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
    return NeighborMap(sides[0], sides[1], whole_number(options.k, "k", 1), check_reg(options.reg))


def _score(mapping: Emb2Emb, scored: _Side, fitted: _Side, options: Options, threads: int) -> Scores | None:
    count = len(scored.target.rows)
    if count == 0:
        return None
    others = _drawn(np.arange(len(fitted.target.rows)), MOST_CANDIDATES - count, [options.seed, 2])
    return score(
        lambda rows: mapping.predict(rows, threads=threads),
        scored.source,
        scored.target,
        fitted.target.choose(others),
        _mean(fitted.target),
        threads=threads,
    )


def _drawn(places: RowNumbers, most: int, seed: list[int]) -> RowNumbers:
    """Return the places, or `most` of them in their order."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, most, replace=False))


def _mean(rows: PreparedRows) -> Float64Vector:
    sums: Any = sum(rows.take(piece).sum(axis=0) for piece in rows.pieces())
    return np.asarray(sums / len(rows.rows))

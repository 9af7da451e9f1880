"""Rows of two models that a map connects."""

import numpy as np

from embgeom import Emb2Emb
from embgeom.emb2emb.methods import as_method
from embgeom.emb2emb.pairs import PreparedRows

LINEAR = ["least_squares", "ridge", "procrustes", "low_rank"]


def related(n=400, d_s=12, d_t=20, noise=0.1, seed=0):
    """Return rows of two models: a linear map, a shift, and noise."""
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((n, d_s)) + 0.5
    target = source @ rng.standard_normal((d_s, d_t)) + 2 + noise * rng.standard_normal((n, d_t))
    return source.astype(np.float32), target.astype(np.float32)


def prepared(matrix, rows=None, norm=None, normalize=False):
    rows = np.arange(len(matrix)) if rows is None else rows
    return PreparedRows.prepare(np.ascontiguousarray(matrix), rows, norm, normalize)


def fit(source, target, method="ridge", *, held_out=0, **options):
    """Fit a map on all pairs, without scores; options of the method are given among the others."""
    names = ("strength", "rank", "scaled", "k", "reg", "center")
    chosen = as_method(method, **{name: options.pop(name) for name in names if name in options})
    return Emb2Emb.fit(source, target, method=chosen, held_out=held_out, **options)

"""The sums that maps are fitted from, against NumPy's products of whole matrices in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embgeom.emb2emb.methods import gather
from tests.helpers.emb2emb import prepared


@given(
    st.integers(2, 700),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([1, 2, 5]),
)
def test_moments(n, d_s, d_t, center, normalize, weighted, threads):
    rng = np.random.default_rng(n + 100 * d_s)
    x, y = (rng.standard_normal((n + 5, d)).astype(np.float32) + 1 for d in (d_s, d_t))
    rows_x, rows_y = (rng.permutation(n + 5)[:n] for _ in range(2))
    weights = rng.uniform(0, 3, n) if weighted else None
    found = gather(
        prepared(x, rows_x, normalize=normalize),
        prepared(y, rows_y, normalize=normalize),
        weights=weights,
        center=center,
        threads=threads,
        progress=None,
    )
    a, b = x[rows_x].astype(float), y[rows_y].astype(float)
    if normalize:
        a, b = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b))
    w = np.ones(n) if weights is None else weights
    if center:
        a, b = a - w @ a / w.sum(), b - w @ b / w.sum()
    for sums, expected in ((found.xx, a.T @ (w[:, None] * a)), (found.xy, a.T @ (w[:, None] * b)),
                           (found.yy, b.T @ (w[:, None] * b))):  # fmt: skip
        # Sums of n terms of size 10 or so before the means are taken out.
        np.testing.assert_allclose(sums, expected, rtol=1e-12, atol=1e-11 * n)
    assert (found.xx == found.xx.T).all() and (found.yy == found.yy.T).all()


@pytest.mark.parametrize(("n", "d_s", "d_t"), [(1300, 257, 513), (70, 600, 30), (3000, 256, 255)])
def test_moments_over_strips_and_slabs(n, d_s, d_t):
    rng = np.random.default_rng(n)
    x, y = (rng.standard_normal((n, d)).astype(np.float32) for d in (d_s, d_t))
    options = {"weights": None, "center": False, "progress": None}
    one, three = (gather(prepared(x), prepared(y), threads=threads, **options) for threads in (1, 3))
    np.testing.assert_allclose(one.xx, x.T.astype(float) @ x.astype(float), atol=1e-11 * n)
    np.testing.assert_allclose(one.xy, x.T.astype(float) @ y.astype(float), atol=1e-11 * n)
    np.testing.assert_allclose(one.yy, y.T.astype(float) @ y.astype(float), atol=1e-11 * n)
    for name in ("xx", "xy", "yy"):
        assert getattr(one, name).tobytes() == getattr(three, name).tobytes()

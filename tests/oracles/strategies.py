"""Matrices and options that are hard on a kernel: ties, near-ties, zeros, extreme scales, odd layouts."""

import numpy as np
from hypothesis import strategies as st

METRICS = ("cosine", "inner_product", "euclidean")
LAYOUTS = ("contiguous", "fortran", "every second column", "every third row", "reversed", "read-only")
FAMILIES = ("integers", "gaussian", "clustered", "duplicates", "scaled")

threads = st.sampled_from([1, 2, 3, 7])
metrics = st.sampled_from(METRICS)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw, min_rows=1, tiles=True):
    """Mostly up to 40 x 24; one in ten crosses an edge of the tiles that a blocked kernel may use."""
    if tiles and draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([95, 97, 191, 193, 300, 383, 384, 385, 700])), draw(st.integers(1, 9))
    return draw(st.integers(min_rows, 40)), draw(st.integers(1, 24))


def build(family, shape, rng):
    """Return a float32 matrix of one family."""
    n, d = shape
    gaussian = rng.standard_normal((n, d))
    if family == "integers":
        # Sums of products of small integers are exact: so are ties, and equality with the oracle.
        x = rng.integers(-4, 5, (n, d))
    elif family == "gaussian":
        x = gaussian
    elif family == "clustered":
        # Relative distances of 1e-6 to 1e-3 give cosines that differ by less than float32 can hold.
        centres = rng.standard_normal((max(1, n // 8), d))
        x = centres[rng.integers(0, len(centres), n)] * (1 + 10 ** rng.uniform(-6, -3) * gaussian)
    elif family == "duplicates":
        x = gaussian[rng.integers(0, max(1, n // 3), n)]
    elif family == "scaled":
        # Squares of the longest of these rows leave the range of float32.
        x = gaussian * 10 ** rng.uniform(-18, 18, (n, 1))
    else:
        raise ValueError(family)
    return np.asarray(x, dtype=np.float32)


def lay_out(x, layout):
    """Return the same matrix in another memory layout."""
    n, d = x.shape
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "every second column":
        wide = np.full((n, 2 * d), 77, dtype=x.dtype)  # what a reader without strides would see
        wide[:, ::2] = x
        return wide[:, ::2]
    if layout == "every third row":
        tall = np.full((3 * n, d), 77, dtype=x.dtype)
        tall[::3] = x
        return tall[::3]
    if layout == "reversed":
        return np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    x = np.ascontiguousarray(x)
    if layout == "read-only":
        x = x.copy()
        x.flags.writeable = False
    return x


@st.composite
def matrices(draw, families=FAMILIES, min_rows=1, tiles=True, shape=None, zeros=True, plain=False):
    """Draw a matrix of any family, perhaps with rows of zeros, in any layout and of any float type."""
    shape = shape or draw(shapes(min_rows, tiles))
    family = draw(st.sampled_from(families))
    rng = np.random.default_rng(draw(seeds))
    x = build(family, shape, rng)
    if zeros and draw(st.integers(0, 3)) == 0:
        gone = rng.random(len(x)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
        x[gone] = np.where(rng.random((int(gone.sum()), shape[1])) < 0.5, np.float32(0.0), np.float32(-0.0))
    if plain:
        return x
    types = [np.float32, np.float64]
    if family != "scaled":
        types.append(np.float16)
    x = x.astype(draw(st.sampled_from(types)))
    if x.dtype == np.float64 and family == "gaussian":
        x = x * (1 + 1e-9 * rng.standard_normal(x.shape))  # digits that float32 does not hold
    return lay_out(x, draw(st.sampled_from(LAYOUTS)))

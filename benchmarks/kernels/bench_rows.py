"""Time of row_stats: one pass over the matrix, so the bound is the memory's speed."""

import numpy as np

from embgeom.geometry.rows import row_stats
from tests.oracles import reference
from tests.oracles import tolerances as tol


def bench_row_stats(measure, x, threads, sample):
    scan = measure(row_stats, x, rounds=5, threads=threads)
    norms, _, zero = reference.row_stats(x[sample])
    np.testing.assert_allclose(scan.norms[sample], norms, rtol=tol.norm_rtol(x.shape[1]))
    np.testing.assert_array_equal(scan.zero[sample], zero)
    for row in sample:
        assert scan.first_equal[row] == np.flatnonzero((x == x[row]).all(axis=1))[0]

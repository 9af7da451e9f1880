"""The matrices that benchmarks are about."""

import numpy as np


def synthetic(n, d, seed):
    """Return (n, d) float32 rows like embeddings: clusters, an offset, falling variances, zeros, equals."""
    rng = np.random.default_rng(seed)
    scales = (1 / np.arange(1, d + 1) ** 0.4).astype(np.float32)
    centres = rng.standard_normal((max(1, n // 50), d), dtype=np.float32) * scales
    x = rng.standard_normal((n, d), dtype=np.float32)
    x *= scales
    x += centres[rng.integers(0, len(centres), n)]
    x += 0.5 * scales * rng.standard_normal(d, dtype=np.float32)
    x[rng.choice(n, n // 500, replace=False)] = 0
    x[rng.choice(n, n // 500, replace=False)] = x[n // 2]
    return x

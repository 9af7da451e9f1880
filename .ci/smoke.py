"""A first call of each kernel from an installed wheel, away from the sources."""

import numpy as np

import embgeom

x = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32)
neighbors = embgeom.knn(x, 10)
assert neighbors.indices.shape == (2000, 10)
assert np.allclose(embgeom.lle(x, neighbors).weights.sum(axis=1), 1, atol=1e-5)
assert (embgeom.intrinsic_dimension(x, k=100, rows=range(50)).n_components > 0).all()
assert all(embgeom.load(folder).matrix.shape[0] == 4096 for folder in embgeom.examples.pair())
assert abs(embgeom.global_similarity(x, x) - 1) < 1e-9
print("embgeom", embgeom.__version__, "works from", embgeom.__file__)

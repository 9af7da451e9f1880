"""Neighbors as other packages take them: sparse matrices, and UMAP's precomputed neighbors."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import embgeom
from embgeom import InputError

K = 7


@pytest.fixture(autouse=True)
def scipy():
    pytest.importorskip("scipy", reason="SciPy is not installed")


def matrix(n=80, d=6):
    return np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)


def with_zeros():
    x = matrix()
    x[::9] = 0.0
    return x


@pytest.mark.parametrize("values", ["similarity", "distance", "connectivity"])
@pytest.mark.parametrize("x", [matrix(), with_zeros()])
def test_a_sparse_graph_holds_what_the_lists_hold(x, values):
    near = embgeom.knn(x, K)
    graph = near.to_scipy(values)
    assert graph.shape == (80, 80) and graph.dtype == np.float32 and graph.indices.dtype == np.int32
    assert graph.indptr.dtype == np.int32
    for row in range(80):
        listed = near.indices[row] >= 0
        expected = near.indices[row][listed].tolist()
        entries = {
            "similarity": near.similarities,
            "distance": np.maximum(near.distances, 0),
            "connectivity": np.ones((80, K)),
        }[values][row][listed].tolist()
        if values == "distance":
            expected, entries = [row, *expected], [0.0, *entries]
        part = slice(graph.indptr[row], graph.indptr[row + 1])
        assert graph.indices[part].tolist() == expected and graph.data[part].tolist() == entries


def test_graphs_of_some_rows_and_of_queries():
    x = matrix()
    model = embgeom.Embeddings.from_array(x, [f"word{i}" for i in range(80)])
    some = embgeom.knn(model, K, rows=[5, 3]).to_scipy("distance")
    assert some.shape == (2, 80) and some.indices[0] == 5 and some.data[0] == 0
    bare = embgeom.knn(x, K, rows=[5, 3])
    with pytest.raises(InputError, match="is not known here: give it as n="):
        bare.to_scipy()
    assert bare.to_scipy(n=90).shape == (2, 90)
    least = int(bare.indices.max()) + 1
    with pytest.raises(InputError, match=f"n = {least - 1} must be at least {least}"):
        bare.to_scipy(n=least - 1)
    with pytest.raises(InputError, match=r"n = 81 is outside \[80, 80\]: the matrix has so many rows"):
        embgeom.knn(x, K).to_scipy(n=81)
    asked = embgeom.knn(x, K, queries=x[:4] + 0.1).to_scipy("distance", n=80)
    assert asked.shape == (4, 80) and asked.nnz == 4 * K


def test_what_is_not_a_graph(monkeypatch):
    products = embgeom.knn(matrix(), K, metric="inner_product")
    assert products.to_scipy().nnz == 80 * K
    for call in (lambda: products.to_scipy("distance"), products.to_umap):
        with pytest.raises(InputError, match="defines no distance"):
            call()
    with pytest.raises(InputError, match="values = 'weight' is unknown: use one of similarity, distance"):
        products.to_scipy("weight")
    with pytest.raises(InputError, match="UMAP needs the neighbors of all rows"):
        embgeom.knn(matrix(), K, rows=[1]).to_umap()
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    with pytest.raises(InputError, match=r'to_scipy needs scipy: pip install "embgeom\[scipy\]"'):
        products.to_scipy()


@pytest.mark.parametrize("exclude_self", [True, False])
def test_each_row_is_its_own_first_neighbor(exclude_self):
    x = with_zeros()
    x[20:30] = x[19]  # Among equal rows a row may stand anywhere in its list, or not at all.
    indices, distances = embgeom.knn(x, K, exclude_self=exclude_self).to_umap()
    assert indices.shape == distances.shape == (80, K + exclude_self)
    assert (indices[:, 0] == np.arange(80)).all() and (distances[:, 0] == 0).all()
    assert (indices[:, 1:] != np.arange(80)[:, None]).all() and (distances >= 0).all()
    assert ((indices < 0) == np.isinf(distances)).all() and (indices[9, 1:] == -1).all()
    expected = embgeom.knn(x, indices.shape[1] - 1)
    if exclude_self:
        np.testing.assert_array_equal(indices[:, 1:], expected.indices)
    others = np.maximum(expected.distances, 0)
    np.testing.assert_array_equal(distances[:, 1:], np.where(np.isnan(others), np.inf, others))


@pytest.mark.filterwarnings("ignore")
def test_umap_takes_the_graph():
    umap = pytest.importorskip("umap", reason="umap-learn is not installed", exc_type=ImportError)
    x = embgeom.load("example:small").matrix[300:900]
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float64)
    distances = 1 - unit @ unit.T
    np.fill_diagonal(distances, 0)
    near = embgeom.knn(x, 14)

    def layout(given, **options):
        made = umap.UMAP(n_neighbors=15, random_state=0, n_epochs=30, precomputed_knn=given, **options)
        return made.fit(x)

    ours = layout(near.to_umap())
    order = np.argsort(distances, axis=1, kind="stable")[:, :15]
    exact = np.take_along_axis(distances, order, axis=1).astype(np.float32)
    theirs = layout((order.astype(np.int32), exact))
    # Its own search by pairs, in float32, and bisection leave the strengths of edges some 1e-2 apart.
    own = umap.UMAP(n_neighbors=15, random_state=0, n_epochs=30, metric="cosine").fit(x)
    for other in (theirs, own):
        first, second = (graph.graph_.tocsr() for graph in (ours, other))
        assert ((first != 0) != (second != 0)).nnz == 0 and abs(first - second).max() < 0.02
    again = layout(near.to_umap())
    np.testing.assert_array_equal(ours.embedding_, again.embedding_)
    holes = x.copy()
    holes[::50] = 0.0
    placed = umap.UMAP(n_neighbors=15, random_state=0, n_epochs=30,
                       precomputed_knn=embgeom.knn(holes, 14).to_umap()).fit(holes)  # fmt: skip
    assert (np.isnan(placed.embedding_).any(axis=1) == ~holes.any(axis=1)).all()


def test_scikit_learn_takes_the_graph():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.cluster import DBSCAN, HDBSCAN
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsTransformer

    x = embgeom.load("example:small").matrix[300:800]
    graph = embgeom.knn(x, 31).to_scipy("distance")
    theirs = KNeighborsTransformer(n_neighbors=31, metric="cosine").fit_transform(x)
    assert abs(graph - theirs).max() < 1e-5
    labels = DBSCAN(metric="precomputed", eps=0.4, min_samples=3).fit_predict(graph)
    assert (
        labels.tolist() == DBSCAN(metric="precomputed", eps=0.4, min_samples=3).fit_predict(theirs).tolist()
    )
    near = HDBSCAN(metric="precomputed", min_cluster_size=5, copy=True).fit(graph.maximum(graph.T))
    assert len(near.labels_) == 500
    options = {
        "metric": "precomputed",
        "init": "random",
        "perplexity": 10,
        "max_iter": 250,
        "random_state": 0,
    }
    assert TSNE(**options).fit_transform(graph).shape == (500, 2)

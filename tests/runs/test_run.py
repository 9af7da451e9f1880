"""A run gives the bits of the plain functions, however it is cut and wherever it stopped."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom._common.record import plain


def matrix(n=300, d=12, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    x[7] = x[3]
    x[11] = 0.0
    return x


def plainly(task, x, rows=None, **options):
    k = options.pop("k")
    metric = options.pop("metric", "cosine")
    if task == "dimension":
        return embgeom.intrinsic_dimension(x, k=k, metric=metric, rows=rows, **options)
    neighbors = embgeom.knn(x, k, metric=metric, rows=rows)
    return neighbors if task == "knn" else embgeom.lle(x, neighbors, **options)


def same(one, other):
    a, b = {}, {}
    assert type(one) is type(other)
    assert plain(one, a) == plain(other, b) and a.keys() == b.keys()
    for name, array in a.items():
        assert array.dtype == b[name].dtype
        assert array.tobytes() == b[name].tobytes(), name


TASKS = ("knn", "lle", "dimension")


@pytest.mark.parametrize("rows", [None, [5, 3, 280, 11]], ids=["all", "some"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_gives_the_plain_result(task, rows, tmp_path):
    x = matrix()
    result = embgeom.run(task, x, tmp_path / "run", k=20, rows=rows)
    same(result, plainly(task, x, rows, k=20))
    same(embgeom.run(task, x, tmp_path / "run", k=20, rows=rows), result)
    same(type(result).load(tmp_path / "run" / f"{task}.safetensors"), result)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        ["lock", "manifest.json", f"{task}.safetensors"]
    )

"""What nulls, intervals, other token sets and the panel of `compare` add to the kernels that it needs.

    python -m benchmarks.kernels.compare_share A.gguf B.gguf

The kernels alone: for each model one graph of neighbors, LLE weights over the first 10 and the intrinsic
dimension, as `compare` measures them by default (k = 200, all tokens), and, for comparison, as it did with
k = 1200 and a sample of 500 tokens. All over the tokens that count in a comparison of the two models.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import embgeom


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, and what it returns."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def kernels(x: np.ndarray, k: int, sample: int | None, threads: int | None) -> dict[str, float]:
    """Return the seconds of each kernel on one matrix."""
    taken: dict[str, float] = {}
    taken["knn"], near = seconds(lambda: embgeom.knn(x, k, center=True, threads=threads))
    first = replace(near, indices=near.indices[:, :10].copy(), similarities=near.similarities[:, :10].copy())
    taken["lle"], _ = seconds(lambda: embgeom.lle(x, first, threads=threads))
    rows = None
    if sample is not None:
        rows = np.sort(np.random.default_rng(0).choice(len(x), min(sample, len(x)), replace=False))
        near = near.indices[rows]
    taken["dimension"], _ = seconds(lambda: embgeom.intrinsic_dimension(x, near, rows=rows, threads=threads))
    return taken


def main() -> None:
    """Measure, and print a line for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--panel", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--former", action="store_true", help="also with k = 1200 and 500 tokens")
    options = parser.parse_args()
    a, b = embgeom.load(options.a), embgeom.load(options.b)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", embgeom.EmbgeomWarning)
        whole, found = seconds(lambda: embgeom.compare(a, b, panel=options.panel, threads=options.threads))
    matrices = [a.matrix[found.match.ids_a], b.matrix[found.match.ids_b]]
    print(f"{len(found.match)} tokens, {matrices[0].shape[1]} and {matrices[1].shape[1]} columns")
    settings = [("k = 200, all tokens", 200, None)]
    settings += [("k = 1200, 500 tokens", 1200, 500)] if options.former else []
    for name, k, sample in settings:
        taken = [kernels(x, k, sample, options.threads) for x in matrices]
        total = sum(sum(each.values()) for each in taken)
        parts = "; ".join(", ".join(f"{key} {value:.1f}" for key, value in each.items()) for each in taken)
        print(f"kernels, {name}: {total:.1f} s ({parts})")
        print(f"compare took {whole:.1f} s, {whole / total:.2f} times that (panel: {options.panel})")
    print(found.summary())


if __name__ == "__main__":
    main()

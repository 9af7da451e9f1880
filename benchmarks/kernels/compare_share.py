"""Where the time of `compare` goes: kernels that it needs; nulls, intervals, token sets and the panel.

    python -m benchmarks.kernels.compare_share A.gguf B.gguf --panel

The kernels are, for each model, one graph of neighbors, LLE weights over the first 10 of them and the
intrinsic dimension of every token. The goal is a whole that takes at most 1.1 times as long as they do. With
--former, also the kernels as `compare` once called them, a graph of 1200 neighbors and the dimension of 500
tokens over it, beside all of today's `compare` with these two options.
"""

from __future__ import annotations

import argparse
import importlib
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

import embgeom

KERNELS = ("knn", "lle", "intrinsic_dimension")
OTHERS = (
    "match",
    "classify",
    "tokens_that_count",
    "global_similarity_estimate",
    "overlap_estimate",
    "weight_cosine_estimate",
    "correlation_estimate",
    "panel_estimates",
    "curves",
    "_cautions",
    "_groups",
)
FORMER_K = 1200
FORMER_SAMPLE = 500
SECONDS: dict[str, float] = defaultdict(float)


def time_calls(module: Any, names: tuple[str, ...]) -> None:
    """Replace functions of a module by such that add up the seconds of their outermost calls."""
    inside: list[str] = []

    def wrapped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            begin = time.perf_counter()
            inside.append(name)
            try:
                result = function(*arguments, **options)
                # A generator works only while it is read.
                return iter(list(result)) if name in ("_cautions", "_groups") else result
            finally:
                inside.pop()
                if not inside:
                    SECONDS[name] += time.perf_counter() - begin

        call.__name__ = name
        return call

    for name in names:
        setattr(module, name, wrapped(name, getattr(module, name)))


def former(x: np.ndarray, threads: int | None) -> float:
    """Return the seconds of a graph of 1200 neighbors, weights over 10 and the dimensions of a sample."""
    begin = time.perf_counter()
    near = embgeom.knn(x, min(FORMER_K, len(x) - 1), center=True, threads=threads).indices
    embgeom.lle(x, near[:, :10].copy(), threads=threads)
    rows = np.sort(np.random.default_rng(0).choice(len(x), min(FORMER_SAMPLE, len(x)), replace=False))
    embgeom.intrinsic_dimension(x, near[rows], rows=rows, threads=threads)
    return time.perf_counter() - begin


def measured(
    a: embgeom.Embeddings, b: embgeom.Embeddings, **options: Any
) -> tuple[embgeom.Comparison, float]:
    """Compare, print a line for each part, and return the result and the seconds that it took."""
    SECONDS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", embgeom.EmbgeomWarning)
        begin = time.perf_counter()
        found = embgeom.compare(a, b, **options)
        whole = time.perf_counter() - begin
    kernels = sum(SECONDS[name] for name in KERNELS)
    print(f"compare {whole:.1f} s, of which kernels {kernels:.1f} s: {whole / kernels:.2f} times", flush=True)
    for name, taken in sorted(SECONDS.items(), key=lambda item: -item[1]):
        print(f"  {name:28} {taken:7.2f} s")
    print(f"  {'other token sets and rest':28} {whole - sum(SECONDS.values()):7.2f} s", flush=True)
    return found, whole


def main() -> None:
    """Measure, and print the shares of the parts and what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("a")
    parser.add_argument("b")
    parser.add_argument("--panel", action="store_true")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--former", action="store_true")
    options = parser.parse_args()
    a, b = embgeom.load(options.a), embgeom.load(options.b)
    time_calls(importlib.import_module("embgeom.comparison.compare"), (*KERNELS, *OTHERS))
    chosen = {"panel": options.panel, "threads": options.threads}
    found, whole = measured(a, b, **chosen)
    print(f"{len(found.match)} tokens, {a.matrix.shape[1]} and {b.matrix.shape[1]} columns")
    if options.former:
        rows = zip((a, b), (found.match.ids_a, found.match.ids_b), strict=True)
        once = sum(former(model.matrix[ids], options.threads) for model, ids in rows)
        _, alike = measured(a, b, **chosen, dimension_k=FORMER_K, dimension_sample=FORMER_SAMPLE)
        print(f"former kernels {once:.1f} s; compare takes {whole / once:.2f} times as long as these,")
        print(f"and with the same graph and the same number of dimensions {alike / once:.2f} times")
    print(found.summary())


if __name__ == "__main__":
    main()

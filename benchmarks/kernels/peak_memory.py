"""Peak memory of each kernel at the size of a real vocabulary, each in a process of its own.

    python -m benchmarks.kernels.peak_memory            50,257 x 768, as GPT-2's embedding
    python -m benchmarks.kernels.peak_memory 128256 2048 --task "knn, k = 1200"

The peak is that of the whole process, as `/usr/bin/time -v` reports it ("Maximum resident set size"):
interpreter, NumPy, input, output and workspace. The bound is input + output + 256 MB. Seconds are
those of the one call.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import embgeom
from embgeom.comparison.nulls import overlap_estimate

MB = 1e6
BOUND_MB = 256
FEWEST_ROWS = 1201

Array = np.ndarray
# What a task needs besides the matrix, and a call that returns its results.
Prepared = tuple[list[Array], Callable[[], list[Array]]]
Task = Callable[[Array, int], Prepared]


def knn(k: int) -> Task:
    def prepare(x: Array, threads: int) -> Prepared:
        def call() -> list[Array]:
            found = embgeom.knn(x, k, threads=threads)
            return [found.indices, found.similarities]

        return [], call

    return prepare


def queries(k: int) -> Task:
    def prepare(x: Array, threads: int) -> Prepared:
        asked = np.random.default_rng(1).standard_normal((8192, x.shape[1]), dtype=np.float32)

        def call() -> list[Array]:
            found = embgeom.knn(x, k, queries=asked, threads=threads)
            return [found.indices, found.similarities]

        return [asked], call

    return prepare


def lle(k: int) -> Task:
    def prepare(x: Array, threads: int) -> Prepared:
        # Any neighbors do, and random ones are the worst for the cache.
        neighbors = np.random.default_rng(1).integers(0, len(x), (len(x), k), dtype=np.int32)

        def call() -> list[Array]:
            result = embgeom.lle(x, neighbors, threads=threads)
            return [result.weights, result.residuals, result.status]

        return [neighbors], call

    return prepare


def dimension(sample: int) -> Task:
    def prepare(x: Array, threads: int) -> Prepared:
        rng = np.random.default_rng(1)
        rows = rng.choice(len(x), sample, replace=False)
        neighbors = rng.integers(0, len(x), (sample, 1200), dtype=np.int32)

        def call() -> list[Array]:
            result = embgeom.intrinsic_dimension(x, neighbors, rows=rows, threads=threads)
            return [result.n_components, result.participation_ratio, result.explained_variance_ratio]

        return [neighbors, rows], call

    return prepare


def similarity(x: Array, threads: int) -> Prepared:
    half = np.ascontiguousarray(x[:, : x.shape[1] // 2])

    def call() -> list[Array]:
        embgeom.global_similarity(x, half, center=True, threads=threads)
        return []

    return [half], call


def chance(k: int) -> Task:
    def prepare(x: Array, threads: int) -> Prepared:
        rng, tokens = np.random.default_rng(1), np.arange(len(x), dtype=np.int32)[:, None]
        # Any neighbors do that are no token's own.
        steps = [rng.choice(len(x) - 1, k, replace=False).astype(np.int32) + 1 for _ in range(2)]
        lists = [tokens + step for step in steps]
        for listed in lists:
            np.remainder(listed, len(x), out=listed)

        def call() -> list[Array]:
            overlap_estimate(*lists, strata=np.arange(len(x)) // 100, draws=20, threads=threads)
            return []

        return lists, call

    return prepare


def fit(x: Array, threads: int) -> Prepared:
    other = np.random.default_rng(1).standard_normal(x.shape, dtype=np.float32)

    def call() -> list[Array]:
        return [embgeom.Emb2Emb.fit(x, other, threads=threads).matrix]

    return [other], call


TASKS: dict[str, Task] = {
    "knn, k = 10": knn(10),
    "knn, k = 1200": knn(1200),
    "knn, k = 10, 8192 queries": queries(10),
    "lle, k = 10": lle(10),
    "lle, k = 50": lle(50),
    "lle, k = 100": lle(100),
    "intrinsic_dimension, k = 1200, 200 rows": dimension(200),
    "global_similarity, centered, d and d / 2": similarity,
    "overlap_estimate, k = 1200": chance(1200),
    "Emb2Emb.fit, with scores": fit,
}


def megabytes(arrays: list[Array]) -> float:
    return sum(array.nbytes for array in arrays) / MB


def measure(name: str, rows: int, columns: int, threads: int) -> str:
    """Run one task in this process and describe it as a row of a Markdown table."""
    x = np.random.default_rng(0).standard_normal((rows, columns), dtype=np.float32)
    others, call = TASKS[name](x, threads)
    begin = time.perf_counter()
    found = call()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    given, output = megabytes([x, *others]), megabytes(found)
    room = peak - given - output
    verdict = "within" if room <= BOUND_MB else "BEYOND"
    sizes = f"{given:.0f} | {output:.0f} | {peak:.0f} | {room:.0f} ({verdict})"
    return f"| {name} | {seconds:.2f} | {sizes} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", type=int, nargs="?", default=50257)
    parser.add_argument("columns", type=int, nargs="?", default=768)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--task", choices=TASKS, help="run this one here instead of all in processes of their own"
    )
    options = parser.parse_args()
    if options.rows < FEWEST_ROWS:
        parser.error(f"rows: {options.rows} are too few; the tasks ask for up to 1,200 neighbors")
    if options.task:
        print(measure(options.task, options.rows, options.columns, options.threads))
        return
    print(f"{options.rows} x {options.columns} float32, {options.threads} threads; sizes in MB\n")
    print("| kernel | seconds | input | output | peak | peak - input - output, of 256 |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in TASKS:
        size = [str(options.rows), str(options.columns), "--threads", str(options.threads)]
        command = [sys.executable, "-m", "benchmarks.kernels.peak_memory", *size, "--task", name]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

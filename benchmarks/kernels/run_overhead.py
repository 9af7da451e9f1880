"""What keeping the work of a run costs: `python -m benchmarks.kernels.run_overhead`.

Alternates `intrinsic_dimension` and `run` on the same rows, and prints the medians and their ratio. The
blocks are as a real run cuts them, or as many as --blocks says, which shows what more of them would cost.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import numpy as np

import embgeom
from benchmarks.compare.problem import synthetic
from embgeom.runs import run as run_module


def cut(count_of_blocks):
    """Let new runs have this many blocks in each stage but the search."""

    def boundaries(parameters, shape, count, **_):
        ends = [count * part // count_of_blocks for part in range(count_of_blocks + 1)]
        return {stage: [0, count] if stage == "knn" else ends for stage in parameters.stages}

    run_module.boundaries = boundaries


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("rows", 16384), ("columns", 768), ("tokens", 600), ("k", 1200), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--folder", help="where runs are kept, such as a network file system")
    options = parser.parse_args()
    if options.blocks:
        cut(options.blocks)
    x = synthetic(options.rows, options.columns, seed=0)
    tokens = min(options.tokens, len(x))
    rows = None if tokens == len(x) else np.random.default_rng(1).choice(len(x), tokens, replace=False)
    common = {"k": options.k, "rows": rows, "threads": options.threads}
    seconds = {"plain": [], "run": []}
    embgeom.intrinsic_dimension(x[:1500], k=50, threads=options.threads)  # threads are started
    for turn in range(options.rounds):
        results = {}
        for which in ("plain", "run") if turn % 2 else ("run", "plain"):
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                begin = time.perf_counter()
                if which == "plain":
                    results[which] = embgeom.intrinsic_dimension(x, **common)
                else:
                    results[which] = embgeom.run("dimension", x, folder, **common)
                seconds[which].append(time.perf_counter() - begin)
        for name in ("n_components", "participation_ratio", "explained_variance_ratio", "decided_in_float64"):
            assert len({getattr(result, name).tobytes() for result in results.values()}) == 1, name
    plain, run = (statistics.median(seconds[which]) for which in ("plain", "run"))
    size = f"{options.rows} x {options.columns}, {tokens} tokens, k = {options.k}"
    print(f"{size}: plain {plain:.2f} s, run {run:.2f} s, {100 * (run / plain - 1):+.2f} %")


if __name__ == "__main__":
    main()

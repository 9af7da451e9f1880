"""Intrinsic dimension beside the float32 arithmetic it cannot do without, on one thread.

    python -m benchmarks.kernels.dimension_ratio --columns 768 2048 --json FILE

For each number of columns, a process of its own times per token, in turns: `intrinsic_dimension`; NumPy's
Gram matrix of the centered neighbors, on its smaller side; and LAPACK's reduction of it to tridiagonal form
(ssytrd, from SciPy). Prints medians in ms, the ratio of the first to the sum of the others, and the share of
tokens that float64 decided.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.compare.problem import Size, local_problem

NAMES = ("embgeom", "gram", "ssytrd")


def measure(columns: int, options: argparse.Namespace) -> dict[str, object]:
    """Return the median ms of one token by each contender, and the share that float64 decided."""
    from scipy.linalg.lapack import ssytrd, ssytrd_lwork

    from embgeom import intrinsic_dimension

    problem = local_problem(Size(3 * options.k + 1, columns, 1), options.tokens, k=options.k)
    milliseconds: dict[str, list[float]] = {name: [] for name in NAMES}
    shares = []
    centered = []
    for list_ in problem.lists[: options.compared]:
        z = problem.x[list_] - problem.x[list_].mean(axis=0)
        centered.append(z if options.k <= columns else np.ascontiguousarray(z.T))
    room = int(ssytrd_lwork(len(centered[0]), lower=0)[0])
    for _ in range(options.rounds):
        begin = time.perf_counter()
        result = intrinsic_dimension(problem.x, problem.lists, rows=problem.tokens, threads=1)
        milliseconds["embgeom"].append((time.perf_counter() - begin) / options.tokens * 1e3)
        shares.append(float(result.decided_in_float64.mean()))
        for z in centered:
            begin = time.perf_counter()
            gram = z @ z.T
            middle = time.perf_counter()
            ssytrd(gram.T, lower=0, lwork=room, overwrite_a=1)
            milliseconds["gram"].append((middle - begin) * 1e3)
            milliseconds["ssytrd"].append((time.perf_counter() - middle) * 1e3)
    found = {name: statistics.median(milliseconds[name]) for name in NAMES}
    ratio = found["embgeom"] / (found["gram"] + found["ssytrd"])
    return {"columns": columns, "k": options.k, **found, "ratio": ratio, "decided_in_float64": shares[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--columns", type=int, nargs="+", default=[768, 1024, 1536, 2048, 4096])
    parser.add_argument("--k", type=int, default=1200)
    parser.add_argument("--tokens", type=int, default=20, help="tokens of a call")
    parser.add_argument("--compared", type=int, default=4, help="tokens whose parts are timed in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(options.columns[0], options)))
        return
    print("| d | embgeom, ms | gram | ssytrd | ratio | decided in float64 |\n|---|---|---|---|---|---|")
    found = []
    for columns in options.columns:
        sizes = [f"--{name}={getattr(options, name)}" for name in ("k", "tokens", "compared", "rounds")]
        command = [sys.executable, "-m", "benchmarks.kernels.dimension_ratio", "--child", *sizes]
        # NumPy's and SciPy's BLAS take their number of threads from here when they are loaded.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        command.append(f"--columns={columns}")
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout)
        found.append(row)
        cells = [f"{row[name]:.1f}" for name in NAMES]
        share = f"{row['decided_in_float64']:.0%}"
        print(f"| {columns} | {' | '.join(cells)} | {row['ratio']:.2f} | {share} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Two builds of the extension side by side: `python -m benchmarks.kernels.two_builds OLD NEW`.

OLD and NEW are folders that hold an installed embgeom, as `pip install --no-deps --target OLD .` makes them.
Each measurement is a process of its own; the build that goes first changes from round to round. Prints the
medians, their ratio, and whether both builds gave the same bits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.compare.problem import synthetic

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("knn, k = 10", "knn, k = 1200", "lle, k = 50", "dimension, k = 1200", "global similarity")


def call(task, x, threads):
    """Run one kernel of the extension that PYTHONPATH names, and return its arrays."""
    from embgeom import _core

    rng = np.random.default_rng(1)
    common = {"threads": threads, "progress": None}
    if task.startswith("knn"):
        k = min(int(task.split()[-1]), len(x) - 1)
        return _core.knn_of_rows(x, None, k=k, metric=_core.Metric.cosine, exclude_self=True, **common)
    if task.startswith("lle"):
        return _core.lle(x, rng.integers(0, len(x), (len(x), 50), dtype=np.int32), None, reg=1e-3, **common)
    if task.startswith("dimension"):
        rows = rng.choice(len(x), min(200, len(x)), replace=False).astype(np.int64)
        lists = rng.integers(0, len(x), (len(rows), 1200), dtype=np.int32)
        return _core.intrinsic_dimension(x, lists, rows, variance=0.95, **common)
    half = x[:, : x.shape[1] // 2].copy()
    return (
        np.float64(_core.global_similarity(x, half, None, center=True, include_diagonal=False, **common)),
    )


def measure(task, rows, columns, threads):
    """Print the seconds of one call, a digest of what it returned, and the extension's path, as JSON."""
    from embgeom import _core

    x = synthetic(rows, columns, seed=0)
    call(task, x[:1500].copy(), threads)  # threads are started, code is loaded
    begin = time.perf_counter()
    found = call(task, x, threads)
    seconds = time.perf_counter() - begin
    digest = hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in found)).hexdigest()
    print(json.dumps({"seconds": seconds, "digest": digest, "path": _core.__file__}))


def run(build, task, options):
    """Measure a task with a build in a process of its own."""
    size = [f"--rows={options.rows}", f"--columns={options.columns}", f"--threads={options.threads}"]
    # -S keeps an installed embgeom from coming first; what it needs is found where it is found here.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(build), str(ROOT), *sys.path[1:]])}
    command = [sys.executable, "-S", "-m", "benchmarks.kernels.two_builds", ".", ".", f"--task={task}", *size]
    done = subprocess.run(command, env=environment, cwd=build, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found = json.loads(done.stdout)
    if not Path(found["path"]).is_relative_to(build):
        sys.exit(f"{found['path']} is not the extension in {build}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=50257)
    parser.add_argument("--columns", type=int, default=768)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        measure(options.task, options.rows, options.columns, options.threads)
        return
    builds = (options.old.resolve(), options.new.resolve())
    print("| kernel | old, s | new, s | new / old | same bits |\n|---|---|---|---|---|")
    for task in TASKS:
        found = {0: [], 1: []}
        for turn in range(options.rounds):
            for side in (turn % 2, 1 - turn % 2):
                found[side].append(run(builds[side], task, options))
        old, new = (statistics.median(entry["seconds"] for entry in found[side]) for side in (0, 1))
        same = len({entry["digest"] for side in found for entry in found[side]}) == 1
        print(f"| {task} | {old:.3f} | {new:.3f} | {new / old:.3f} | {'yes' if same else 'no'} |", flush=True)


if __name__ == "__main__":
    main()

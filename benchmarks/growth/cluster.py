"""What a Dask cluster gains, and where it stops gaining.

    python -m benchmarks.growth.cluster --measure     three minutes on two cores: measures and simulates
    python -m benchmarks.growth.cluster               simulates with the costs that were measured

Run in the repository's root. Writes cluster.json and cluster.md into the output folder: two worker processes
of one thread beside one process of two threads, what each step of a run on a cluster costs, and a simulation
of larger clusters with these costs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import embgeom
from benchmarks.compare.problem import Size, synthetic
from benchmarks.compare.record import Record, new_record, write_whole
from benchmarks.growth.pages import QUICK
from benchmarks.growth.simulation import Case, Costs, Simulation, worker_bytes
from embgeom._common.record import array_digest
from embgeom._common.writing import save_tensors, write_file

ROWS, COLUMNS, K = 262144, 5376, 1200
WORKERS, THREADS = (1, 4, 16, 64, 256, 1024), 16
# Ten gigabits a second.
LINK = 1.25e9
# What Dask's documentation gives for a task: https://distributed.dask.org
TASK_SECONDS = 1e-3
SOURCES = {
    "search_rate": ("multiply-adds a second and thread of a search", "measured, d = 5,376"),
    "token_seconds": ("seconds a token and thread for its dimension", "measured, d = 5,376, k = 1,200"),
    "link": ("bytes a second of each machine's network", "assumed, 10 Gb/s"),
    "copy_rate": ("bytes a second from one worker to another", "measured between two processes"),
    "digest_rate": ("bytes a second of SHA-256", "measured"),
    "order_seconds": ("seconds of the client for a block without data", "measured"),
    "order_rate": ("bytes a second of neighbor lists to a worker", "measured"),
    "result_rate": ("bytes a second of results to the client", "measured"),
    "write_seconds": ("seconds to keep a block, without data", "measured"),
    "write_rate": ("bytes a second to keep a block", "measured"),
    "task_seconds": ("seconds of the scheduler for a task", "Dask's documentation"),
    "spread": ("by how much blocks of the same size differ", "assumed"),
}


def seconds(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def cluster(workers: int) -> Any:
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    )


def measure_speed(shape: tuple[int, int], k: int, tokens: int, rounds: int) -> Record:
    """Time a run on two workers of one thread and in one process of two threads, in turns."""
    from distributed import Client

    x = synthetic(*shape, seed=0)
    rows = np.sort(np.random.default_rng(0).choice(len(x), tokens, replace=False))
    found: dict[str, list[float]] = {"two threads": [], "two workers": []}
    results = []
    with cluster(2) as local, Client(local, direct_to_workers=True) as client:
        for turn in range(rounds):
            for side, name in enumerate(found) if turn % 2 == 0 else reversed(list(enumerate(found))):
                with tempfile.TemporaryDirectory() as folder:
                    begin = time.perf_counter()
                    keywords = {"k": k, "rows": rows, "threads": 2, "client": client if side else None}
                    results.append(embgeom.run("dimension", x, folder, **keywords))
                    found[name].append(time.perf_counter() - begin)
    same = all(np.array_equal(result.n_components, results[0].n_components) for result in results)
    return {"rows": shape[0], "columns": shape[1], "k": k, "tokens": tokens, "seconds": found, "same": same}


def measure_costs(rows: int, columns: int, k: int, megabytes: int) -> Costs:
    """Measure what a run on a cluster waits for."""
    from distributed import Client

    x = synthetic(rows, columns, seed=0)
    some = np.arange(min(512, rows // 2))
    search = seconds(lambda: embgeom.knn(x, k, rows=some, threads=1))
    lists = np.random.default_rng(0).integers(0, rows, (24, k), dtype=np.int32)
    token = seconds(lambda: embgeom.intrinsic_dimension(x, lists, rows=np.arange(24), threads=1)) / 24
    large, block = np.zeros(megabytes << 18, np.float32), np.zeros((1024, 1200), np.int32)
    with (
        cluster(2) as local,
        Client(local, direct_to_workers=True) as client,
        tempfile.TemporaryDirectory() as folder,
    ):
        first, second = client.nthreads()
        client.submit(len, block, workers=first, pure=False).result()
        held = client.scatter(large, workers=[first], hash=False)
        copied = seconds(client.submit(len, held, workers=second, pure=False).result)
        empty = min(seconds(client.submit(int, workers=first, pure=False).result) for _ in range(50))
        sent = min(
            seconds(lambda: client.submit(len, block, workers=first, pure=False).result()) for _ in range(8)
        )
        made = client.submit(np.zeros, (1024, 1200), np.int32, workers=first, pure=False)
        made.result()
        fetched = min(seconds(lambda: client.gather(made)) for _ in range(8))

        def keep(array: np.ndarray) -> float:
            write = lambda path: save_tensors({"indices": array}, path, {})  # noqa: E731
            return min(
                seconds(lambda: write_file(Path(folder) / "block.safetensors", write)) for _ in range(8)
            )

        kept, kept_empty = keep(block), keep(block[:1])
    return Costs(
        search_rate=len(some) * rows * columns / search,
        token_seconds=token,
        link=LINK,
        copy_rate=large.nbytes / copied,
        digest_rate=large.nbytes / seconds(lambda: array_digest(large)),
        order_seconds=empty,
        order_rate=block.nbytes / max(sent - empty, 1e-4),
        result_rate=block.nbytes / fetched,
        write_seconds=kept_empty,
        write_rate=block.nbytes / max(kept - kept_empty, 1e-4),
        task_seconds=TASK_SECONDS,
    )


def measure(quick: bool) -> Record:
    """Return the record of what was measured."""
    shape, tokens, k = ((600, 16), 40, 50) if quick else ((16384, 768), 2400, K)
    record = new_record(Size(*shape, 2, quick))
    del record["cases"]
    record["speed"] = measure_speed(shape, k, tokens, rounds=2)
    shape, megabytes = ((600, 16), 4) if quick else ((8192, COLUMNS), 1024)
    return record | {"costs": asdict(measure_costs(*shape, k, megabytes))}


def simulate(costs: Costs) -> list[Record]:
    """Return what clusters of each size need."""
    cases = [Case(ROWS, COLUMNS, K, workers, THREADS) for workers in WORKERS]
    return [asdict(case) | asdict(Simulation(case, costs).run()) for case in cases]


def markdown(record: Record) -> str:
    """Return the page: the comparison, the costs, and the simulation."""
    speed, costs = record["speed"], record["costs"]
    threads, workers = (speed["seconds"][name] for name in ("two threads", "two workers"))
    speeds = [
        f"| {name} | {rule(threads):.1f} | {rule(workers):.1f} | {rule(threads) / rule(workers):.2f} |"
        for name, rule in (("median", np.median), ("fastest", min))
    ]
    case = Case(ROWS, COLUMNS, K, 64, THREADS)
    gigabytes = case.matrix_bytes / 1e9
    lines = [
        "# Runs on a Dask cluster",
        "",
        *([QUICK, ""] if record["quick"] else []),
        f"{record['cores']} cores of {record['processor']}, embgeom {record['versions'].get('embgeom')}, "
        f"{record['date']}; `python -m benchmarks.growth.cluster --measure`.",
        "",
        "## Two workers of one thread beside one process of two threads",
        "",
        f'`embgeom.run("dimension", ...)` of {speed["tokens"]:,} tokens, {speed["rows"]:,} x '
        f"{speed['columns']:,}, k = {speed['k']:,}, with the search for neighbors, sending the matrix and "
        f"writing the blocks; seconds of {len(threads)} rounds. The results are "
        f"{'the same' if speed['same'] else 'NOT the same'}.",
        "",
        "| | two threads | two workers | speed of the workers relative to the threads |",
        "|---|---|---|---|",
        *speeds,
        "",
        f"## Larger clusters, simulated: all dimensions of {ROWS:,} x {COLUMNS:,}, k = {K:,}",
        "",
        f"Workers of {THREADS} cores. A simulation by events (`benchmarks/growth/simulation.py`) follows "
        "the client, which does one thing at a time, the scheduler, the links and the workers, with the "
        "blocks that a run would be cut into and the costs below. It assumes that 16 threads do 16 times the "
        "work of one. *Matrix everywhere* counts from the call; *efficiency* is the share of the workers' "
        "time that is spent in kernels; *client* and *scheduler* are the shares of the time that they are "
        "busy.",
        "",
        "| workers | blocks | matrix everywhere, s | neighbors found, s | all done, s | efficiency | client "
        "| scheduler |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {entry['workers']:,} | {entry['blocks']:,} | {entry['spread_out']:,.0f} "
        f"| {entry['searched']:,.0f} | {entry['total']:,.0f} | {entry['efficiency']:.0%} "
        f"| {entry['caller']:.0%} | {entry['scheduler']:.1%} |"
        for entry in record["simulated"]
    ]
    lines += [
        "",
        f"A worker needs {worker_bytes(case) / 1e9:.1f} GB, of which the matrix is {gigabytes:.1f}. The "
        "neighbor lists, which go to the client with the blocks of the search and from there to the workers, "
        f"are {4 * ROWS * K / 1e9:.2f} GB. If each worker read the matrix from one file server on such "
        f"a link instead, 64 of them would take {64 * case.matrix_bytes / LINK:,.0f} s.",
        "",
        "| cost | value | from |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {costs[name]:.3g} | {source} |" for name, (what, source) in SOURCES.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", action="store_true", help="measure first")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true", help="tiny problems")
    options = parser.parse_args()
    file = options.output / "cluster.json"
    record = measure(options.quick) if options.measure else json.loads(file.read_text(encoding="utf-8"))
    record["simulated"] = simulate(Costs(**record["costs"]))
    write_whole(file, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_whole(options.output / "cluster.md", markdown(record))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()

"""Fitting a map over whole vocabularies, beside torch and NumPy: seconds, peak memory, and error.

    python -m benchmarks.steering.map_fit         128,256 x 2,048 -> 3,072, as two of Llama 3's sizes
    python -m benchmarks.steering.map_fit --rows 20000 --source 256 --target 384

Each contender is a process of its own and fits the same synthetic matrices by least squares, without a
split or scores. The error is that of its map from a solution by float64 QR, in the Frobenius norm,
relative; the peak is how far the process's memory rose above the two matrices.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.compare.problem import Size
from benchmarks.compare.record import new_record, write_whole

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray
MB = 1e6
BOUND_MB = 1000


def matrices(rows: int, source: int, target: int) -> tuple[Array, Array]:
    """Return rows whose spectrum falls off, as of embeddings, and what a map makes of them, plus noise."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, source), dtype=np.float32)
    x /= np.arange(1, source + 1, dtype=np.float32) ** np.float32(0.5)
    true = rng.standard_normal((source, target), dtype=np.float32) / np.float32(source**0.5)
    y = x @ true
    for begin in range(0, rows, 4096):
        piece = y[begin : begin + 4096]
        piece += np.float32(0.1) * rng.standard_normal(piece.shape, dtype=np.float32)
    return x, y


def by_embgeom(x: Array, y: Array, threads: int) -> Array:
    import embgeom
    from embgeom.emb2emb import LeastSquares

    mapping = embgeom.Emb2Emb.fit(x, y, method=LeastSquares(center=False), held_out=0, threads=threads)
    assert mapping.matrix is not None
    return mapping.matrix


def by_numpy(x: Array, y: Array, threads: int) -> Array:
    return np.linalg.lstsq(x, y, rcond=None)[0]


def by_torch(x: Array, y: Array, threads: int) -> Array:
    import torch

    torch.set_num_threads(threads)
    return torch.linalg.lstsq(torch.from_numpy(x), torch.from_numpy(y)).solution.numpy()


def by_normal_equations(x: Array, y: Array, threads: int) -> Array:
    return np.linalg.solve(x.T @ x, x.T @ y)


def by_float64_qr(x: Array, y: Array, threads: int) -> Array:
    import torch

    torch.set_num_threads(threads)
    q, r = torch.linalg.qr(torch.from_numpy(x).double())
    right = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64)
    for begin in range(0, len(x), 4096):
        right += q[begin : begin + 4096].T @ torch.from_numpy(y[begin : begin + 4096]).double()
    return torch.linalg.solve_triangular(r, right, upper=True).numpy()


CONTENDERS: dict[str, Callable[[Array, Array, int], Array]] = {
    "float64 QR, the reference": by_float64_qr,
    "embgeom": by_embgeom,
    "torch.linalg.lstsq, float32": by_torch,
    "numpy.linalg.lstsq, float32": by_numpy,
    "NumPy, float32 normal equations": by_normal_equations,
}


def measure(name: str, options: argparse.Namespace) -> None:
    """Run one contender here, and write its map and its figures into the folder."""
    x, y = matrices(options.rows, options.source, options.target)
    begin = time.perf_counter()
    found = CONTENDERS[name](x, y, options.threads)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    np.save(options.folder / f"{list(CONTENDERS).index(name)}.npy", found)
    figures = {"seconds": seconds, "peak_mb": peak - (x.nbytes + y.nbytes) / MB}
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=128256)
    parser.add_argument("--source", type=int, default=2048)
    parser.add_argument("--target", type=int, default=3072)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=400, help="seconds for each contender")
    parser.add_argument("--output", type=Path, help="a folder for map_fit.json and map_fit.md")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        measure(options.contender, options)
        return
    record = new_record(Size(options.rows, options.source, options.threads))
    record = {key: entry for key, entry in record.items() if key != "cases"}
    record |= {"limit": options.limit, "target_columns": options.target, "contenders": compare(options)}
    text = page(record)
    print(text)
    if options.output:
        write_whole(options.output / "map_fit.json", json.dumps(record, indent=1) + "\n")
        write_whole(options.output / "map_fit.md", text)


def compare(options: argparse.Namespace) -> dict[str, dict[str, float | None]]:
    """Run each contender in a process of its own."""
    sizes = [f"--{name}={getattr(options, name)}" for name in ("rows", "source", "target", "threads")]
    found: dict[str, dict[str, float | None]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for place, name in enumerate(CONTENDERS):
            command = [
                sys.executable,
                "-m",
                "benchmarks.steering.map_fit",
                *sizes,
                f"--contender={name}",
                f"--folder={folder}",
            ]
            try:
                done = subprocess.run(
                    command, cwd=ROOT, capture_output=True, text=True, timeout=options.limit, check=True
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                found[name] = {"seconds": None, "peak_mb": None, "error": None}
                continue
            figures = json.loads(done.stdout)
            reference = np.load(Path(folder) / "0.npy")
            mine = np.load(Path(folder) / f"{place}.npy").astype(np.float64)
            error = float(np.linalg.norm(mine - reference) / np.linalg.norm(reference))
            found[name] = {**figures, "error": error if place else None}
            print(f"{name}: {figures['seconds']:.1f} s, error {error:.1e}", file=sys.stderr, flush=True)
    return found


def page(record: dict) -> str:
    """Return the figures as Markdown."""
    lines = [
        "# Fitting a map over a whole vocabulary",
        "",
        f"{record['rows']:,} x {record['columns']:,} -> {record['target_columns']:,} float32 (synthetic), "
        f"least squares, {record['threads']} threads of {record['cores']} cores of {record['processor']}, "
        f'{record["date"]}. embgeom also solves the reverse problem, for the mode "logits". *Peak* is '
        f"memory above the two matrices, of which embgeom's bound is {BOUND_MB} MB.",
        "",
        "| | seconds | peak MB | error |",
        "|---|---|---|---|",
    ]
    for name, figures in record["contenders"].items():
        if figures["seconds"] is None:
            lines.append(f"| {name} | not within {record['limit']:.0f} s, or out of memory | | |")
            continue
        error = "" if figures["error"] is None else f"{figures['error']:.1e}"
        lines.append(f"| {name} | {figures['seconds']:.1f} | {figures['peak_mb']:.0f} | {error} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""How the cost of each kernel grows with the vocabulary, the width, the neighbors and the threads.

    python -m benchmarks.growth                        a few minutes on two cores
    python -m benchmarks.growth --quick --output DIR   shows in seconds that everything works

Run in the repository's root. Writes growth.json, growth.svg and growth.md into the output folder: times,
exponents fitted to them, and a prediction for the vocabularies of two current models. The answer at the first
point of each axis is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compare.problem import Size
from benchmarks.compare.record import Record, new_record, write_whole
from benchmarks.growth.kernels import Kernel, Point, kernels, thread_counts, time_point
from benchmarks.growth.pages import markdown, picture

BASE_ROWS, BASE_COLUMNS = 16384, 256
VALUES = {
    "rows": (4096, 8192, 16384, 32768, 65536, 131072),
    "columns": (128, 256, 512, 1024, 2048, 4096),
    "k": (5, 10, 20, 50, 100, 200, 500, 1000, 2000),
    "threads": thread_counts(),
}
QUICK_ROWS, QUICK_COLUMNS = 400, 16
QUICK_VALUES = {"rows": (300, 600), "columns": (16, 32), "k": (5, 10), "threads": (1, 2)}

MODELS = {"Llama 3 (128,256 x 4,096)": (128256, 4096), "Gemma 3 (262,144 x 5,376)": (262144, 5376)}
FORMULA = (
    "seconds = work(V, d, k) / rate, for kernels that go token by token times V tokens; "
    "rate = work / seconds at the measured point of most columns, with all threads"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="all cores by default")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true", help="tiny problems")
    return parser.parse_args()


def measure(kernel: Kernel, values: dict[str, tuple[int, ...]], begin: float) -> Record:
    """Time a kernel along all its axes, and return its entry of the record."""
    axes: Record = {}
    time_point(kernel, kernel.base, check=False)  # code is loaded and threads are started
    for axis in kernel.axes:
        points = []
        for point in kernel.points(axis, values):
            points.append(time_point(kernel, point, check=not points))
            seconds = points[-1]["seconds"]
            print(f"[{time.monotonic() - begin:6.1f} s] {kernel.name}: {point}: {seconds:.3g} s", flush=True)
        axes[axis] = {"points": points, "exponent": exponents(axis, points)}
    return {
        "formula": kernel.formula,
        "per_token": kernel.per_token,
        "axes": axes,
        "predictions": predictions(kernel, axes),
    }


def exponent(values: list[int], seconds: list[float]) -> float | None:
    """Return b of the best fit seconds = a values^b in logarithms; None for a single point."""
    if len(values) < 2:
        return None
    return float(np.polyfit(np.log(values), np.log(seconds), 1)[0])


def exponents(axis: str, points: list[dict[str, Any]]) -> dict[str, float | None]:
    """Fit over all points, and over the upper half of the range, where fixed costs no longer count."""
    values, seconds = [point[axis] for point in points], [point["seconds"] for point in points]
    half = len(values) // 2 if len(values) > 2 else 0
    return {"all": exponent(values, seconds), "upper_half": exponent(values[half:], seconds[half:])}


def predictions(kernel: Kernel, axes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the seconds that a whole vocabulary of each model should take, by FORMULA."""
    widest = axes["columns"]["points"][-1]
    found = []
    for model, (rows, columns) in MODELS.items():
        point = Point(rows, columns, widest["k"], widest["threads"])
        work = kernel.work(point) * (rows if kernel.per_token else 1)
        seconds = work / widest["rate"]
        found.append({"model": model, "k": point.k, "work": work, "rate": widest["rate"], "seconds": seconds})
    return found


def save(folder: Path, record: Record) -> None:
    """Write what was measured so far, each file atomically."""
    write_whole(folder / "growth.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "growth.md", markdown(record))


def main() -> None:
    options = arguments()
    rows, columns = (QUICK_ROWS, QUICK_COLUMNS) if options.quick else (BASE_ROWS, BASE_COLUMNS)
    values = QUICK_VALUES if options.quick else VALUES
    record = new_record(Size(rows, columns, options.threads, options.quick))
    del record["cases"]
    record |= {"prediction": FORMULA, "kernels": {}}
    begin = time.monotonic()
    for kernel in kernels(rows, columns, options.threads):
        record["kernels"][kernel.name] = measure(kernel, values, begin)
        save(options.output, record)
    write_whole(options.output / "growth.svg", picture(record))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()

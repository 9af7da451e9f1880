"""Exponents by least squares, and the costs that the measured rates predict for current models."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.growth.kernels import Kernel, Point

MODELS = {"Llama 3 (128,256 x 4,096)": (128256, 4096), "Gemma 3 (262,144 x 5,376)": (262144, 5376)}
FORMULA = (
    "seconds = work(V, d, k) / rate, for kernels that go token by token times V tokens; "
    "rate = work / seconds at the measured point of most columns, with all threads"
)


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

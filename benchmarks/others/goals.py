"""What is hoped for, as ratios of medians: a benchmark reports them, and asserts none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EMBGEOM, GEMM = ("embgeom",), ("GEMM alone",)
FAISS = ("faiss", "faiss, best blocks")
KNN_PEERS = (*FAISS, "torch", "NumPy", "scikit-learn")
ONE_CALL = ("torch, token by token", "torch, batched", "scipy")
PCA = ("scikit-learn PCA, covariance_eigh", "scikit-learn PCA, full")
BRUTE_FORCE = ("torch, all pairs", "torch, each pair once", "NumPy, all pairs")
OWN_PRODUCTS = ("its own products at sgemm's speed",)
DIMENSION = "intrinsic dimension, k = 1200"

Median = Callable[[str, str], float | None]


@dataclass(frozen=True)
class Goal:
    """The fastest of some contenders over the fastest of others, and the bound that it should keep.

    Without `under`, the median itself in seconds.
    """

    name: str
    case: str
    over: tuple[str, ...]
    under: tuple[str, ...]
    bound: float
    at_most: bool = False

    def value(self, median: Median) -> float | None:
        """Return what was measured; None where one side was not."""
        sides = [fastest(self.case, names, median) for names in (self.over, self.under)]
        if not self.under:
            return sides[0]
        return None if None in sides else sides[0] / sides[1]

    def report(self, median: Median) -> dict[str, Any]:
        """Return the goal's entry of the record."""
        value = self.value(median)
        reached = (
            None if value is None else bool(value <= self.bound if self.at_most else value >= self.bound)
        )
        bound = {"bound": self.bound, "direction": "at most" if self.at_most else "at least"}
        return {"goal": self.name, "case": self.case, **bound, "measured": value, "reached": reached}


def fastest(case: str, names: tuple[str, ...], median: Median) -> float | None:
    """Return the smallest of the medians that were measured."""
    return min((value for name in names if (value := median(case, name)) is not None), default=None)


def goal(case: str, name: str, over: tuple[str, ...], under: tuple[str, ...], bound: float) -> Goal:
    """Make a goal of a ratio to embgeom's time (at least the bound) or of embgeom's (at most)."""
    return Goal(f"{case}: {name}", case, over, under, bound, at_most=over == EMBGEOM)


GOALS = (
    goal("knn, k = 10", "embgeom / GEMM", EMBGEOM, GEMM, 0.52),
    goal("knn, k = 10", "best faiss / embgeom", FAISS, EMBGEOM, 1.9),
    goal("knn, k = 50", "embgeom / GEMM", EMBGEOM, GEMM, 0.56),
    goal("knn, k = 50", "best faiss / embgeom", FAISS, EMBGEOM, 1.9),
    goal("knn, k = 1200", "embgeom / GEMM", EMBGEOM, GEMM, 0.62),
    goal("knn, k = 1200", "best peer / embgeom", KNN_PEERS, EMBGEOM, 2.3),
    goal("8192 queries, k = 10", "embgeom / GEMM", EMBGEOM, GEMM, 1.05),
    goal("8192 queries, k = 50", "embgeom / GEMM", EMBGEOM, GEMM, 1.05),
    goal("LLE, k = 10", "best torch / embgeom", ("torch",), EMBGEOM, 7),
    goal("LLE, k = 10", "scikit-learn / embgeom", ("scikit-learn",), EMBGEOM, 40),
    goal("LLE, k = 50", "best torch / embgeom", ("torch",), EMBGEOM, 7),
    goal("LLE, k = 50", "scikit-learn / embgeom", ("scikit-learn",), EMBGEOM, 7),
    goal(DIMENSION, "best single call of torch or scipy / embgeom", ONE_CALL, EMBGEOM, 2.5),
    goal(DIMENSION, "best scikit-learn PCA / embgeom", PCA, EMBGEOM, 10),
    goal(DIMENSION, "stretch: scipy in processes / embgeom", ("scipy, in processes",), EMBGEOM, 1.5),
    *(
        made
        for case in ("global similarity, not centered", "global similarity, centered")
        for made in (
            goal(case, "best brute force / embgeom", BRUTE_FORCE, EMBGEOM, 40),
            goal(case, "embgeom / its own products at sgemm's speed", EMBGEOM, OWN_PRODUCTS, 1.3),
        )
    ),
    Goal("import embgeom, in seconds", "a fresh interpreter", EMBGEOM, (), 0.3, at_most=True),
)


def evaluated(cases: dict[str, Any]) -> list[dict[str, Any]]:
    """Evaluate all goals over the record's cases."""

    def median(case: str, contender: str) -> float | None:
        return cases.get(case, {}).get("contenders", {}).get(contender, {}).get("median")

    return [each.report(median) for each in GOALS]

"""How often the 95 % intervals of the measures hold what they should, on synthetic pairs of models.

    python -m benchmarks.coverage                     500 pairs of each of five families
    python -m benchmarks.coverage --pairs 40 --families gaussian --measures rsa --output FOLDER
    python -m benchmarks.coverage --tokens 800 --measures dimension_pearson --output FOLDER

What earlier runs in the folder found on other families and measures, by as many pairs and tokens, stays in
the table.

A family fixes two ways to make rows from what the tokens mean; each pair is a fresh sample of tokens. What an
interval should hold is the mean of the measure over all pairs of the family. The table also says how the
spread of the values compares with the standard error behind the intervals: 1 is right.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

import embgeom
from embgeom.comparison.nulls import (
    Estimate,
    correlation_estimate,
    global_similarity_estimate,
    overlap_estimate,
    weight_cosine_estimate,
)
from embgeom.comparison.panel import cka_estimate, procrustes_estimate, rsa_estimate

RESULTS = Path(__file__).resolve().parent / "results"
TOKENS, LATENT, D_A, D_B = 400, 12, 24, 16
K, DIMENSION_K = 10, 50
MEASURES = (
    "global_similarity",
    "global_similarity_centered",
    "neighbor_overlap",
    "weight_cosine",
    "cka",
    "rsa",
    "procrustes",
    "dimension_pearson",
    "dimension_spearman",
)
NORMAL = 1.959963984540054
Array = np.ndarray
Rows = Callable[[np.random.Generator, int], Array]


def gaussian(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal((n, LATENT))


def clustered(rng: np.random.Generator, n: int) -> Array:
    centers = 2.0 * np.random.default_rng(11).standard_normal((12, LATENT))
    shares = np.arange(1, 13) / np.arange(1, 13).sum()
    return centers[rng.choice(12, n, p=shares)] + 0.7 * rng.standard_normal((n, LATENT))


def heavy_tailed(rng: np.random.Generator, n: int) -> Array:
    return rng.standard_normal((n, LATENT)) * np.exp(rng.standard_normal((n, 1)))


def anisotropic(rng: np.random.Generator, n: int) -> Array:
    spectrum = 1.0 / np.arange(1, LATENT + 1)
    common = 3.0 * np.random.default_rng(13).standard_normal(LATENT) / LATENT**0.5
    return rng.standard_normal((n, LATENT)) * spectrum + common * (1.0 + 0.5 * rng.random((n, 1)))


def nearly_equal(rng: np.random.Generator, n: int) -> Array:
    rows = gaussian(rng, n)
    same = rng.random(n) < 0.3  # as untrained rows are: one row, and a little noise
    rows[same] = 1.5 + 1e-3 * rng.standard_normal((int(same.sum()), LATENT))
    return rows


FAMILIES: dict[str, Rows] = {
    "gaussian": gaussian,
    "clustered": clustered,
    "heavy-tailed norms": heavy_tailed,
    "anisotropic": anisotropic,
    "nearly equal rows": nearly_equal,
}


def pair(family: str, number: int, tokens: int = TOKENS) -> tuple[Array, Array]:
    """Return two models' rows of a fresh sample of tokens."""
    fixed = np.random.default_rng(7)
    to_a, to_b = (fixed.standard_normal((LATENT, d)) / LATENT**0.5 for d in (D_A, D_B))
    rng = np.random.default_rng([number, list(FAMILIES).index(family)])
    meaning = FAMILIES[family](rng, tokens)
    noise = 1e-4 if family == "nearly equal rows" else 0.3
    a, b = meaning @ to_a, np.tanh(meaning @ to_b)
    return (
        (a + noise * rng.standard_normal(a.shape)).astype(np.float32),
        (b + noise * rng.standard_normal(b.shape)).astype(np.float32),
    )


def measure(family: str, number: int, names: Sequence[str], tokens: int = TOKENS) -> dict[str, Estimate]:
    """Return some measures of one pair."""
    a, b = pair(family, number, tokens)
    near = [embgeom.knn(x, K, threads=1) for x in (a, b)]

    def weights() -> Estimate:
        return weight_cosine_estimate(
            *(embgeom.lle(x, lists, threads=1) for x, lists in zip((a, b), near, strict=True))
        )

    def dimension(kind: Literal["pearson", "spearman"]) -> Estimate:
        wide = [embgeom.knn(x, DIMENSION_K, threads=1) for x in (a, b)]
        counts = [
            embgeom.intrinsic_dimension(x, lists, threads=1).n_components
            for x, lists in zip((a, b), wide, strict=True)
        ]
        return correlation_estimate(*counts, kind=kind, neighbors=(wide[0], wide[1]))

    how: dict[str, Callable[[], Estimate]] = {
        "global_similarity": lambda: global_similarity_estimate(a, b, center=False, threads=1),
        "global_similarity_centered": lambda: global_similarity_estimate(a, b, center=True, threads=1),
        "neighbor_overlap": lambda: overlap_estimate(*near),
        "weight_cosine": weights,
        "cka": lambda: cka_estimate(a, b),
        "rsa": lambda: rsa_estimate(a, b),
        "procrustes": lambda: procrustes_estimate(a, b, draws=20),
        "dimension_pearson": lambda: dimension("pearson"),
        "dimension_spearman": lambda: dimension("spearman"),
    }
    return {name: how[name]() for name in names}


def summarize(estimates: list[dict[str, Estimate]]) -> dict[str, dict[str, float]]:
    """Return coverage and the spread of the values over their standard error, for each measure."""
    summary = {}
    for name in estimates[0]:
        values = np.array([each[name].value for each in estimates])
        low = np.array([each[name].interval.low for each in estimates])
        high = np.array([each[name].interval.high for each in estimates])
        truth, known = values.mean(), ~np.isnan(low)
        summary[name] = {"truth": truth, "intervals": float(known.mean())}
        if known.any():
            low, high = low[known], high[known]
            spread = float(values.std(ddof=1) / np.mean((high - low) / (2 * NORMAL)))
            held = float(np.mean((low <= truth) & (truth <= high)))
            summary[name] |= {"coverage": held, "spread": spread}
    return summary


def cell(found: dict[str, float]) -> str:
    share = found["intervals"]
    if not share:
        return "no interval"
    text = f"{100 * found['coverage']:.1f} ({found['spread']:.2f})"
    return text if share == 1.0 else f"{text}, {share:.0%} of pairs have one"


def markdown(record: dict[str, dict[str, dict[str, float]]], pairs: int, tokens: int) -> str:
    """Return the table."""
    names = [name for name in MEASURES if all(name in found for found in record.values())]
    lines = [
        "# Coverage of the 95 % intervals",
        "",
        f"{pairs} pairs of each family, {tokens} tokens in {D_A} and {D_B} columns, k = {K}, dimension over "
        f"{DIMENSION_K} neighbors. In each cell the percentage of intervals that hold the mean over all "
        "pairs and, in brackets, the standard deviation of the values divided by the mean standard error.",
        "",
        "<!-- table -->",
        "",
        "| measure | " + " | ".join(record) + " |",
        "|---" * (len(record) + 1) + "|",
    ]
    for name in names:
        lines.append(f"| `{name}` | " + " | ".join(cell(of[name]) for of in record.values()) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--measures", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "coverage.json"
    earlier = json.loads(kept.read_text()) if kept.exists() else {}
    size = {"pairs": options.pairs, "tokens": options.tokens}
    record = earlier.get("families", {}) if earlier.items() >= size.items() else {}
    with ProcessPoolExecutor(options.processes) as pool:
        for family in options.families:
            work = partial(measure, family, names=options.measures, tokens=options.tokens)
            measured = list(pool.map(work, range(options.pairs), chunksize=10))
            record[family] = record.get(family, {}) | summarize(measured)
    record = {family: record[family] for family in FAMILIES if family in record}
    kept.write_text(json.dumps(size | {"families": record}, indent=1) + "\n")
    page = markdown(record, options.pairs, options.tokens)
    (options.output / "coverage.md").write_text(page)
    print(page)


if __name__ == "__main__":
    main()

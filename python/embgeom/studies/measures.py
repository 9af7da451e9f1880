"""What is measured of each model, of the tokens that models share, and of each pair, part by part."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, IndexMatrix, RowNumbers
from embgeom._common.progress import Progress
from embgeom.comparison.compare import estimates, statistics
from embgeom.comparison.comparison import LocalGeometry
from embgeom.comparison.options import CompareOptions
from embgeom.comparison.statistic import Statistic
from embgeom.emb2emb import Emb2Emb
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import IntrinsicDimension, intrinsic_dimension
from embgeom.geometry.knn import Metric, knn
from embgeom.geometry.lle import lle
from embgeom.runs.cache import Parts
from embgeom.runs.compute import Parameters
from embgeom.runs.plan import boundaries
from embgeom.studies.results import MapScores, ModelGeometry, StudyOptions

# Dimensions of so many tokens in a first look.
QUICK_TOKENS = 500


@dataclass(frozen=True)
class Local:
    """The parameters of neighbors, weights and dimensions; `sample` tokens' dimensions (None: of all)."""

    k: int
    most: int
    metric: Metric
    reg: float
    dimension_k: int
    variance: float
    sample: int | None
    seed: int

    @classmethod
    def of(cls, options: StudyOptions, n: int) -> Local:
        """Return the parameters for n tokens, which have at most n - 1 neighbors."""
        ks = [k for k in options.ks if not options.quick or k <= options.dimension_k]
        k, dimension_k = min(options.k, n - 1), min(options.dimension_k, n - 1)
        most = min(max(k, dimension_k, *ks), n - 1)
        sample = QUICK_TOKENS if options.quick and n > QUICK_TOKENS else None
        return cls(k, most, options.metric, options.reg, dimension_k, options.variance, sample, options.seed)

    def sampled(self, n: int) -> RowNumbers | None:
        """Return the tokens whose dimensions are measured; None for all."""
        if self.sample is None:
            return None
        return np.sort(np.random.default_rng(self.seed).choice(n, self.sample, replace=False))


@dataclass(frozen=True, eq=False)
class PairMeasures:
    """What two models share: the numbers of a `PairResult`."""

    statistics: tuple[Statistic, ...]
    neighbor_overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]


def model_geometry(
    x: Float32Matrix, local: Local, *, parts: Parts, threads: int, progress: Progress
) -> ModelGeometry:
    """Return the geometry of all rows that count in one model."""
    common: dict[str, Any] = {"threads": threads, "progress": progress}
    graph = parts(knn, x, max(local.k, local.dimension_k), metric=local.metric, **common)
    near = graph.indices[:, : local.k].copy()
    degree = np.bincount(near[near >= 0], minlength=len(x)).astype(np.int32)
    squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    mean = x.mean(axis=0, dtype=np.float64)
    return ModelGeometry(
        norms=np.sqrt(squares),
        mean_share=float(mean @ mean / squares.mean()) if squares.any() else float("nan"),
        neighbors=near,
        in_degree=degree,
        in_degree_skewness=_skewness(degree),
        dimension=_dimensions(x, graph.indices, local, parts, **common),
    )


def local_geometry(x: Float32Matrix, local: Local, parts: Parts, **common: Any) -> LocalGeometry:
    """Return neighbors, weights and dimensions of one model's shared tokens."""
    graph = parts(knn, x, local.most, metric=local.metric, **common)
    near = replace(
        graph,
        indices=graph.indices[:, : local.k].copy(),
        similarities=graph.similarities[:, : local.k].copy(),
    )
    weights = parts(lle, x, near, reg=local.reg, **common)
    return LocalGeometry(near, weights, _dimensions(x, graph.indices, local, parts, **common))


@dataclass(frozen=True, eq=False)
class SharedGeometry:
    """What a study keeps of one model's n shared tokens: neighbors (n, k) and dimensions (n,)."""

    neighbors: npt.NDArray[np.int32]
    n_components: npt.NDArray[np.int32]


def shared_geometry(
    x: Float32Matrix, local: Local, *, parts: Parts, threads: int, progress: Progress
) -> SharedGeometry:
    """Return what is kept of the local geometry of one model's shared tokens."""
    found = local_geometry(x, local, parts, threads=threads, progress=progress)
    components = np.full(len(x), -1, dtype=np.int32)
    rows = found.dimension.rows
    components[slice(None) if rows is None else rows] = found.dimension.n_components
    return SharedGeometry(found.neighbors.indices, components)


def pair_measures(
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    local: Local,
    *,
    parts: Parts,
    threads: int,
    progress: Progress,
) -> PairMeasures:
    """Return what two models share."""
    common: dict[str, Any] = {"threads": threads, "progress": progress}
    local_a, local_b = (local_geometry(x, local, parts, **common) for x in (x_a, x_b))
    options = CompareOptions(
        k=local.k, dimension_k=local.dimension_k, reg=local.reg, seed=local.seed, threads=threads
    )
    found = estimates(x_a, x_b, local_a, local_b, None, options, **common)
    overlap = neighbor_overlap(local_a.neighbors, local_b.neighbors)
    return PairMeasures(statistics(found, options), overlap, weight_cosine(local_a.lle, local_b.lle))


def map_scores(
    x_a: Float32Matrix, x_b: Float32Matrix, seed: int, *, threads: int, progress: Progress
) -> MapScores:
    """Return how well the default map from a to b predicts held-out tokens."""
    fitted = Emb2Emb.fit(x_a, x_b, seed=seed, threads=threads, progress=progress)
    if fitted.scores is None or fitted.shuffled is None:
        raise RuntimeError("a map that was fitted with held-out tokens has scores")
    return MapScores(fitted.scores, fitted.shuffled)


def _dimensions(
    x: Float32Matrix, graph: IndexMatrix, local: Local, parts: Parts, **common: Any
) -> IntrinsicDimension:
    """Return dimensions over the first neighbors of a graph, in blocks that are kept one by one."""
    near, rows = graph[:, : local.dimension_k].copy(), local.sampled(len(x))
    parameters = Parameters("dimension", local.dimension_k, local.metric, variance=local.variance)
    count = len(x) if rows is None else len(rows)
    # Cut as for one thread, so that the blocks do not depend on how many there are.
    cuts = boundaries(parameters, x.shape, count, threads=1)["dimension"]
    blocks = []
    for begin, end in pairwise(cuts):
        chosen = np.arange(begin, end, dtype=np.int64) if rows is None else rows[begin:end]
        blocks.append(
            parts(intrinsic_dimension, x, near[chosen], rows=chosen, variance=local.variance, **common)
        )
    names = ("n_components", "participation_ratio", "explained_variance_ratio", "decided_in_float64")
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks]) for name in names
    }
    return replace(blocks[0], **whole, rows=rows)


def _skewness(counts: npt.NDArray[np.int32]) -> float:
    """Return the skewness of counts; NaN where all are equal."""
    deviations = counts - counts.mean()
    spread = deviations.std()
    return float(np.mean(deviations**3) / spread**3) if spread > 0 else float("nan")

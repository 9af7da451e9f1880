"""The main job: measure what the token embeddings of two models share."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress
from embgeom._common.record import versions
from embgeom._common.threads import resolve_threads
from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, Statistic
from embgeom.comparison.saving import ModelRecord
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.vocabulary import match, require_shared
from embgeom.geometry.agreement import neighbor_overlap, pearson, spearman, weight_cosine
from embgeom.geometry.dimension import check_variance, dimension_neighbors, intrinsic_dimension
from embgeom.geometry.knn import Metric, check_k, knn
from embgeom.geometry.lle import check_reg, lle
from embgeom.geometry.similarity import global_similarity
from embgeom.loading import load
from embgeom.runs.cache import Cached, active


def compare(
    a: Embeddings | str | PathLike[str],
    b: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    k: int = 10,
    metric: Metric = "cosine",
    reg: float = 1e-3,
    dimension_k: int | None = None,
    dimension_sample: int = 500,
    variance: float = 0.95,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Comparison:
    """Measure what the token embeddings of two models share, over all tokens that both have.

    Every statistic comes with its value under two null baselines: the same matrices with tokens paired at
    random, and independent Gaussian rows of the same shapes.

    Parameters
    ----------
    a, b : Embeddings, or what `load` takes
        The models.
    which : {"input", "output"}
        Embeddings or unembeddings, where models are given by name.
    k : int
        Neighbors for the overlap and the reconstruction weights.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    reg : float
        Regularization of the reconstruction weights, see `lle`.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or all if there are fewer.
    dimension_sample : int
        How many random tokens' intrinsic dimension is measured; each is an eigenvalue problem.
    variance : float
        Share of variance that defines the intrinsic dimension.
    seed : int
        Seed of the null baselines and of the sample.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error, or a line a minute in a log; or a callable
        ``(phase, done, total)``.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the models share too few tokens, or a parameter does not fit them.
    LoadError
        If a model cannot be loaded.

    Notes
    -----
    Four searches for neighbors (two models, two Gaussian matrices) dominate where the vocabulary is
    large; the intrinsic dimension where it is small. Within `use_cache`, results of the two models that
    were computed before are read instead; the null baselines are computed each time. Memory: the shared
    rows of both models once more, and n k numbers for each result.

    References
    ----------
    Lee, Weber, Viegas, & Wattenberg (2025). Shared global and local geometry of language model
    embeddings. COLM.

    Examples
    --------
    >>> import embgeom
    >>> comparison = embgeom.compare("example:small", "example:large")
    >>> len(comparison.match)
    4095
    >>> overlap = comparison["neighbor_overlap"]
    >>> overlap.value > 50 * overlap.shuffled
    True
    """
    team = resolve_threads(threads)
    a, b = (
        model
        if isinstance(model, Embeddings)
        else load(model, which, threads=team, progress=progress is True)
        for model in (a, b)
    )
    matched = match(a, b)
    require_shared(matched)
    x_a, x_b = a.matrix[matched.ids_a], b.matrix[matched.ids_b]
    n = len(matched)
    # All parameters are checked before the first search, which may take minutes.
    options = CompareOptions(
        k=check_k(k, n - 1),
        metric=metric,
        reg=check_reg(reg),
        dimension_k=dimension_neighbors(dimension_k, n - 1),
        dimension_sample=min(whole_number(dimension_sample, "dimension_sample", 1), n),
        variance=check_variance(variance),
        seed=check_seed(seed),
        threads=team,
    )
    draws = _Draws(options, n)
    common: dict[str, Any] = {"threads": team, "progress": progress}
    # What was drawn would fill a cache without ever being read for another comparison.
    cached, direct = active((a.name, x_a), (b.name, x_b)), Cached(None)
    local_a, local_b = (_measure_local(cached, x, draws.sampled, options, **common) for x in (x_a, x_b))
    actual, overlap, cosine = _agree(cached, x_a, x_b, local_a, local_b, **common)
    shuffled, *_ = _agree(direct, x_a, x_b[draws.pairing], local_a, draws.relabel(local_b), **common)
    x_a, x_b = draws.gaussian_like(x_a, x_b)
    null_a, null_b = (_measure_local(direct, x, draws.sampled, options, **common) for x in (x_a, x_b))
    gaussian, *_ = _agree(direct, x_a, x_b, null_a, null_b, **common)
    return Comparison(
        a=ModelRecord.from_embeddings(a),
        b=ModelRecord.from_embeddings(b),
        match=matched,
        options=options,
        statistics=tuple(
            Statistic(
                name, label, meaning.format(options=options), actual[name], shuffled[name], gaussian[name]
            )
            for name, (label, meaning) in STATISTICS.items()
        ),
        neighbor_overlap=overlap,
        weight_cosine=cosine,
        sampled=draws.sampled,
        local_a=local_a,
        local_b=local_b,
        versions=versions(),
        from_cache=cached.served,
    )


# Each statistic's name, which keys and files have, with its label and meaning in tables.
STATISTICS = {
    "global_similarity": ("global similarity", "correlation of all pairwise cosines"),
    "global_similarity_centered": (
        "global similarity, centered",
        "the same after subtracting the mean embedding",
    ),
    "neighbor_overlap": ("neighbor overlap", "share of the {options.k} nearest neighbors in common"),
    "weight_cosine": ("weight cosine", "mean cosine of LLE weights over {options.k} neighbors"),
    "dimension_pearson": (
        "dimension, Pearson",
        "correlation of intrinsic dimensions, {options.dimension_k} neighbors",
    ),
    "dimension_spearman": ("dimension, Spearman", "the same for their ranks"),
}


class _Draws:
    """Everything drawn at random, each from its own stream, so that one does not shift another."""

    def __init__(self, options: CompareOptions, n: int) -> None:
        streams = np.random.SeedSequence(options.seed).spawn(3)
        sampling, pairing, self._gaussian = (np.random.default_rng(stream) for stream in streams)
        self.sampled = np.sort(sampling.choice(n, options.dimension_sample, replace=False)).astype(np.int64)
        self.pairing = pairing.permutation(n)
        self._sampled_pairing = pairing.permutation(options.dimension_sample)

    def relabel(self, local: LocalGeometry) -> LocalGeometry:
        """Return the local geometry of the rows in the order of `pairing`, without measuring it again."""
        new_number = np.argsort(self.pairing).astype(np.int32)
        indices = local.neighbors.indices[self.pairing]
        neighbors = replace(
            local.neighbors,
            indices=np.where(indices >= 0, new_number[indices], np.int32(-1)),
            similarities=local.neighbors.similarities[self.pairing],
        )
        weights = replace(
            local.lle,
            weights=local.lle.weights[self.pairing],
            residuals=local.lle.residuals[self.pairing],
            status=local.lle.status[self.pairing],
            indices=neighbors.indices,
        )
        shuffled = local.dimension.n_components[self._sampled_pairing]
        return LocalGeometry(neighbors, weights, replace(local.dimension, n_components=shuffled))

    def gaussian_like(self, *matrices: Float32Matrix) -> list[Float32Matrix]:
        return [self._gaussian.standard_normal(matrix.shape, dtype=np.float32) for matrix in matrices]


def _measure_local(
    call: Cached, x: Float32Matrix, sampled: RowNumbers, options: CompareOptions, **common: Any
) -> LocalGeometry:
    neighbors = call(knn, x, options.k, metric=options.metric, **common)
    weights = call(lle, x, neighbors, reg=options.reg, **common)
    around: dict[str, Any] = {
        "k": options.dimension_k,
        "metric": options.metric,
        "variance": options.variance,
    }
    dimension = call(intrinsic_dimension, x, rows=sampled, **around, **common)
    return LocalGeometry(neighbors, weights, dimension)


def _agree(
    call: Cached,
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    local_a: LocalGeometry,
    local_b: LocalGeometry,
    **common: Any,
) -> tuple[dict[str, float], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return all statistics by name, and overlap and weight cosine of each token."""
    overlap = neighbor_overlap(local_a.neighbors, local_b.neighbors)
    cosine = weight_cosine(local_a.lle, local_b.lle)
    defined = cosine[~np.isnan(cosine)]
    dimensions = local_a.dimension.n_components, local_b.dimension.n_components
    values = {
        "global_similarity": call(global_similarity, x_a, x_b, **common),
        "global_similarity_centered": call(global_similarity, x_a, x_b, center=True, **common),
        "neighbor_overlap": float(overlap.mean()),
        "weight_cosine": float(defined.mean()) if defined.size else float("nan"),
        "dimension_pearson": pearson(*dimensions),
        "dimension_spearman": spearman(*dimensions),
    }
    return values, overlap, cosine

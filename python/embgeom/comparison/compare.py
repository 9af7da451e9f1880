"""The main job: what the token embeddings of two models share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers
from embgeom._common.checks import check_seed, whole_number
from embgeom._common.progress import Progress
from embgeom._common.threads import resolve_threads
from embgeom.comparison.comparison import CompareOptions, Comparison, LocalGeometry, Statistic
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.vocabulary import match, require_shared
from embgeom.geometry.agreement import neighbor_overlap, pearson, spearman, weight_cosine
from embgeom.geometry.dimension import check_variance, default_dimension_k, intrinsic_dimension
from embgeom.geometry.knn import Metric, check_k, knn
from embgeom.geometry.lle import LLE, check_reg, lle
from embgeom.geometry.similarity import global_similarity
from embgeom.loading import load


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

    Every statistic comes with its value under two null models: the same matrices with tokens paired at
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
        Neighbors for the intrinsic dimension: by default 1200, or a tenth of the shared tokens where
        that is less (but at least 50).
    dimension_sample : int
        Tokens (drawn at random) whose intrinsic dimension is measured; each is an eigenvalue problem of
        its own.
    variance : float
        Share of variance that defines the intrinsic dimension.
    seed : int
        Seed of the null models and of the sample.
    threads : int, optional
        Threads to use; every core available to the process by default.
    progress : bool or callable
        True for a bar on standard error; or a callable ``(phase, done, total)``.

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
    large; the intrinsic dimension where it is small. Memory: the shared rows of both models once more,
    and n k numbers for each result.

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
    a, b = (_as_embeddings(model, which, team, progress) for model in (a, b))
    matched = match(a, b)
    require_shared(matched)
    x_a, x_b = a.matrix[matched.ids_a], b.matrix[matched.ids_b]
    n = len(x_a)
    wide = default_dimension_k(n) if dimension_k is None else dimension_k
    # All parameters are checked before the first search, which may take minutes.
    options = CompareOptions(
        k=check_k(k, n - 1),
        metric=metric,
        reg=check_reg(reg),
        dimension_k=check_k(wide, n - 1, "dimension_k"),
        dimension_sample=min(whole_number(dimension_sample, "dimension_sample", 1), n),
        variance=check_variance(variance),
        seed=check_seed(seed),
        threads=team,
    )
    draws = _Draws(options, n)
    local_a, local_b = (_measure_local(x, draws.sampled, options, progress) for x in (x_a, x_b))
    actual = _agree(x_a, x_b, local_a, local_b, options, progress)
    shuffled = _agree(x_a, x_b[draws.pairing], local_a, draws.relabel(local_b), options, progress)
    gaussian_a, gaussian_b = draws.gaussian_like(x_a, x_b)
    null_a, null_b = (_measure_local(x, draws.sampled, options, progress) for x in (gaussian_a, gaussian_b))
    gaussian = _agree(gaussian_a, gaussian_b, null_a, null_b, options, progress)
    statistics = tuple(
        Statistic(
            name,
            label,
            meaning.format(options=options),
            *(agreement.values[name] for agreement in (actual, shuffled, gaussian)),
        )
        for name, (label, meaning) in STATISTICS.items()
    )
    return Comparison(
        a,
        b,
        matched,
        options,
        statistics,
        actual.overlap,
        actual.weight_cosine,
        draws.sampled,
        local_a,
        local_b,
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


@dataclass(frozen=True, eq=False)
class _Agreement:
    """The values of all statistics by name, and those of each token."""

    values: dict[str, float]
    overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]


class _Draws:
    """All that is drawn at random, each from a stream of its own so that one does not shift another."""

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
        weights = LLE(
            local.lle.weights[self.pairing],
            local.lle.residuals[self.pairing],
            local.lle.status[self.pairing],
            neighbors.indices,
        )
        components = local.dimension.n_components[self._sampled_pairing]
        return LocalGeometry(neighbors, weights, replace(local.dimension, n_components=components))

    def gaussian_like(self, *matrices: Float32Matrix) -> list[Float32Matrix]:
        return [self._gaussian.standard_normal(matrix.shape, dtype=np.float32) for matrix in matrices]


def _as_embeddings(
    model: Embeddings | str | PathLike[str], which: Which, threads: int, progress: Progress
) -> Embeddings:
    return (
        model
        if isinstance(model, Embeddings)
        else load(model, which, threads=threads, progress=progress is True)
    )


def _measure_local(
    x: Float32Matrix, sampled: RowNumbers, options: CompareOptions, progress: Progress
) -> LocalGeometry:
    common: dict[str, Any] = {"threads": options.threads, "progress": progress}
    neighbors = knn(x, options.k, metric=options.metric, **common)
    weights = lle(x, neighbors, reg=options.reg, **common)
    dimension = intrinsic_dimension(
        x,
        k=options.dimension_k,
        rows=sampled,
        variance=options.variance,
        metric=options.metric,
        **common,
    )
    return LocalGeometry(neighbors, weights, dimension)


def _agree(
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    local_a: LocalGeometry,
    local_b: LocalGeometry,
    options: CompareOptions,
    progress: Progress,
) -> _Agreement:
    indices_a, indices_b = local_a.neighbors.indices, local_b.neighbors.indices
    overlap = neighbor_overlap(indices_a, indices_b)
    cosine = weight_cosine(indices_a, local_a.lle.weights, indices_b, local_b.lle.weights)
    defined = cosine[~np.isnan(cosine)]
    components = local_a.dimension.n_components, local_b.dimension.n_components
    common: dict[str, Any] = {"threads": options.threads, "progress": progress}
    values = {
        "global_similarity": global_similarity(x_a, x_b, **common),
        "global_similarity_centered": global_similarity(x_a, x_b, center=True, **common),
        "neighbor_overlap": float(overlap.mean()),
        "weight_cosine": float(defined.mean()) if defined.size else float("nan"),
        "dimension_pearson": pearson(*components),
        "dimension_spearman": spearman(*components),
    }
    return _Agreement(values, overlap, cosine)

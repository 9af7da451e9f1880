"""What is measured of each model, of the tokens that models share, and of each pair, part by part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, RowNumbers
from embgeom._common.checks import need
from embgeom._common.progress import Progress
from embgeom._common.record import digest
from embgeom.comparison.coherence import Coherence, coherence, known_words
from embgeom.comparison.compare import (
    dimension_graph,
    dimension_of,
    drawn,
    local_geometry,
    pair_estimates,
    sample_of,
)
from embgeom.comparison.comparison import CompareOptions, LocalGeometry
from embgeom.comparison.curves import Curve, correlation_curve, overlap_curve, weight_curve
from embgeom.comparison.hubs import Hubs
from embgeom.comparison.nulls import Estimate
from embgeom.comparison.tokens import TokenClasses
from embgeom.comparison.wordnet import WordNet
from embgeom.emb2emb import Emb2Emb
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import file_sha256
from embgeom.errors import LoadError
from embgeom.examples import moods, resolve
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import IntrinsicDimension, intrinsic_dimension, widest_k
from embgeom.geometry.estimators import DimensionCurve, dimension_curve, gaussian_level, mle_dimension, two_nn
from embgeom.geometry.knn import Neighbors, knn
from embgeom.geometry.lle import LLE, lle
from embgeom.hidden_states import StateComparison, compare_states
from embgeom.loading import load
from embgeom.runs.cache import Parts
from embgeom.runs.compute import Parameters
from embgeom.runs.plan import boundaries
from embgeom.studies.options import StudyOptions
from embgeom.studies.results import MapScores, ModelGeometry

# Tokens whose dimensions are measured in a first look, and for curves, where many neighbors are slow.
SAMPLE = 500
# Weights of more neighbors take minutes where tokens are many: their time grows with the cube.
MOST_WEIGHTS = 200
QUICK_RELABELINGS = 20
QUICK_MOST = 200
GAUSSIAN_ROWS = 200
_DECIDING = (".safetensors", ".bin", ".json", ".model", ".txt")
VARIANCES = (0.5, 0.8, 0.9, 0.95, 0.99)


def options_of(options: StudyOptions, n: int) -> CompareOptions:
    """Return the parameters for n tokens, which have at most n - 1 neighbors."""
    return CompareOptions(
        k=min(options.k, n - 1),
        metric=options.metric,
        center=options.center,
        reg=options.reg,
        dimension_k=min(options.dimension_k, widest_k(n - 1)),
        dimension_sample=min(SAMPLE, n) if options.quick else None,
        variance=options.variance,
        without=(),
        relabelings=QUICK_RELABELINGS if options.quick else options.relabelings,
        panel=not options.quick,
        seed=options.seed,
    )


def ks_of(options: StudyOptions, n: int) -> tuple[int, ...]:
    """Return the numbers of neighbors of the curves for n tokens."""
    most = min(n - 1, QUICK_MOST) if options.quick else n - 1
    return tuple(k for k in options.ks if k <= most)


@dataclass(frozen=True, eq=False)
class PairMeasures:
    """What two models share: estimates by measure, curves, and overlap and weight cosine of each token."""

    estimates: dict[str, Estimate]
    curves: tuple[Curve, ...]
    neighbor_overlap: npt.NDArray[np.float64]
    weight_cosine: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SharedGeometry:
    """What a study keeps of one model's n shared tokens: neighbors (n, k) and dimensions (n,)."""

    neighbors: npt.NDArray[np.int32]
    n_components: npt.NDArray[np.int32]


def model_geometry(
    x: Float32Matrix,
    options: CompareOptions,
    ks: tuple[int, ...],
    *,
    parts: Parts,
    threads: int,
    progress: Progress,
) -> ModelGeometry:
    """Return the geometry of all rows that count in one model."""
    common: dict[str, Any] = {"threads": threads, "progress": progress}
    graph, _, dimension = _searched(x, max(options.k, options.dimension_k or 0), options, parts, **common)
    wide = options.dimension_k or 0
    has_distances = options.metric != "inner_product"
    searched: dict[str, Any] = {"metric": options.metric, "center": options.center, **common}
    drawing: dict[str, Any] = {"sample": GAUSSIAN_ROWS, "seed": options.seed}
    gaussian = parts(gaussian_level, x, wide, options.variance, **drawing, **searched)
    curve = None
    if options.panel and (several := [k for k in ks if k > 1]):
        some = parts(knn, x, several[-1], rows=drawn(len(x), SAMPLE, options.seed), **searched)
        curve = parts(dimension_over, x, some, tuple(several), options.variance, **common)
    squares = np.einsum("ij,ij->i", x, x, dtype=np.float64)
    mean = x.mean(axis=0, dtype=np.float64)
    return ModelGeometry(
        norms=np.sqrt(squares),
        mean_share=float(mean @ mean / squares.mean()) if squares.any() else float("nan"),
        neighbors=graph.first(options.k).indices,
        hubs=Hubs.from_neighbors(graph, len(x), k=options.k, center=options.center),
        dimension=dimension,
        two_nn=two_nn(graph) if has_distances else None,
        mle=replace(mle_dimension(graph.first(wide)), per_token=None) if has_distances else None,
        gaussian=gaussian,
        dimension_curve=curve,
    )


def dimension_over(
    x: Float32Matrix,
    near: Neighbors,
    ks: tuple[int, ...],
    variance: float,
    *,
    threads: int,
    progress: Progress,
) -> DimensionCurve:
    """Return the dimensions of some rows over the number of neighbors."""
    return dimension_curve(x, near, ks=ks, variance=variance, threads=threads, progress=progress)


def model_coherence(
    x: Float32Matrix,
    identity: str,
    options: CompareOptions,
    *,
    parts: Parts,
    known: tuple[Embeddings, TokenClasses, WordNet],
    threads: int,
    progress: Progress,
) -> Coherence:
    """Return whether neighbors of words are related to them; `identity` says which words and WordNet."""
    model, classes, wordnet = known
    wide = widest_k(len(known_words(model, classes, wordnet)[0]) - 1)
    with parts.in_calls():
        return coherence(
            model,
            wordnet,
            classes=classes,
            k=min(options.dimension_k or wide, wide),
            variance=options.variance,
            center=options.center,
            threads=threads,
            progress=progress,
        )


def shared_geometry(
    x: Float32Matrix,
    options: CompareOptions,
    ks: tuple[int, ...],
    *,
    parts: Parts,
    threads: int,
    progress: Progress,
) -> SharedGeometry:
    """Return what is kept of the local geometry of one model's shared tokens."""
    found = _local(x, options, ks, parts, threads=threads, progress=progress)[2]
    components = np.full(len(x), -1, dtype=np.int32)
    rows = found.dimension.rows
    components[slice(None) if rows is None else rows] = found.dimension.n_components
    return SharedGeometry(found.neighbors.indices, components)


def pair_measures(
    x_a: Float32Matrix,
    x_b: Float32Matrix,
    strata: RowNumbers,
    options: CompareOptions,
    ks: tuple[int, ...],
    *,
    parts: Parts,
    threads: int,
    progress: Progress,
) -> PairMeasures:
    """Return what two models share."""
    common: dict[str, Any] = {"threads": threads, "progress": progress}
    (graph_a, near_a, a), (graph_b, near_b, b) = (_local(x, options, ks, parts, **common) for x in (x_a, x_b))
    chosen = replace(options, threads=threads)
    found = pair_estimates(x_a, x_b, a, b, (near_a, near_b), strata, chosen, **common)
    relabeled: dict[str, Any] = {"strata": strata, "draws": options.relabelings, "seed": options.seed}
    curves = [overlap_curve(graph_a, graph_b, ks, **relabeled, **common)]
    if not options.panel:
        return PairMeasures(found, tuple(curves), *_of_tokens(a, b, threads))
    weights_a, weights_b = (
        _weights(x, graph, ks, options, parts, **common) for x, graph in ((x_a, graph_a), (x_b, graph_b))
    )
    curves.append(weight_curve(weights_a, weights_b, **relabeled, **common))
    some = drawn(len(x_a), SAMPLE, options.seed)
    overs: tuple[Literal["k", "variance"], ...] = ("k", "variance")
    for over in overs:
        of_a, of_b = (
            _sampled_dimensions(x, graph, some, over, ks, options, parts, **common)
            for x, graph in ((x_a, graph_a), (x_b, graph_b))
        )
        near = graph_a.select(some), graph_b.select(some)
        curves.append(correlation_curve(of_a, of_b, over, strata=strata[some], neighbors=near))
    return PairMeasures(found, tuple(curves), *_of_tokens(a, b, threads))


def map_scores(
    x_a: Float32Matrix, x_b: Float32Matrix, seed: int, *, threads: int, progress: Progress
) -> MapScores:
    """Return how well the default map from a to b predicts held-out tokens."""
    fitted = Emb2Emb.fit(x_a, x_b, seed=seed, threads=threads, progress=progress)
    if fitted.scores is None or fitted.shuffled is None:
        raise RuntimeError("a map that was fitted with held-out tokens has scores")
    return MapScores(fitted.scores, fitted.shuffled)


def _of_tokens(a: LocalGeometry, b: LocalGeometry, threads: int) -> tuple[Float64Vector, Float64Vector]:
    overlap = neighbor_overlap(a.neighbors, b.neighbors, threads=threads)
    return overlap, weight_cosine(a.lle, b.lle, threads=threads)


def _local(
    x: Float32Matrix, options: CompareOptions, ks: tuple[int, ...], parts: Parts, **common: Any
) -> tuple[Neighbors, Neighbors, LocalGeometry]:
    """Return all neighbors that are needed, those of dimensions, and what `compare` measures of a model."""
    wide = max(options.k, options.dimension_k or 0, *ks)
    graph, near, _ = _searched(x, wide, options, parts, **common)
    return graph, near, local_geometry(parts, x, graph, near, options, **common)


def _searched(
    x: Float32Matrix, wide: int, options: CompareOptions, parts: Parts, **common: Any
) -> tuple[Neighbors, Neighbors, IntrinsicDimension]:
    """Return a graph of `wide` neighbors, those of dimensions, and these, in blocks that are kept each."""
    graph = parts(knn, x, wide, metric=options.metric, center=options.center, **common)
    near = dimension_graph(parts, x, graph, sample_of(len(x), options), options, **common)
    measure = partial(_in_blocks, parts=parts) if options.dimension_sample is None else intrinsic_dimension
    return graph, near, dimension_of(parts, x, near, options, measure=measure, **common)


def _in_blocks(
    x: Float32Matrix, near: Neighbors, *, variance: float, parts: Parts, **common: Any
) -> IntrinsicDimension:
    """Return the dimensions of all rows, of which each block is a part."""
    # Cut as for one thread, so that the blocks do not depend on how many there are.
    wanted = Parameters("dimension", near.k, near.metric, variance=variance)
    cuts = boundaries(wanted, x.shape, len(x), threads=1)["dimension"]
    blocks = []
    for begin, end in pairwise(cuts):
        rows, lists = np.arange(begin, end, dtype=np.int64), near.indices[begin:end]
        blocks.append(parts(intrinsic_dimension, x, lists, rows=rows, variance=variance, **common))
    names = ("n_components", "participation_ratio", "explained_variance_ratio", "decided_in_float64")
    whole: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks]) for name in names
    }
    return replace(blocks[0], **whole, rows=None)


def _weights(
    x: Float32Matrix,
    graph: Neighbors,
    ks: Sequence[int],
    options: CompareOptions,
    parts: Parts,
    **common: Any,
) -> list[LLE]:
    """Return the weights over the first neighbors for each k that is not too many."""
    return [parts(lle, x, graph.first(k), reg=options.reg, **common) for k in ks if k <= MOST_WEIGHTS]


def _sampled_dimensions(
    x: Float32Matrix,
    graph: Neighbors,
    chosen: RowNumbers,
    over: str,
    ks: Sequence[int],
    options: CompareOptions,
    parts: Parts,
    **common: Any,
) -> list[IntrinsicDimension]:
    """Return the dimensions of some tokens over the numbers of neighbors, or over the share of variance."""
    settings = [(k, options.variance) for k in ks if k > 1]
    if over == "variance":
        settings = [(options.dimension_k or 0, variance) for variance in VARIANCES]
    return [
        parts(intrinsic_dimension, x, graph.indices[chosen, :k], rows=chosen, variance=variance, **common)
        for k, variance in settings
    ]


def runnable(model: Embeddings) -> str | None:
    """Return the folder that a model can be run from; None where there is none."""
    origin = model.provenance
    folder = resolve(origin.source) or Path(origin.source).expanduser()
    has_weights = origin.file is not None and origin.file.suffix in (".safetensors", ".bin")
    return str(folder) if has_weights and (folder / "config.json").is_file() else None


def unembedding(model: Embeddings, folder: str, threads: int) -> Embeddings:
    """Return the output side of a model; a LoadError where it has none of its own tokens."""
    if model.which == "output" or model.provenance.tied:
        return model
    other = load(folder, "output", threads=threads)
    if other.tokens != model.tokens:
        raise LoadError(f"the unembedding of {folder} has other tokens than the embedding")
    return other


def files_digest(folder: str) -> str:
    """Return a digest of every file that decides on what the model of a folder computes."""
    files = sorted(file for file in Path(folder).iterdir() if file.suffix in _DECIDING)
    return digest([[file.name, file_sha256(file)] for file in files])


def check_packages() -> None:
    """Refuse hidden states early where no model can be run."""
    for module in ("torch", "transformers"):
        need(module, "a comparison of hidden states", extra="steer")


def state_comparison(
    rows_a: RowNumbers,
    rows_b: RowNumbers,
    source: str,
    target: str,
    identity: tuple[str, ...],
    seed: int,
    *,
    known: Sequence[Callable[[], Embeddings]],
    threads: int,
    progress: Progress,
) -> StateComparison:
    """Return how alike hidden states are in all layers, by a map fitted on rows of the unembeddings.

    `identity` says which files and versions were run; `known` gives the unembeddings.
    """
    x, y = (side().matrix[rows] for side, rows in zip(known, (rows_a, rows_b), strict=True))
    mapping, control = (
        Emb2Emb.fit(x, y, shuffle=shuffle, seed=seed, threads=threads, progress=progress)
        for shuffle in (False, True)
    )
    texts = moods.neutral_texts()
    return compare_states(source, target, mapping, texts, shuffled=control, seed=seed, progress=progress)

"""What a fine-tune moved: rows, neighbors, weights and dimensions, against the noise of storage."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from statistics import NormalDist
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, Float64Vector, RowNumbers
from embgeom._common.checks import check_seed, flag, warn
from embgeom._common.progress import Progress
from embgeom._common.record import plain, versions
from embgeom._common.threads import one_blas_thread, resolve_threads
from embgeom.comparison.changes import Diff, Format, Noise, Side
from embgeom.comparison.comparison import LocalGeometry
from embgeom.comparison.saving import ModelRecord, loaded
from embgeom.comparison.tokens import WITHOUT, check_only, check_without, classify, tokens_that_count
from embgeom.embeddings.embeddings import Embeddings, Which
from embgeom.embeddings.vocabulary import MIN_SHARED
from embgeom.errors import InputError
from embgeom.geometry.agreement import neighbor_overlap, weight_cosine
from embgeom.geometry.dimension import dimension_neighbors, intrinsic_dimension
from embgeom.geometry.knn import Neighbors, check_k, knn
from embgeom.geometry.lle import lle
from embgeom.runs.cache import Cached, active

_FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")
_PIECE = 4096
# Quantization to 3 bits or more moves no row by this share of its length.
_MUCH = 0.5
NoiseOption = Literal["auto", "rounding", "bulk"]
_Mask = npt.NDArray[np.bool_]


@one_blas_thread()
def diff(
    base: Embeddings | str | PathLike[str],
    tuned: Embeddings | str | PathLike[str],
    *,
    which: Which = "input",
    k: int = 10,
    center: bool = True,
    dimension_k: int | None = None,
    without: Iterable[str] = WITHOUT,
    only: str | PathLike[str] | Sequence[str] | None = None,
    noise: NoiseOption = "auto",
    seed: int = 0,
    threads: int | None = None,
    progress: Progress = False,
) -> Diff:
    """Measure what a fine-tune moved: a model's rows and their local geometry before and after it.

    Rows are paired by their tokens. A row has changed if storage does not explain the difference: rows that
    are equal, or equal once one is rounded to the format of the other, have not. Neighbors, LLE weights and
    dimensions of the tokens that count are compared with those of a copy of the base in which rows differ by
    that noise only.

    Parameters
    ----------
    base, tuned : Embeddings, or what `load` takes
        The model before and after, of one hidden size; for an adapter, ``load(base, adapter=folder)``.
    which : {"input", "output"}
        Embeddings or unembeddings, where models are given by name.
    k : int
        Neighbors by cosine, for the overlap and the reconstruction weights.
    center : bool
        Find neighbors after subtracting the mean embedding of the rows that count.
    dimension_k : int, optional
        Neighbors for the intrinsic dimension; by default 200, or half of the tokens if that is fewer.
    without, only
        The tokens whose neighborhoods count, as for `embgeom.comparison.shared_rows`; the rows of all others
        are compared, too.
    noise : {"auto", "rounding", "bulk"}
        What an unchanged row is. ``"rounding"``: one that is equal up to the format. ``"bulk"``: one whose
        relative change does not stand out of the bulk of rows that differ, as between quantized models; this
        assumes that the fine-tune moved fewer than half of these, or all of them by less than the
        quantization. Where at least half of all rows are equal, there is no such noise.
        ``"auto"`` takes the bulk where one model is quantized and the other is not, or in another way.
    seed : int
        Seed of the noise that the bulk is imitated by.
    threads, progress : optional
        As for `compare`.

    Returns
    -------
    Diff

    Raises
    ------
    InputError
        If the hidden sizes differ, the models share too few tokens, or a parameter does not fit.
    LoadError
        If a model cannot be loaded.

    Warns
    -----
    EmbgeomWarning
        If the bulk of rows changed by so much that it is hardly noise: the threshold is above half a length.

    Notes
    -----
    For each model, and for the copy with noise where there is any: one search for neighbors, the LLE weights
    and the dimensions of all tokens that count; those of the two models are read within `use_cache` if they
    were computed before. Memory: the rows that count once more for each model.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> base = embgeom.load("example:small")
    >>> x = base.matrix.copy()
    >>> x[812] += 0.05 * np.random.default_rng(0).standard_normal(128)
    >>> tuned = embgeom.Embeddings.from_array(x, base.tokens, name="tuned")
    >>> found = embgeom.diff(base, tuned)
    >>> found.status_counts()
    {'equal': 4095, 'rounding': 0, 'noise': 0, 'changed': 1}
    >>> found.most_changed(1).tolist()
    [812]
    """
    team = resolve_threads(threads)
    base, tuned = (loaded(model, which, team, progress) for model in (base, tuned))
    _check_pair(base, tuned, noise)
    seed, center, without = check_seed(seed), flag(center, "center"), check_without(without)
    ids_base, ids_tuned = _paired(base, tuned)
    classes = [classify(model, threads=team) for model in (base, tuned)]
    counts = tokens_that_count(classes, (ids_base, ids_tuned), without=without, only=only)
    counted = np.flatnonzero(counts & ~base.zero[ids_base] & ~tuned.zero[ids_tuned])
    k = check_k(k, len(counted) - 1)
    wide = dimension_neighbors(dimension_k, len(counted) - 1)
    change, cosine, shift = _changes(base.matrix, tuned.matrix, ids_base, ids_tuned)
    status, found = _noise(base, tuned, (ids_base, ids_tuned), change, noise)
    x_base, x_tuned = base.matrix[ids_base[counted]], tuned.matrix[ids_tuned[counted]]
    options: dict[str, Any] = {"k": k, "dimension_k": wide, "center": center}
    common: dict[str, Any] = {"threads": team, "progress": progress}
    call = active((base.name, x_base), (tuned.name, x_tuned))
    local_base, local_tuned = (_local(call, x, **options, common=common) for x in (x_base, x_tuned))
    overlap, weights, _ = _agreement(local_base, local_tuned)
    # Rounding is imitated on the side that lost by it.
    x, before = (x_tuned, local_tuned) if found.side == "tuned" else (x_base, local_base)
    after = before
    if found.kind != "none":
        after = _local(Cached(None), _with_noise(x, found, seed), **options, common=common)
    noisy = _agreement(before, after)
    return Diff(
        base=ModelRecord.from_embeddings(base),
        tuned=ModelRecord.from_embeddings(tuned),
        ids_base=ids_base,
        ids_tuned=ids_tuned,
        added=np.setdiff1d(np.arange(len(tuned)), ids_tuned),
        removed=np.setdiff1d(np.arange(len(base)), ids_base),
        change=change,
        cosine=cosine,
        status=status,
        common_shift=shift,
        noise=found,
        counted=counted,
        local_base=local_base,
        local_tuned=local_tuned,
        neighbor_overlap=overlap,
        weight_cosine=weights,
        overlap_with_noise=noisy[0],
        weight_cosine_with_noise=noisy[1],
        dimension_change_with_noise=noisy[2],
        options={
            **options,
            "without": list(without),
            "only": plain(check_only(only)),
            "noise": noise,
            "seed": seed,
            "threads": team,
        },
        versions=versions(),
        from_cache=call.served,
    )


def _check_pair(base: Embeddings, tuned: Embeddings, noise: NoiseOption) -> None:
    if base.matrix.shape[1] != tuned.matrix.shape[1]:
        raise InputError(
            f"{base.name} has {base.matrix.shape[1]} columns and {tuned.name} {tuned.matrix.shape[1]}: diff "
            "takes one model before and after a fine-tune; compare takes models with different hidden sizes"
        )
    if not isinstance(noise, str) or noise not in get_args(NoiseOption):
        raise InputError(f"noise = {noise!r:.40} is unknown: use one of {', '.join(get_args(NoiseOption))}")


def _paired(base: Embeddings, tuned: Embeddings) -> tuple[RowNumbers, RowNumbers]:
    """Return the rows of the tokens that both have: at the same row where they can be."""
    same = [i for i, (one, other) in enumerate(zip(base.tokens, tuned.tokens, strict=False)) if one == other]
    taken = set(same)
    rest = {token: row for row, token in enumerate(tuned.tokens) if row not in taken}
    moved = [
        (row, rest[token]) for row, token in enumerate(base.tokens) if row not in taken and token in rest
    ]
    pairs = dict([*((row, row) for row in same), *moved])
    # A token that stands twice in the base is paired once.
    found = sorted({other: row for row, other in pairs.items()}.items(), key=lambda pair: pair[1])
    if len(found) < MIN_SHARED:
        raise InputError(
            f"{base.name} and {tuned.name} share {len(found)} tokens as their tokenizers write them; diff "
            "takes one model before and after a fine-tune, and compare matches tokens by what they spell"
        )
    ids = np.array(found, dtype=np.int64)
    return ids[:, 1].copy(), ids[:, 0].copy()


def _changes(
    a: Float32Matrix, b: Float32Matrix, ids_a: RowNumbers, ids_b: RowNumbers
) -> tuple[Float64Vector, Float64Vector, float]:
    """Return each row's change relative to its length, its cosine, and the share of change that is common."""
    change, cosine = np.empty(len(ids_a)), np.empty(len(ids_a))
    total, squares = np.zeros(a.shape[1]), 0.0
    for begin in range(0, len(ids_a), _PIECE):
        part = slice(begin, begin + _PIECE)
        x, y = a[ids_a[part]].astype(np.float64), b[ids_b[part]].astype(np.float64)
        moved = y - x
        lengths, after, distance = (np.linalg.norm(each, axis=1) for each in (x, y, moved))
        with np.errstate(divide="ignore", invalid="ignore"):
            change[part] = np.where(distance == 0.0, 0.0, distance / lengths)
            cosine[part] = np.einsum("ij,ij->i", x, y) / (lengths * after)
        total += moved.sum(axis=0)
        squares += float((distance**2).sum())
    mean = total / len(ids_a)
    return change, np.clip(cosine, -1.0, 1.0), float(mean @ mean * len(ids_a) / squares) if squares else 0.0


def _noise(
    base: Embeddings,
    tuned: Embeddings,
    ids: tuple[RowNumbers, RowNumbers],
    change: Float64Vector,
    option: NoiseOption,
) -> tuple[npt.NDArray[np.str_], Noise]:
    """Return the status of each row, and what noise is."""
    equal, by_rounding = equal_rows(base.matrix[ids[0]], tuned.matrix[ids[1]])
    alike = np.logical_or.reduce(list(by_rounding.values()))
    stored = [model.provenance.dtype or "float32" for model in (base, tuned)]
    quantized = any(each not in _FLOATS for each in stored) and stored[0] != stored[1]
    status = np.full(len(change), "changed", dtype="<U8")
    noise = Noise("none", None, None, 0.0, 0.0)
    if option == "bulk" or (option == "auto" and quantized):
        noise = _bulk(change)
        if noise.threshold > _MUCH:
            warn(
                f"the bulk of rows, taken as noise, changed by {noise.level:.2g} of its length, and a row "
                f"counts as changed only above {noise.threshold:.2g}: the fine-tune may have moved more than "
                "half of the rows; noise='rounding' counts every row that storage does not explain"
            )
        status[change <= noise.threshold] = "noise"
    if noise.kind == "none" and alike.any():
        side, to = max(by_rounding, key=lambda each: np.count_nonzero(by_rounding[each]))
        noise = Noise("rounding", side, to, float(np.median(change[alike])), 0.0)
    status[alike] = "rounding"
    status[equal] = "equal"
    return status, noise


def stored_as(x: Float32Matrix, to: Format) -> Float32Matrix:
    """Return numbers rounded to the nearest of a format, as float32."""
    if to == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(np.float32)
    # To the upper 16 bits of the float32; a tie goes to the even one.
    bits = x.view(np.uint32)
    up = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    upper: Float32Matrix = ((bits + up) & np.uint32(0xFFFF0000)).view(np.float32)
    return upper


def equal_rows(base: Float32Matrix, tuned: Float32Matrix) -> tuple[_Mask, dict[tuple[Side, Format], _Mask]]:
    """Return which rows are equal, and which are once those of one side are rounded to a format."""
    equal = np.empty(len(base), dtype=bool)
    alike = {
        (side, to): np.empty(len(base), dtype=bool) for side in get_args(Side) for to in get_args(Format)
    }
    for begin in range(0, len(base), _PIECE):
        part = slice(begin, begin + _PIECE)
        x, y = base[part], tuned[part]
        equal[part] = (x == y).all(axis=1)
        for (side, to), mask in alike.items():
            first, second = (x, y) if side == "base" else (y, x)
            mask[part] = (stored_as(first, to) == second).all(axis=1) & ~equal[part]
    return equal, alike


def _bulk(change: Float64Vector) -> Noise:
    """Return noise by which the bulk of rows changes, as if its changes were lognormal."""
    bulk = np.log(change[(change > 0.0) & np.isfinite(change)])
    # Noise leaves hardly a row as it was, so where most rows are equal, training moved the others.
    if 2 * np.count_nonzero(change) <= len(change) or not bulk.size:
        return Noise("none", None, None, 0.0, 0.0)
    normal, middle = NormalDist(), float(np.median(bulk))
    spread = float(np.median(np.abs(bulk - middle))) / normal.inv_cdf(0.75)
    # Then one in twenty comparisons shows any row that noise alone has moved.
    reach = normal.inv_cdf(1.0 - 0.05 / len(change)) * spread
    return Noise("bulk", None, None, float(np.exp(middle)), float(np.exp(middle + reach)))


def _with_noise(x: Float32Matrix, noise: Noise, seed: int) -> Float32Matrix:
    """Return a copy of rows that differs by noise only."""
    if noise.format is not None:
        return stored_as(x, noise.format)
    random = np.random.default_rng(seed)
    copy = np.empty_like(x)
    for begin in range(0, len(x), _PIECE):
        part = slice(begin, begin + _PIECE)
        lengths = np.linalg.norm(x[part], axis=1, keepdims=True)
        direction = random.standard_normal(x[part].shape, dtype=np.float32)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        copy[part] = x[part] + np.float32(noise.level) * lengths * direction
    return copy


def _local(
    call: Cached, x: Float32Matrix, *, k: int, dimension_k: int, center: bool, common: dict[str, Any]
) -> LocalGeometry:
    around: Neighbors = call(knn, x, max(k, dimension_k), center=center, **common)
    near, wide = around.first(k), around.first(dimension_k)
    weights = call(lle, x, near, **common)
    return LocalGeometry(near, weights, call(intrinsic_dimension, x, wide, **common))


def _agreement(a: LocalGeometry, b: LocalGeometry) -> tuple[Float64Vector, Float64Vector, Float64Vector]:
    """Return overlap, weight cosine and absolute difference of dimensions of each token."""
    difference = np.abs(a.dimension.defined - b.dimension.defined)
    return neighbor_overlap(a.neighbors, b.neighbors), weight_cosine(a.lle, b.lle), difference

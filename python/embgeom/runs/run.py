"""`embgeom.run`: a long computation that keeps what it has done."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, RowNumbers, as_matrix, as_row_numbers
from embgeom._common.native import core
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import array_digest, versions
from embgeom._common.threads import resolve_threads
from embgeom._common.writing import check_kept
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    default_dimension_k,
    intrinsic_dimension,
)
from embgeom.geometry.knn import Metric, Neighbors, check_k, knn
from embgeom.geometry.lle import LLE, check_reg, lle
from embgeom.geometry.rows import tokens_of
from embgeom.runs.cache import Cached, active
from embgeom.runs.compute import Block, Executor, Parameters, Task, Work, compute_here
from embgeom.runs.dask import Cluster
from embgeom.runs.folder import RunFolder, open_run
from embgeom.runs.plan import boundaries

if TYPE_CHECKING:
    from distributed import Client

_RESULTS: dict[Task, type[Neighbors] | type[LLE] | type[IntrinsicDimension]] = {
    "knn": Neighbors,
    "lle": LLE,
    "dimension": IntrinsicDimension,
}


def run(
    task: Task,
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    reg: float = 1e-3,
    variance: float = 0.95,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> Neighbors | LLE | IntrinsicDimension:
    """Compute neighbors, LLE weights or intrinsic dimensions in a folder that keeps what is done.

    The tokens are computed in blocks, each of which is written as soon as it is done. However the process
    ends, the same call goes on where it stopped: only the blocks under way are lost. The result has the bits
    of the plain functions.

    Parameters
    ----------
    task : {"knn", "lle", "dimension"}
        What `knn`, `lle` or `intrinsic_dimension` returns; for the last two, neighbors are found first.
    x : array_like, shape (n, d), or Embeddings
        One row for each token.
    folder : path
        Where the run keeps its blocks and, at the end, its result, as a file that the result's class loads:
        ``knn.safetensors``, ``lle.safetensors`` or ``dimension.safetensors``. It is made if it is not there.
    k : int, optional
        Neighbors of each token; by default 10, and for the dimension a tenth of the rows of `x`, from 50 to
        1,200.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    reg : float
        Regularization of the weights, see `lle`.
    variance : float
        The share of variance to explain, see `intrinsic_dimension`.
    rows : array_like of int, shape (m,), optional
        Only these rows of `x`; all of them by default.
    threads : int, optional
        All usable cores by default; on a cluster, each worker uses those that it was started with.
    client : distributed.Client, optional
        A client of a Dask cluster, whose workers compute the blocks, one at a time each. Needs the extra
        ``embgeom[dask]``, on the workers too. The folder is this machine's.
    progress : optional
        As for `knn`. With ``progress=True`` a run that goes on says how many blocks were there.

    Returns
    -------
    Neighbors, LLE or IntrinsicDimension
        A run that has ended is read from its folder.

    Raises
    ------
    InputError
        If an argument is not what the plain functions take.
    OutputError
        If the folder holds another run (the message says in what it differs) or other files, another process
        computes in it, or it cannot be written; blocks that are done stay.
    EmbgeomError
        If a cluster has lost all of its workers; blocks that are done stay.

    Notes
    -----
    A block takes about half a minute, or a minute in a search. A search of less than a minute is one block;
    in larger ones, each block is compared with all rows, which takes twice the time of the plain `knn` of
    all rows. On the disk a run takes 4 m k bytes for neighbors until it ends, 8 m k for `knn`, 16 m k for
    `lle`. Within `use_cache` a result that is kept there is not computed again, and a new one is kept. Memory
    besides input and output is that of the plain functions; for the dimension that of the
    neighbors of one block, at most 512 MB.

    Examples
    --------
    >>> import tempfile
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = embgeom.run("dimension", model, folder, k=100, rows=range(40))
    >>> len(result.n_components)
    40
    """
    if not isinstance(task, str) or task not in _RESULTS:
        raise InputError(f"task = {task!r} is unknown: use one of {', '.join(_RESULTS)}")
    matrix = as_matrix(x)
    parameters = _checked(task, len(matrix), k, metric, reg, variance)
    selection = None if rows is None else as_row_numbers(rows, len(matrix))
    team = resolve_threads(threads)
    identity = _identity(parameters, matrix, selection)
    known = x if isinstance(x, Embeddings) else None
    check_kept({"the folder of the run": folder}, known.provenance.inputs if known else ())
    count = len(matrix) if selection is None else len(selection)

    def describe() -> dict[str, Any]:
        teams = cluster.threads if cluster else [team]
        return {
            "blocks": boundaries(parameters, matrix.shape, count, threads=min(teams), workers=len(teams)),
            "model": known.to_dict() if known else None,
            "versions": versions(),
        }

    with (
        reporter(progress, task) as report,
        Cluster(client, matrix, identity["matrix"]["sha256"])
        if client is not None
        else nullcontext() as cluster,
        open_run(folder, identity, describe) as kept,
    ):
        cached = active(*([(known.name, matrix)] if known else []))
        if not kept.result.exists() and (found := _find(cached, parameters, x, selection)) is not None:
            kept.finish(found)
        if not kept.result.exists():
            meter = _Meter(kept, parameters, report)
            compute: Executor = cluster.compute if cluster else compute_here
            if progress is True and meter.found:
                print(f"embgeom: resumed: {meter.standing()} were there", file=sys.stderr, flush=True)
            try:
                for stage in parameters.stages:
                    work = _work(stage, parameters, matrix, selection, team, kept)
                    for block, arrays, instructions in compute(work, meter.missing[stage], meter.share):
                        kept.note(stage, instructions)
                        kept.write(block, arrays)
                        del arrays  # The result is assembled without a second copy of the last block.
                        meter.finish(block)
            except KeyboardInterrupt as interrupt:
                interrupt.args = (
                    f"{meter.standing()} are in {folder}, and the same call goes on from there",
                )
                raise
            _warn_of_mixed(task, used := kept.instruction_sets(task))
            kept.finish(result := _assembled(kept, parameters, matrix, selection, tokens_of(x)))
            # Others would be taken for what this processor computes.
            if set(used) == {core.instruction_set()}:
                _keep(cached, parameters, x, selection, result)
            # It is read back from the folder, and is not held twice.
            del result
        kept.remove_blocks()
        return _RESULTS[task].load(kept.result)


def _find(
    cached: Cached, parameters: Parameters, x: npt.ArrayLike, rows: RowNumbers | None
) -> Neighbors | LLE | IntrinsicDimension | None:
    """Return the result of a run that the cache has computed already, or None."""
    k = parameters.k
    near: dict[str, Any] = {"metric": parameters.metric, "rows": rows}
    if parameters.task == "dimension":
        return cached.find(intrinsic_dimension, x, k=k, variance=parameters.variance or 0.0, **near)
    neighbors = cached.find(knn, x, k, **near)
    if parameters.task == "knn" or neighbors is None:
        return neighbors
    return cached.find(lle, x, neighbors, reg=parameters.reg or 0.0)


def _keep(
    cached: Cached,
    parameters: Parameters,
    x: npt.ArrayLike,
    rows: RowNumbers | None,
    result: Neighbors | LLE | IntrinsicDimension,
) -> None:
    k = parameters.k
    near: dict[str, Any] = {"metric": parameters.metric, "rows": rows}
    if isinstance(result, Neighbors):
        cached.keep(result, knn, x, k, **near)
    elif isinstance(result, LLE):
        cached.keep(result, lle, x, result.indices, reg=parameters.reg or 0.0, rows=rows)
    else:
        cached.keep(result, intrinsic_dimension, x, k=k, variance=parameters.variance or 0.0, **near)


def _checked(task: Task, n: int, k: int | None, metric: Metric, reg: float, variance: float) -> Parameters:
    if k is None:
        k = default_dimension_k(n) if task == "dimension" else min(10, max(n - 1, 1))
    if not isinstance(metric, str) or metric not in get_args(Metric):
        raise InputError(f"metric = {metric!r} is unknown: use one of {', '.join(get_args(Metric))}")
    return Parameters(
        task,
        check_k(k, n - 1),
        metric,
        check_reg(reg) if task == "lle" else None,
        check_variance(variance) if task == "dimension" else None,
    )


def _identity(parameters: Parameters, matrix: Float32Matrix, rows: RowNumbers | None) -> dict[str, Any]:
    try:
        release = version("embgeom")
    except PackageNotFoundError:
        release = None
    return {
        "embgeom": release,
        "parameters": parameters,
        "matrix": {"shape": matrix.shape, "sha256": array_digest(matrix)},
        "rows": rows,
    }


def _warn_of_mixed(task: Task, instruction_sets: list[str]) -> None:
    if task != "knn" and len(instruction_sets) > 1:
        warnings.warn(
            f"blocks were computed with different instructions ({'; '.join(instruction_sets)}): the last "
            "bits of weights, residuals and ratios may differ from those of one machine",
            EmbgeomWarning,
            stacklevel=3,
        )


def _work(
    stage: Task,
    parameters: Parameters,
    matrix: Float32Matrix,
    rows: RowNumbers | None,
    threads: int,
    kept: RunFolder,
) -> Work:
    def neighbors(block: Block) -> npt.NDArray[np.int32] | None:
        return None if stage == "knn" else kept.read("knn", "indices", block.begin, block.end)

    return Work(stage, parameters, matrix, rows, threads, neighbors)


def _assembled(
    kept: RunFolder,
    parameters: Parameters,
    matrix: Float32Matrix,
    rows: RowNumbers | None,
    tokens: list[str] | None,
) -> Neighbors | LLE | IntrinsicDimension:
    arrays: dict[str, Any] = kept.assembled(parameters.task)
    if parameters.task == "knn":
        return Neighbors(**arrays, metric=parameters.metric, rows=rows, tokens=tokens)
    if parameters.task == "lle":
        indices = kept.assembled("knn")["indices"]
        return LLE(**arrays, indices=indices, rows=rows, tokens=tokens)
    return IntrinsicDimension(
        **arrays,
        variance=parameters.variance or 0.0,
        k=parameters.k,
        n_columns=matrix.shape[1],
        rows=rows,
        tokens=tokens,
    )


class _Meter:
    """How far a run is: in blocks for people, in tokens for a display."""

    def __init__(self, kept: RunFolder, parameters: Parameters, report: ProgressCallable | None) -> None:
        self.missing = {stage: kept.missing(stage) for stage in parameters.stages}
        blocks = {stage: kept.blocks(stage) for stage in parameters.stages}
        self._total = sum(map(len, blocks.values()))
        self._tokens = {stage: blocks[stage][-1].end for stage in blocks}
        self._done = {stage: self._tokens[stage] - _count(self.missing[stage]) for stage in parameters.stages}
        self.found = self._total - sum(map(len, self.missing.values()))
        self._finished = self.found
        self._report = report

    def standing(self) -> str:
        """Return how many blocks are done."""
        return f"{self._finished} of {self._total} blocks"

    def share(self, block: Block, share: float) -> None:
        """Report that a share of a block is done."""
        if self._report is not None:
            done = self._done[block.stage] + int(share * (block.end - block.begin))
            self._report(_PHASES[block.stage], done, self._tokens[block.stage])

    def finish(self, block: Block) -> None:
        """Report that a block is kept."""
        self._finished += 1
        self._done[block.stage] += block.end - block.begin
        self.share(block, 0.0)


_PHASES: dict[Task, str] = {"knn": "neighbors", "lle": "weights", "dimension": "dimensions"}


def _count(blocks: Iterable[Block]) -> int:
    return sum(block.end - block.begin for block in blocks)

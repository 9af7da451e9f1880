"""`embgeom.run`: a long computation that keeps what it has done."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix, IndexMatrix, RowNumbers, as_matrix, as_row_numbers
from embgeom._common.checks import flag
from embgeom._common.native import build_digest, core
from embgeom._common.progress import Progress, ProgressCallable, reporter
from embgeom._common.record import Arrays, array_digest, versions
from embgeom._common.threads import resolve_threads
from embgeom._common.writing import check_kept
from embgeom.embeddings.embeddings import Embeddings
from embgeom.errors import EmbgeomError, EmbgeomWarning, InputError, OutputError
from embgeom.geometry.dimension import (
    IntrinsicDimension,
    check_variance,
    intrinsic_dimension,
    usual_k,
)
from embgeom.geometry.knn import Metric, Neighbors, check_k, check_metric, knn
from embgeom.geometry.lle import LLE, check_reg, lle
from embgeom.geometry.rows import tokens_of
from embgeom.runs.cache import Cached, active
from embgeom.runs.compute import Block, Executor, Parameters, Task, Work, compute_here
from embgeom.runs.dask import Cluster
from embgeom.runs.folder import RunFolder, open_run
from embgeom.runs.plan import boundaries

if TYPE_CHECKING:
    from distributed import Client

AnyResult = Neighbors | LLE | IntrinsicDimension
_RESULTS: dict[Task, type[AnyResult]] = {
    "knn": Neighbors,
    "lle": LLE,
    "dimension": IntrinsicDimension,
}
# A disk that has damaged blocks so often will do so again.
_ROUNDS = 3


@overload
def run(
    task: Literal["knn"],
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    center: bool = False,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> Neighbors: ...
@overload
def run(
    task: Literal["lle"],
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    reg: float | None = None,
    center: bool = False,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> LLE: ...
@overload
def run(
    task: Literal["dimension"],
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    variance: float | None = None,
    center: bool = False,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> IntrinsicDimension: ...
@overload
def run(
    task: Task,
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    reg: float | None = None,
    variance: float | None = None,
    center: bool = False,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> AnyResult: ...
def run(
    task: Task,
    x: npt.ArrayLike,
    folder: str | PathLike[str],
    *,
    k: int | None = None,
    metric: Metric = "cosine",
    reg: float | None = None,
    variance: float | None = None,
    center: bool = False,
    rows: npt.ArrayLike | None = None,
    threads: int | None = None,
    client: Client | None = None,
    progress: Progress = False,
) -> AnyResult:
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
        Neighbors of each token; as for the plain functions, by default 10, and for the dimension 200.
    metric : {"cosine", "inner_product", "euclidean"}
        How neighbors are found.
    reg : float, optional
        Only for "lle", which says what it means.
    variance : float, optional
        Only for "dimension": see `intrinsic_dimension`.
    center : bool
        As for `knn`: neighbors are those of centered rows.
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
        A run that has ended is read from its folder, whatever version computed it.

    Raises
    ------
    InputError
        If an argument is not what the plain functions take, or `x` changes during the run.
    OutputError
        If the folder holds another run (the message says in what it differs), one that another version or
        build of embgeom has begun, or other files; if another process uses it, or it cannot be written.
        Blocks that are done stay.
    LoadError
        If a file in the folder is damaged that cannot be computed again.
    EmbgeomError
        If a cluster has lost all of its workers; blocks that are done stay.

    Notes
    -----
    A block takes about half a minute, or a minute in a search. A search of less than a minute is one block;
    in larger ones, each block is compared with all rows, which takes twice the time of the plain `knn` of
    all rows. On the disk a run takes, at its end, 4 m k bytes for "dimension", 16 m k for "knn" and 20 m k
    for "lle": its blocks and the result. Within `use_cache` a result that is kept there is read instead, and
    a new one is kept, with the neighbors of "lle". Memory besides input and output is that of the plain
    functions; for the dimension that of the neighbors of one block, at most 512 MB.

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
    if not isinstance(folder, str | PathLike):
        raise InputError(f"folder = {folder!r} is not a path; name a folder for the run")
    matrix, tokens = as_matrix(x), tokens_of(x)
    parameters = _checked(task, matrix, k, metric, reg, variance, center)
    selection = None if rows is None else as_row_numbers(rows, len(matrix))
    team = resolve_threads(threads)
    known = x if isinstance(x, Embeddings) else None
    check_kept({"the folder of the run": folder}, known.provenance.inputs if known else ())
    identity = {
        "parameters": parameters,
        "matrix": {"shape": matrix.shape, "sha256": (digest := array_digest(matrix))},
        "rows": selection,
        "embgeom": versions().get("embgeom"),
        "build": build_digest(),
    }

    def describe() -> dict[str, Any]:
        return {"model": known.to_dict() if known else None, "versions": versions()}

    def cut() -> dict[Task, list[int]]:
        teams = cluster.threads if cluster else [team]
        count = len(matrix) if selection is None else len(selection)
        return boundaries(parameters, matrix.shape, count, threads=min(teams), workers=len(teams))

    with (
        reporter(progress, task) as report,
        Cluster(client, matrix, digest, is_told=progress is True)
        if client is not None
        else nullcontext() as cluster,
        open_run(folder, identity, describe, cut) as kept,
    ):
        if not kept.is_finished:
            cached = active((known.name if known else "", matrix), digest=digest)
            result = _found(cached, parameters, matrix, selection)
            if is_new := result is None:
                compute: Executor = cluster.compute if cluster else compute_here

                def work(stage: Task) -> Work:
                    return Work(stage, parameters, matrix, selection, team, kept.neighbors)

                try:
                    result = _computed(kept, work, parameters, compute, report, progress is True)
                finally:
                    # Blocks of a changed x must not be joined with later ones, however the run ends.
                    if array_digest(matrix) != digest:
                        kept.remove_blocks()
                        raise InputError(
                            "x has changed during the run, whose blocks are removed; repeat the call"
                        )
            kept.finish(result := replace(result, tokens=tokens))
            if is_new and cached.in_use:
                _keep(cached, kept, parameters, matrix, selection, result)
            # It is read back from the folder, and is not held twice.
            del result
        elif progress is True:
            print(f"embgeom: read from {folder}", file=sys.stderr, flush=True)
        kept.remove_blocks()
        # The folder may hold the tokens of an earlier call, for the same numbers.
        return replace(kept.load(_RESULTS[task]), tokens=tokens)


def _checked(
    task: Task,
    matrix: Float32Matrix,
    k: int | None,
    metric: Metric,
    reg: float | None,
    variance: float | None,
    center: bool,
) -> Parameters:
    """Return the parameters of a run, which have the defaults of the plain functions."""
    for name, value, owner in (("reg", reg, "lle"), ("variance", variance, "dimension")):
        if value is not None and task != owner:
            raise InputError(f"{name} = {value} goes with the task {owner!r}, not with {task!r}")
    check_metric(metric)
    if k is None:
        k = usual_k(matrix, metric) if task == "dimension" else 10
    return Parameters(
        task,
        check_k(k, len(matrix) - 1),
        metric,
        check_reg(1e-3 if reg is None else reg) if task == "lle" else None,
        check_variance(0.95 if variance is None else variance) if task == "dimension" else None,
        flag(center, "center"),
    )


def _plain_call(
    parameters: Parameters, matrix: Float32Matrix, rows: RowNumbers | None, indices: IndexMatrix | None
) -> tuple[Callable[..., AnyResult], tuple[Any, ...], dict[str, Any]]:
    """Return the plain function that gives the result of a run, and its arguments; of `lle` with indices."""
    near = {"k": parameters.k, "metric": parameters.metric, "center": parameters.center, "rows": rows}
    if parameters.task == "dimension":
        return intrinsic_dimension, (matrix,), {"variance": parameters.variance, **near}
    if indices is None:
        return knn, (matrix,), near
    return lle, (matrix, indices), {"reg": parameters.reg, "rows": rows}


def _found(
    cached: Cached, parameters: Parameters, matrix: Float32Matrix, rows: RowNumbers | None
) -> AnyResult | None:
    """Return the result of a run that the cache has computed already, or None."""
    function, arguments, options = _plain_call(parameters, matrix, rows, None)
    found = cached.find(function, *arguments, **options)
    if parameters.task == "lle" and isinstance(found, Neighbors):
        function, arguments, options = _plain_call(parameters, matrix, rows, found.indices)
        found = cached.find(function, *arguments, **options)
    return found


def _keep(
    cached: Cached,
    kept: RunFolder,
    parameters: Parameters,
    matrix: Float32Matrix,
    rows: RowNumbers | None,
    result: AnyResult,
) -> None:
    """Keep a new result in the cache, unless another kind of processor computed a part of it."""
    if kept.instruction_sets(parameters.task) != [core.instruction_set()]:
        return
    # Weights are found again by their neighbors, and these by the matrix.
    if isinstance(result, LLE) and (near := kept.assembled("knn")) is not None:
        function, arguments, options = _plain_call(parameters, matrix, rows, None)
        neighbors = _neighbors(near, parameters, rows)
        cached.keep(neighbors, function, *arguments, **options)
    indices = result.indices if isinstance(result, LLE) else None
    function, arguments, options = _plain_call(parameters, matrix, rows, indices)
    cached.keep(result, function, *arguments, **options)


def _computed(
    kept: RunFolder,
    work: Callable[[Task], Work],
    parameters: Parameters,
    compute: Executor,
    report: ProgressCallable | None,
    is_told: bool,
) -> AnyResult:
    """Compute the blocks that are missing, and return the result."""
    task = parameters.task
    for _ in range(_ROUNDS):
        meter = _Meter(kept, parameters, report)
        if is_told and meter.found:
            print(f"embgeom: resumed: {meter.standing()} were there", file=sys.stderr, flush=True)
        try:
            for stage in parameters.stages:
                for block, arrays, instructions in compute(work(stage), meter.missing[stage], meter.share):
                    kept.note(stage, instructions)
                    kept.write(block, arrays)
                    del arrays  # The result is assembled without a second copy of the last block.
                    meter.finish(block)
        except KeyboardInterrupt as interrupt:
            interrupt.args = (f"{meter.standing()} are in {kept.path}, and the same call goes on from there",)
            raise
        except EmbgeomError as error:
            # Others say what is wrong with the input or the disk.
            if type(error) is EmbgeomError:
                raise EmbgeomError(f"{error} ({meter.standing()} are done)") from error
            raise
        if (result := _assembled(kept, work(task))) is not None:
            used = kept.instruction_sets(task)
            if task != "knn" and len(used) > 1:
                warnings.warn(
                    f"blocks were computed with different instructions ({'; '.join(used)}): the last "
                    "bits of weights, residuals and ratios may differ from those of one machine",
                    EmbgeomWarning,
                    stacklevel=3,
                )
            return result
    raise OutputError(f"blocks in {kept.path} are damaged again and again; name a folder on another disk")


def _assembled(kept: RunFolder, work: Work) -> AnyResult | None:
    """Return the result without tokens; None if a block is damaged."""
    parameters = work.parameters
    arrays: dict[str, Any] | None = kept.assembled(parameters.task)
    neighbors: dict[str, Any] | None = kept.assembled("knn") if parameters.task == "lle" else {}
    if arrays is None or neighbors is None:
        return None
    if parameters.task == "knn":
        return _neighbors(arrays, parameters, work.rows)
    if parameters.task == "lle":
        return LLE(**arrays, indices=neighbors["indices"], rows=work.rows)
    return IntrinsicDimension(
        **arrays,
        variance=parameters.variance or 0.0,
        k=parameters.k,
        n_columns=work.matrix.shape[1],
        rows=work.rows,
    )


def _neighbors(arrays: Arrays, parameters: Parameters, rows: RowNumbers | None) -> Neighbors:
    found = arrays["indices"], arrays["similarities"]
    return Neighbors(*found, metric=parameters.metric, rows=rows, center=parameters.center)


class _Meter:
    """How far a run is: in blocks for people, in tokens for a display."""

    def __init__(self, kept: RunFolder, parameters: Parameters, report: ProgressCallable | None) -> None:
        self.missing = {stage: kept.missing(stage) for stage in parameters.stages}
        blocks = {stage: kept.blocks(stage) for stage in parameters.stages}
        self._total = sum(map(len, blocks.values()))
        self._tokens = {stage: blocks[stage][-1].end for stage in blocks}
        self._done = {
            stage: self._tokens[stage] - sum(block.end - block.begin for block in self.missing[stage])
            for stage in parameters.stages
        }
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

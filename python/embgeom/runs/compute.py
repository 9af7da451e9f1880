"""What a block of a run is, and how it is computed: here one after another, elsewhere on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np

from embgeom._common.arrays import Float32Matrix, IndexMatrix, RowNumbers
from embgeom._common.native import core
from embgeom._common.progress import Progress
from embgeom._common.record import Arrays
from embgeom.geometry.dimension import IntrinsicDimension, intrinsic_dimension
from embgeom.geometry.knn import Metric, knn
from embgeom.geometry.lle import LLE, lle
from embgeom.geometry.rows import centered

Task = Literal["knn", "lle", "dimension"]

# The phase of a kernel that takes nearly all of its time, by which a block's share is known.
_MAIN_PHASES = ("multiply", "reconstruct", "decompose")
# Fields that a result gets as a whole, not block by block.
_WHOLE = ("rows", "indices")


@dataclass(frozen=True)
class Parameters:
    """What a run computes; everything in it decides on the bits of the result."""

    task: Task
    k: int
    metric: Metric
    reg: float | None = None
    variance: float | None = None
    center: bool = False

    @property
    def stages(self) -> tuple[Task, ...]:
        """What is computed one after the other: neighbors first."""
        return ("knn",) if self.task == "knn" else ("knn", self.task)


class Block(NamedTuple):
    """Tokens `begin` to `end` of a run, of one of its stages."""

    stage: Task
    number: int
    begin: int
    end: int

    @property
    def name(self) -> str:
        """Its name in files and in messages."""
        return f"{self.stage}-{self.number:05d}"


@dataclass(frozen=True)
class Work:
    """What the blocks of one stage are computed from, on this machine.

    `rows` are the rows of `matrix` that the run is about (None: all, in order); token i of the run is row
    ``rows[i]``. `neighbors(block)` gives the neighbors of a block's tokens, None in the stage that finds
    them. `threads` are those of one block at a time.
    """

    stage: Task
    parameters: Parameters
    matrix: Float32Matrix
    rows: RowNumbers | None
    threads: int
    neighbors: Callable[[Block], IndexMatrix | None]

    def rows_of(self, block: Block) -> RowNumbers | None:
        """Return the rows of a block as `compute_block` takes them: None for all rows of the matrix."""
        if self.rows is not None:
            return self.rows[block.begin : block.end]
        if block.end - block.begin == len(self.matrix):
            return None
        return np.arange(block.begin, block.end, dtype=np.int64)


# Called with a block that is being computed and the share of it that is done.
ReportShare = Callable[[Block, float], None]
# Computes blocks in any order, and gives each as soon as it is there, with its arrays and the instruction set
# of the processor that computed it.
Executor = Callable[[Work, Sequence[Block], ReportShare], Iterator[tuple[Block, Arrays, str]]]


def searched(parameters: Parameters, stage: Task, matrix: Float32Matrix) -> Float32Matrix:
    """Return the matrix whose rows a stage works on: a centered copy where neighbors of such are sought."""
    if stage == "knn" and parameters.center and parameters.metric != "euclidean":
        return centered(matrix)
    return matrix


def compute_block(
    stage: Task,
    matrix: Float32Matrix,
    neighbors: IndexMatrix | None,
    rows: RowNumbers | None,
    parameters: Parameters,
    threads: int | None = None,
    progress: Progress = False,
) -> Arrays:
    """Compute one block: a pure function, whose bits depend neither on the other blocks nor on `threads`.

    `matrix` is what `searched` gives, `rows` are the block's rows of it (None: all of them, which a search
    does in half the time), and `neighbors` (len(rows), k) those of the same rows. The arrays have a row for
    each row: of knn `indices`, and `similarities` unless the run is for dimensions; of lle and dimension the
    fields of their results.
    """
    common: dict[str, Any] = {"rows": rows, "threads": threads, "progress": progress}
    if neighbors is None:
        found = knn(matrix, parameters.k, metric=parameters.metric, **common)
        if parameters.task == "dimension":
            return {"indices": found.indices}
        return {"indices": found.indices, "similarities": found.similarities}
    result: LLE | IntrinsicDimension
    if stage == "lle":
        result = lle(matrix, neighbors, reg=parameters.reg or 0.0, **common)
    else:
        result = intrinsic_dimension(matrix, neighbors, variance=parameters.variance or 0.0, **common)
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {
        name: value for name, value in values.items() if isinstance(value, np.ndarray) and name not in _WHOLE
    }


def compute_here(
    work: Work, blocks: Sequence[Block], report: ReportShare
) -> Iterator[tuple[Block, Arrays, str]]:
    """Compute blocks on this machine, one after another, each with all threads."""
    matrix = searched(work.parameters, work.stage, work.matrix) if blocks else work.matrix
    for block in blocks:

        def progress(phase: str, done: int, total: int, block: Block = block) -> None:
            if phase in _MAIN_PHASES:
                report(block, done / total)

        yield (
            block,
            compute_block(
                work.stage,
                matrix,
                work.neighbors(block),
                work.rows_of(block),
                work.parameters,
                work.threads,
                progress,
            ),
            core.instruction_set(),
        )

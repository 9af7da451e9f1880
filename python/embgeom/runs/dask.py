"""Blocks of a run on the workers of a Dask cluster."""

from __future__ import annotations

import socket
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from embgeom._common.arrays import Float32Matrix, IndexMatrix, RowNumbers, as_matrix
from embgeom._common.checks import need
from embgeom._common.native import build_digest, core
from embgeom._common.progress import ProgressCallable
from embgeom._common.record import Arrays, array_digest, versions
from embgeom._common.tables import write_error
from embgeom.errors import EmbgeomError, InputError, first_line
from embgeom.runs.compute import Block, Parameters, ReportShare, Task, Work, compute_block, searched

if TYPE_CHECKING:
    from distributed import Client, Future

# Seconds without a worker after which a run gives up; a lost one is usually replaced within a few.
PATIENCE = 60.0
# Seconds for a scheduler to answer.
_ANSWER = 10.0
# Seconds between two looks at the workers.
_LOOK = 1.0
# Seconds for the arrays of a block to begin to arrive, and the bytes a second of the slowest network.
_ARRIVAL, _SLOWEST = 120.0, 1e6
# A block that was lost so many times is not tried again: it may take its workers with it.
_MOST_LOSSES = 4
# Beyond this share of a worker's memory limit, Dask moves what a worker holds to its disk.
_SHARE_OF_MEMORY = 0.6


@contextmanager
def connected(address: str) -> Iterator[Client]:
    """Give a client of the scheduler at an address."""
    distributed = need("distributed", "a run on a Dask cluster", extra="dask")
    import dask
    from distributed.comm.addressing import get_address_host_port

    # Matrices and results need not pass through the scheduler.
    direct = dask.config.get("distributed.client.direct-to-workers") is not False
    try:
        # A client without a scheduler would take a minute to be removed.
        socket.create_connection(get_address_host_port(address), timeout=_ANSWER).close()
        client = distributed.Client(address, direct_to_workers=direct, set_as_default=False)
    except (OSError, ValueError, distributed.TimeoutError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({first_line(error)}); "
            "give the address that `dask scheduler` prints, such as tcp://host:8786"
        ) from error
    with client:
        yield client


class _Copy(NamedTuple):
    """A worker's matrix, which Dask counts twice and memory holds once.

    Of what was sent to others, which is `lent`, Dask removes the replicas that it holds superfluous, on any
    worker. Blocks use `own`, which is sent to none. A copy is passed on before it is checked.
    """

    own: Future
    lent: Future


class _Order(NamedTuple):
    """What a worker was told to do: to compute a block, or to fetch the matrix from another worker."""

    worker: str
    future: Future
    block: Block | None = None
    source: str | None = None


class Cluster:
    """The workers of a cluster: which of them hold the matrix, and what each does."""

    def __init__(self, client: Client, matrix: Float32Matrix, digest: str, *, is_told: bool = False) -> None:
        self._distributed = need("distributed", "a run on a Dask cluster", extra="dask")
        if not isinstance(client, self._distributed.Client) or client.asynchronous:
            raise InputError(f"client = {client!r:.80} must be a distributed.Client that is not asynchronous")
        self._client, self._matrix, self._digest, self._is_told = client, matrix, digest, is_told
        self._copies: dict[str, _Copy] = {}
        self._orders: dict[str, _Order] = {}
        self._finished: SimpleQueue[Future] = SimpleQueue()
        self._losses: defaultdict[Block, list[str]] = defaultdict(list)
        self._workers: dict[str, dict[str, Any]] = {}
        self._looked = 0.0

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        futures = [order.future for order in self._orders.values()]
        # A client whose scheduler is gone is closed.
        if self._client.status == "running":
            self._client.cancel(futures + [future for copy in self._copies.values() for future in copy])

    @property
    def threads(self) -> list[int]:
        """How many threads each worker has."""
        self._look()
        return [worker["nthreads"] for worker in self._workers.values()]

    def compute(
        self, work: Work, blocks: Sequence[Block], _: ReportShare
    ) -> Iterator[tuple[Block, Arrays, str]]:
        """Give blocks as they are done: each worker computes one at a time, with all of its threads."""
        waiting = deque(blocks)
        while waiting or any(order.block for order in self._orders.values()):
            if time.monotonic() > self._looked + _LOOK:
                self._look()
                self._give_up_lost(waiting)
            self._give_orders(work, waiting)
            try:
                order = self._orders.pop(self._finished.get(timeout=_LOOK).key)
            except (Empty, KeyError):
                continue
            if order.future.status == "error":
                raise _explained(order, order.future.exception())
            if order.future.status != "finished":
                self._give_up(order, waiting, f"it is {order.future.status}")
            elif order.block is not None:
                # The worker goes on while the arrays of its last block travel.
                self._give_orders(work, waiting)
                # At most the indices and similarities, or the weights, of k neighbors.
                size = 8 * work.parameters.k * (order.block.end - order.block.begin)
                limit = _ARRIVAL + size / _SLOWEST
                try:
                    arrays, instructions = order.future.result(timeout=limit)
                except self._distributed.TimeoutError:
                    self._give_up(order, waiting, f"its result did not arrive within {limit:.0f} s")
                except (OSError, self._distributed.CancelledError) as error:
                    self._give_up(order, waiting, f"its result did not arrive: {first_line(error)}")
                else:
                    yield order.block, arrays, instructions

    def _look(self) -> None:
        """Find out which workers there are; wait for the first, but not for ever."""
        end = time.monotonic() + PATIENCE
        while True:
            workers = self._client.scheduler_info(n_workers=-1).get("workers", {})
            self._workers = {
                name: worker for name, worker in workers.items() if not worker["status"].startswith("clos")
            }
            self._looked = time.monotonic()
            if self._workers:
                return
            if self._looked > end or self._client.status == "closed":
                raise EmbgeomError(
                    f"the Dask cluster is gone, or has had no worker for {PATIENCE:.0f} seconds; blocks that "
                    "are done are kept, so start workers (`dask worker ADDRESS`) and repeat the call"
                )
            time.sleep(_LOOK / 5)

    def _give_orders(self, work: Work, waiting: deque[Block]) -> None:
        """Let idle workers compute blocks, and those without the matrix fetch it from those that have it."""
        busy = {order.worker for order in self._orders.values()}
        fetching = {order.worker: order.source for order in self._orders.values() if order.source}
        lenders = [name for name in self._copies if name not in fetching and name not in fetching.values()]
        for name, worker in self._workers.items():
            if name in busy or not waiting:
                continue
            if name in self._copies:
                self._order_block(name, work, waiting.popleft(), worker["nthreads"])
            elif lenders or not self._copies:
                self._order_matrix(name, worker["memory_limit"], lenders.pop() if lenders else None)

    def _order_block(self, name: str, work: Work, block: Block, threads: int) -> None:
        future = self._submit(
            name,
            _compute,
            self._copies[name].own,
            work.stage,
            work.neighbors(block),
            work.rows_of(block),
            work.parameters,
            threads,
        )
        self._expect(_Order(name, future, block))

    def _order_matrix(self, name: str, limit: int, source: str | None) -> None:
        if limit and self._matrix.nbytes > _SHARE_OF_MEMORY * limit:
            raise InputError(
                f"the Dask worker {name} may take {limit / 1e9:.3g} GB, too little for a matrix of "
                f"{self._matrix.nbytes / 1e9:.3g} GB; start workers with a larger --memory-limit"
            )
        held = self._sent(name) if source is None else self._copies[source].lent
        if held is None:
            return
        lent = self._submit(name, _same, held)
        own = self._submit(name, _checked, lent, self._digest, versions().get("embgeom"), build_digest())
        self._copies[name] = _Copy(own, lent)
        self._expect(_Order(name, lent, source=source or name))

    def _sent(self, name: str) -> Future | None:
        """Send the matrix to a worker; None if that has gone meanwhile."""
        try:
            return self._client.scatter(self._matrix, workers=[name], hash=False)
        except (OSError, KeyError, self._distributed.TimeoutError) as error:
            self._look()
            if name not in self._workers:
                return None
            raise InputError(
                f"the Dask worker {name} cannot be reached from here ({first_line(error)}); with "
                "DASK_DISTRIBUTED__CLIENT__DIRECT_TO_WORKERS=false, everything goes through the scheduler"
            ) from error

    def _submit(self, name: str, function: Any, *arguments: Any) -> Future:
        import dask

        # The rows of neighbor lists that go with a block are meant to be sent along.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1GiB"}):
            return self._client.submit(function, *arguments, workers=[name], pure=False)

    def _expect(self, order: _Order) -> None:
        self._orders[order.future.key] = order
        order.future.add_done_callback(self._finished.put)

    def _give_up_lost(self, waiting: deque[Block]) -> None:
        """Give up what workers did that are gone, or fetched from one that is."""
        for order in list(self._orders.values()):
            if order.worker not in self._workers or (order.source and order.source not in self._workers):
                del self._orders[order.future.key]
                gone = order.worker if order.worker not in self._workers else order.source
                self._give_up(order, waiting, f"{gone} is gone")
        self._copies = {name: copy for name, copy in self._copies.items() if name in self._workers}

    def _give_up(self, order: _Order, waiting: deque[Block], why: str) -> None:
        self._looked = 0.0  # Most likely a worker is gone.
        self._client.cancel([order.future])
        self._copies.pop(order.worker, None)
        if order.source in self._copies and self._copies[order.source].lent.status != "finished":
            del self._copies[order.source]
        if order.block is not None:
            losses = self._losses[order.block]
            losses.append(f"{order.worker} ({why})")
            if self._is_told:
                write_error(f"embgeom: block {order.block.name} was lost on {losses[-1]}\n")
            if len(losses) == _MOST_LOSSES:
                raise EmbgeomError(
                    f"block {order.block.name} was lost {_MOST_LOSSES} times, on {', '.join(losses)}; see "
                    "the logs of these workers, which end when they exceed their --memory-limit"
                )
            waiting.appendleft(order.block)


def _explained(order: _Order, error: BaseException | None) -> BaseException:
    """Return what a worker raised on purpose, or an error that says what may have happened to it."""
    if isinstance(error, EmbgeomError | MemoryError):
        return error
    explained = EmbgeomError(
        f"the Dask worker {order.worker} failed ({first_line(error or EmbgeomError())}); see its log, and "
        "install the same versions of embgeom and distributed on all machines"
    )
    explained.__cause__ = error
    return explained


# The functions that workers run.


def _same(matrix: Float32Matrix) -> Float32Matrix:
    return matrix


def _checked(matrix: Float32Matrix, digest: str, version: str | None, build: str) -> Float32Matrix:
    here = versions().get("embgeom")
    if here != version:
        raise InputError(f"a Dask worker has embgeom {here}, not {version}; install one version everywhere")
    if build_digest() != build:
        raise InputError(
            f"a Dask worker has another build of embgeom {here} or of its BLAS, whose results may have other "
            "bits; install the same wheel everywhere"
        )
    received = as_matrix(matrix)
    if array_digest(received) != digest:
        raise EmbgeomError("the matrix arrived damaged at a Dask worker; repeat the call")
    return received


def _compute(
    matrix: Float32Matrix,
    stage: Task,
    neighbors: IndexMatrix | None,
    rows: RowNumbers | None,
    parameters: Parameters,
    threads: int,
) -> tuple[Arrays, str]:
    matrix = searched(parameters, stage, matrix)
    arrays = compute_block(stage, matrix, neighbors, rows, parameters, threads, _stopping())
    return arrays, core.instruction_set()


def _stopping() -> ProgressCallable:
    """Return a progress callable that ends the kernel when nobody waits for this task any more."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def progress(_phase: str, _done: int, _total: int) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise EmbgeomError("the block is no longer wanted")

    return progress

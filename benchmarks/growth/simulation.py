"""A run on a Dask cluster as a discrete-event simulation: `embgeom.runs.dask` with times for its waits."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

import numpy as np

from embgeom.runs.compute import Parameters
from embgeom.runs.plan import boundaries


@dataclass(frozen=True)
class Costs:
    """What each step takes: seconds, bytes a second, and multiply-adds a second and thread."""

    search_rate: float
    token_seconds: float
    link: float
    copy_rate: float
    digest_rate: float
    order_seconds: float
    order_rate: float
    result_rate: float
    write_seconds: float
    write_rate: float
    task_seconds: float
    spread: float = 0.05


@dataclass(frozen=True)
class Case:
    """A dimension run of all tokens, and the cluster."""

    rows: int
    columns: int
    k: int
    workers: int
    threads: int

    @property
    def matrix_bytes(self) -> int:
        return 4 * self.rows * self.columns


@dataclass
class Outcome:
    """Seconds, shares of the whole, and bytes."""

    spread_out: float = 0.0
    searched: float = 0.0
    total: float = 0.0
    caller: float = 0.0
    scheduler: float = 0.0
    efficiency: float = 0.0
    blocks: int = 0


class Simulation:
    """One client, which does one thing at a time, a scheduler, and workers, which do one block at a time."""

    def __init__(self, case: Case, costs: Costs) -> None:
        self.case, self.costs, self.outcome = case, costs, Outcome()
        self.random = np.random.default_rng(0)
        self.events: list[tuple[float, int, int, int | None]] = []  # time, worker, tokens, source
        self.clock = self.scheduler_free = self.work = 0.0
        self.lacking, self.lenders = deque(range(case.workers)), deque[int]()
        self.idle, self.checked = set[int](), set[int]()

    def run(self) -> Outcome:
        case, costs, outcome = self.case, self.costs, self.outcome
        cuts = boundaries(
            Parameters("dimension", case.k, "cosine", variance=0.95),
            (case.rows, case.columns),
            case.rows,
            threads=case.threads,
            workers=case.workers,
        )
        self.spend(case.matrix_bytes / costs.digest_rate)  # the run's own name for the matrix
        first = self.lacking.popleft()
        rate = min(costs.copy_rate, costs.link)
        self.spend(case.matrix_bytes / rate)
        self.push(self.clock, first, 0, first)
        for stage in ("knn", "dimension"):
            tokens = deque(int(size) for size in np.diff(cuts[stage]))
            outcome.blocks += len(tokens)
            self.compute(stage, tokens, rate)
            if stage == "knn":
                outcome.searched = self.clock
        outcome.total = self.clock
        outcome.caller /= self.clock
        outcome.scheduler /= self.clock
        outcome.efficiency = self.work / (case.workers * self.clock)
        return outcome

    def compute(self, stage: str, waiting: deque[int], rate: float) -> None:
        """Let the workers compute all blocks of a stage."""
        under_way = 0
        for worker in sorted(self.idle):
            under_way += self.order(stage, worker, waiting)
        while waiting or under_way:
            time, worker, tokens, source = heapq.heappop(self.events)
            self.clock = max(self.clock, time)
            under_way -= tokens > 0
            if source is not None:
                self.lenders.extend({worker, source})
                self.outcome.spread_out = time
            while self.lacking and self.lenders and waiting:
                receiver, lender = self.lacking.popleft(), self.lenders.popleft()
                self.push(self.clock + self.case.matrix_bytes / rate, receiver, 0, lender)
            under_way += self.order(stage, worker, waiting)
            if tokens:
                # The neighbors of a search block, the three numbers a token of the others.
                size = tokens * (4 * self.case.k if stage == "knn" else 12)
                costs = self.costs
                self.spend(size / min(costs.result_rate, costs.link))
                self.spend(costs.write_seconds + size / costs.write_rate)

    def order(self, stage: str, worker: int, waiting: deque[int]) -> int:
        """Give a worker its next block, if there is one."""
        if not waiting:
            self.idle.add(worker)
            return 0
        self.idle.discard(worker)
        tokens, case, costs = waiting.popleft(), self.case, self.costs
        sent = 0 if stage == "knn" else 4 * tokens * case.k
        self.spend(costs.order_seconds + sent / min(costs.order_rate, costs.link))
        self.scheduler_free = max(self.scheduler_free, self.clock) + costs.task_seconds
        self.outcome.scheduler += costs.task_seconds
        begin = self.scheduler_free
        if worker not in self.checked:
            self.checked.add(worker)
            begin += case.matrix_bytes / costs.digest_rate
        if stage == "knn":
            work = tokens * case.rows * case.columns / costs.search_rate / case.threads
        else:
            work = tokens * costs.token_seconds / case.threads
        work *= 1 + costs.spread * self.random.uniform(-1, 1)
        self.work += work
        self.push(begin + work, worker, tokens, None)
        return 1

    def spend(self, seconds: float) -> None:
        """Let the client do something else but wait."""
        self.clock += seconds
        self.outcome.caller += seconds

    def push(self, time: float, worker: int, tokens: int, source: int | None) -> None:
        heapq.heappush(self.events, (time, worker, tokens, source))


def worker_bytes(case: Case) -> int:
    """Return what a worker holds: the matrix, and the larger of what the two kernels take beside it."""
    p = min(case.k, case.columns)
    search = (128 << 20) + case.threads * (13 << 20)
    dimension = case.threads * 12 * (p * p + (512 * case.k if case.k <= case.columns else 256 * case.columns))
    return case.matrix_bytes + max(search, dimension)

"""One measurement, in a process of its own.

Processes are the only honest border: thread pools, allocators and caches of one library would otherwise be
there when the next one is timed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.compare.contender import Call, Case, Contender, Timed, smaller
from benchmarks.compare.dimension_workers import THREAD_VARIABLES
from benchmarks.compare.problem import Size

ROOT = Path(__file__).resolve().parents[2]
WARM_UP_ROWS, WARM_UP_TOKENS = 600, 64
# Calls shorter than this are repeated, and the median counts.
SHORT_SECONDS, REPEATS = 0.3, 5
MARK = "measured: "


@dataclass(frozen=True)
class Job:
    """What a child is to do: one contender's time, or (`tune`) the fastest of its options."""

    case: str
    contender: str
    size: Size
    options: dict[str, Any] = field(default_factory=dict)
    tune: bool = False
    check: bool = True


class ChildFailed(RuntimeError):
    """A child ended without a result; the message is the end of what it wrote."""


def run_in_child(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Let one fresh process do the jobs in turn, and return a result for each."""
    threads = str(jobs[0].size.threads)
    # Libraries read these when they are loaded, so they must be there before the interpreter starts.
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, threads)
    command = [sys.executable, "-m", "benchmarks.compare", "--child"]
    command.append(json.dumps([asdict(job) for job in jobs]))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or len(lines) != len(jobs):
        end = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ChildFailed(end if done.returncode >= 0 else f"killed by signal {-done.returncode}")
    return [json.loads(line) for line in lines]


def be_child(text: str) -> None:
    """Do the jobs that the parent put on the command line."""
    from benchmarks.compare.cases import BY_NAME

    for entry in json.loads(text):
        job = Job(**{**entry, "size": Size(**entry["size"])})
        case = BY_NAME[job.case]
        contender = case.contender(job.contender)
        limit_threads(contender.library, job.size.threads)
        result = tune(case, contender, job) if job.tune else measure(case, contender, job)
        print(MARK + json.dumps(result), flush=True)


def limit_threads(library: str, threads: int) -> None:
    """Tell the libraries that have a switch of their own."""
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
    elif library == "faiss":
        import faiss

        faiss.omp_set_num_threads(threads)


def warm_up(case: Case, contender: Contender, job: Job) -> None:
    """Answer the question for a small problem: code is loaded and threads are started."""
    small = replace(job.size, rows=min(job.size.rows, WARM_UP_ROWS), quick=True)
    contender.prepare(case.build(small, smaller(contender.limit, WARM_UP_TOKENS)), **job.options)()


def measure(case: Case, contender: Contender, job: Job) -> dict[str, Any]:
    """Time the call, take its peak memory, and check its answer."""
    warm_up(case, contender, job)
    problem = case.build(job.size, contender.limit)
    call = contender.prepare(problem, **job.options)
    before = start_of_peak()
    seconds, answer = timed(call)
    growth = None if before is None else (memory("VmHWM") - before) / 1e6
    repeated = not isinstance(answer, Timed) and seconds < SHORT_SECONDS and not job.size.quick
    if repeated:
        seconds = statistics.median([seconds, *(timed(call)[0] for _ in range(REPEATS - 1))])
    per = len(problem.tokens) if case.per_token else 1
    result = {"seconds": seconds / per, "peak_mb": growth, "tokens": len(problem.tokens), "k": problem.k}
    if job.check and not isinstance(answer, Timed) and answer is not None:
        finished = contender.finish(problem, answer)
        result |= case.check(problem, finished, contender.is_reference)
        result["exact"] = contender.is_reference
    return result | {"pools": pools()}


def tune(case: Case, contender: Contender, job: Job) -> dict[str, Any]:
    """Return the fastest of the contender's options, tried on a part of the problem."""
    problem = case.build(job.size, smaller(contender.limit, case.tuning_limit))
    times = []
    for options in contender.options:
        warm_up(case, contender, replace(job, options=options))
        times.append(timed(contender.prepare(problem, **options))[0])
    return {"options": contender.options[times.index(min(times))], "tried": len(times)}


def timed(call: Call) -> tuple[float, Any]:
    begin = time.perf_counter()
    answer = call()
    seconds = time.perf_counter() - begin
    return (answer.seconds if isinstance(answer, Timed) else seconds), answer


def start_of_peak() -> int | None:
    """Forget the highest memory so far, and return the present one in bytes; None where only Linux knows."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return memory("VmRSS")
    except OSError:
        return None


def memory(key: str) -> int:
    """Return an entry of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def pools() -> list[str]:
    """Describe the thread pools and the BLAS cores of everything that was loaded."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return []
    return [
        " ".join(str(p[key]) for key in ("prefix", "version", "architecture", "num_threads") if p.get(key))
        for p in threadpool_info()
    ]

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
from benchmarks.compare.problem import Problem, Size
from benchmarks.compare.record import loaded_versions
from benchmarks.compare.usage import cpu_seconds, memory, start_of_peak

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
    small = replace(job.size, rows=min(job.size.rows, WARM_UP_ROWS), quick=True, full=False)
    contender.prepare(case.build(small, smaller(contender.limit, WARM_UP_TOKENS)), **job.options)()


def measure(case: Case, contender: Contender, job: Job) -> dict[str, Any]:
    """Time the call, take its peak memory, and check its answer."""
    warm_up(case, contender, job)
    problem = case.build(job.size, contender.limit)
    call = contender.prepare(problem, **job.options)
    before, cpu = start_of_peak(), cpu_seconds()
    seconds, answer = timed(call)
    cpu = cpu_seconds() - cpu
    growth = None if before is None else (memory("VmHWM") - before) / 1e6
    result: dict[str, Any] = {"peak_mb": growth, "tokens": len(problem.tokens), "k": problem.k}
    if isinstance(answer, Timed):
        result |= {"seconds": seconds, "cpu_seconds": answer.cpu_seconds, "scaled": answer.scaled}
        result |= {"parts": answer.parts} if answer.parts else {}
        answer = answer.answer
    else:
        if seconds < SHORT_SECONDS and not job.size.quick:
            seconds = statistics.median([seconds, *(timed(call)[0] for _ in range(REPEATS - 1))])
        scaled = not case.per_token and bool(contender.limit) and len(problem.tokens) < job.size.rows
        times = job.size.rows / len(problem.tokens) if scaled else 1 / per_call(case, problem)
        result |= {"seconds": seconds * times, "cpu_seconds": cpu * times, "scaled": scaled}
    if job.check and answer is not None:
        finished = contender.finish(problem, answer)
        result |= case.check(problem, finished, contender.is_reference)
        result["exact"] = contender.is_reference
    return result | {"pools": pools(), "versions": loaded_versions()}


def per_call(case: Case, problem: Problem) -> int:
    """Return by what the time of a call is divided."""
    return len(problem.tokens) if case.per_token else 1


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

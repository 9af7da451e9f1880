"""How many threads a kernel may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

from embgeom._common.checks import whole_number
from embgeom._common.progress import ProgressCallable

_MOST_THREADS = 1024
# NumPy's OpenBLAS has room for a limited number of callers, and ends the process where more call it.
_MOST_IN_PYTHON = 16
# What a thread of `in_threads` knows: the event that stops it, and how many threads it may start itself.
_HERE = threading.local()
_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads: as asked for, or by OMP_NUM_THREADS, CPU affinity and cgroup quota."""
    if threads is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min([cores, *filter(None, (_openmp_limit(), _cgroup_limit()))]))
    return whole_number(threads, "threads", 1, _MOST_THREADS, "; None takes every core available")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's BLAS multiply on one thread: with more, last digits depend on how many there are."""
    with threadpool_limits(1, user_api="blas"):
        yield


def in_threads(
    function: Callable[[_Item], _Found],
    items: Iterable[_Item],
    threads: int | None,
    report: ProgressCallable | None = None,
) -> list[_Found]:
    """Return what a function finds for each item, in their order; NumPy multiplies without Python's lock.

    Within a function, calls share the threads that are left. Ctrl-C ends whatever calls `keep_going`.
    """
    waiting, most = list(items), getattr(_HERE, "most", _MOST_IN_PYTHON)
    count = min(resolve_threads(threads), most, len(waiting))
    stop = getattr(_HERE, "stop", None) or threading.Event()

    def call_here(item: _Item) -> _Found:
        keep_going()
        return function(item)

    def call(item: _Item) -> _Found:
        _HERE.stop, _HERE.most = stop, most // count
        return call_here(item)

    if count < 2:
        return _reported(map(call_here, waiting), len(waiting), report)

    pool = ThreadPoolExecutor(count)
    try:
        futures = [pool.submit(call, item) for item in waiting]
        return _reported((future.result() for future in futures), len(waiting), report)
    except KeyboardInterrupt:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _reported(results: Iterable[_Found], total: int, report: ProgressCallable | None) -> list[_Found]:
    found = []
    for result in results:
        found.append(result)
        if report is not None:
            report("measures", len(found), total)
    return found


def keep_going(*_: object) -> None:
    """Raise where Ctrl-C has ended the call of `in_threads` that this thread works for.

    Only the main thread learns of signals: kernels in other threads take this to report progress to.
    """
    stop: threading.Event | None = getattr(_HERE, "stop", None)
    if stop is not None and stop.is_set():
        raise KeyboardInterrupt


def _openmp_limit() -> int | None:
    # The variable may list a number for each nesting level; the first is the outermost.
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    digits = value.lstrip("0") if value.isdecimal() else ""
    return int(digits[:9]) if digits else None


def _cgroup_limit() -> int | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return None if quota == "max" else max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return None

"""Where a run is cut into blocks: by what they are estimated to cost."""

from __future__ import annotations

from embgeom.runs.compute import Parameters, Task

# Multiply-adds a second and thread, of processors with AVX2; those with AVX-512 are up to twice as fast.
_SEARCHED = 40e9
_MEASURED = 15e9
# Bytes a second at which each block reads the whole matrix, before its own work.
_READ = 5e9
# Seconds of a block: long beside the time that writing it takes, short enough to lose.
_SEARCH_SECONDS = 60.0
_MEASURE_SECONDS = 25.0
# Of a block's time at most this share is spent on reading the matrix.
_READ_SHARE = 0.01
# Bytes of a search block's neighbors and similarities where they are not the output.
_MOST_BYTES = 512 << 20


def boundaries(
    parameters: Parameters, shape: tuple[int, int], count: int, *, threads: int, workers: int = 1
) -> dict[Task, list[int]]:
    """Return where the blocks of each stage begin, and the end of the last one.

    `count` tokens are computed by `workers`, each of which does a block at a time with `threads` threads.
    """
    n, d = shape
    least = 4 * n * d / _READ / _READ_SHARE
    cuts = {}
    for stage in parameters.stages:
        if stage == "knn":
            size = _search_rows(parameters, shape, count, threads, least)
        else:
            size = int(max(_MEASURE_SECONDS, least) * _MEASURED * threads / _measure_cost(parameters, d))
        # All workers have several blocks, so that they end at about the same time.
        parts = max(-(-count // max(size, 1)), min(4 * workers, count) if workers > 1 else 1)
        cuts[stage] = [count * part // parts for part in range(parts + 1)]
    return cuts


def _search_rows(
    parameters: Parameters, shape: tuple[int, int], count: int, threads: int, least: float
) -> int:
    """Return for how many tokens one block finds the neighbors."""
    n, d = shape
    speed = _SEARCHED * threads
    most = count if parameters.task != "dimension" else max(1, _MOST_BYTES // (8 * parameters.k))
    # The search of all rows for all rows visits each pair once, that of some rows for all visits it twice.
    if count == n and count <= most and n * n * d / 2 / speed <= _SEARCH_SECONDS:
        return n
    return min(int(max(_SEARCH_SECONDS, least) * speed / (n * d)), most)


def _measure_cost(parameters: Parameters, d: int) -> float:
    """Return the multiply-adds for one token."""
    k = parameters.k
    if parameters.task == "lle":
        # In float64, which takes twice the time.
        return 2 * (k * k * d / 2 + k**3 / 3)
    p = min(k, d)
    return p * k * d / 2 + 2 * p**3 / 3

"""Kernels where the system or a library gives no more: room in BLAS, memory."""

import os
import subprocess
import sys
import textwrap

import pytest

PRELUDE = """
import os, resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import embgeom

x = np.random.default_rng(0).standard_normal((1300, 64)).astype(np.float32)
y = np.random.default_rng(1).standard_normal((1300, 300)).astype(np.float32)
neighbors = embgeom.knn(x, 250, threads=2)

def answers(threads):
    weights = embgeom.lle(x, neighbors, threads=threads)
    few = embgeom.lle(y, neighbors.indices[:, :10], threads=threads)
    # A share so near to 1 is decided by float64, which goes through LAPACK.
    dimension = embgeom.intrinsic_dimension(y, neighbors.indices[:150], rows=np.arange(150),
                                            variance=1 - 1e-9, threads=threads)
    found = embgeom.knn(y, 20, threads=threads)
    mapping = embgeom.Emb2Emb.fit(x, y, threads=threads)
    arrays = (weights.weights, weights.residuals, few.weights, dimension.n_components,
              dimension.explained_variance_ratio, found.indices, found.similarities, mapping.matrix,
              embgeom.row_stats(x, threads=threads).norms)
    return [a.tobytes() for a in arrays], embgeom.global_similarity(x, y, center=True, threads=threads)
"""


def run(body, **environment):
    """Run a piece of Python in a process of its own, which must end well and in silence."""
    # The variable would set a limit to threads of its own.
    variables = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)],
        capture_output=True, text=True, timeout=300, check=False, env=variables | environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("threads", [192, 1000])
def test_more_threads_than_the_blas_has_room_for(threads):
    # OpenBLAS is built for 64 threads, and ends a process in which more of them call it at once.
    assert run(f"print(answers({threads}) == answers(2))") == "True\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss counts KiB as Linux does")
def test_threads_beyond_the_cores_take_little_memory():
    # With k = 1,200 a worker of lle has two matrices of 11 MiB.
    body = """
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        lists = np.tile(np.arange(1200), (40, 1))
        def solve(threads):
            return embgeom.lle(x, lists, rows=np.arange(1200, 1240), threads=threads).weights.tobytes()
        expected, before = solve(1), peak()
        print(solve(1000) == expected, peak() - before < max(256, 22 * len(os.sched_getaffinity(0))) + 200)
    """
    assert run(body) == "True True\n"


def test_more_callers_than_the_blas_has_room_for():
    body = """
        def solve(threads):
            return embgeom.lle(x, neighbors, threads=threads).weights.tobytes()
        expected = solve(2)
        with ThreadPoolExecutor(6) as pool:
            print(all(found == expected for found in pool.map(solve, [40] * 6)))
    """
    assert run(body) == "True\n"


@pytest.mark.slow
def test_a_fork_amid_calls_of_the_blas():
    # Its parent's callers are not there to leave, but they must not keep the child's out.
    body = """
        import os, threading, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
        expected = embgeom.lle(x, neighbors, threads=2).weights.tobytes()
        stop = threading.Event()
        def work():
            while not stop.is_set():
                embgeom.lle(x, neighbors, threads=64)
        busy = threading.Thread(target=work)
        busy.start()
        ends = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(embgeom.lle(x, neighbors, threads=2).weights.tobytes() != expected)
            ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        busy.join()
        print(ends)
    """
    assert run(body) == "[0, 0, 0, 0, 0]\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space as Linux does")
@pytest.mark.parametrize("threads", [1, 2])
def test_too_little_memory_is_a_memory_error(threads):
    body = f"""
        size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
        limit = (size << 10) + (SPARE << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        calls = {{
            "lle": lambda: embgeom.lle(x, neighbors, threads={threads}),
            "dimension": lambda: embgeom.intrinsic_dimension(y, neighbors, threads={threads}),
            "similarity": lambda: embgeom.global_similarity(x, y, threads={threads}),
        }}
        for name, call in calls.items():
            try:
                call()
            except MemoryError:
                print("MemoryError")
            else:
                print("done")
    """
    for spare in (8, 20, 40, 300):
        lines = set(run(f"SPARE = {spare}\n" + textwrap.dedent(body)).split())
        assert lines == ({"done"} if spare == 300 else {"MemoryError"})

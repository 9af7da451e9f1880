"""Kernels among threads, signals and forks: whatever happens around a call, Python stays in charge.

What could kill or hang the test process runs in a process of its own, with a time limit.
"""

import contextlib
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import embgeom
from embgeom import InputError, global_similarity, intrinsic_dimension, knn, lle
from tests.helpers.printed import Terminal
from tests.oracles import reference

# A kernel stops within a second of Ctrl-C; a loaded machine may hold up the process itself for another.
SECONDS_TO_STOP = 2.0

PRELUDE = """
import os, signal, sys, threading, time
import numpy as np
from embgeom import global_similarity, intrinsic_dimension, knn, lle
from embgeom._common.native import core
from embgeom._common.threads import in_threads, keep_going
from embgeom.comparison.panel import panel_estimates
from embgeom.geometry.similarity import similarity_terms

rng = np.random.default_rng(0)
"""

# Each of these keeps two cores busy for many seconds.
LONG_CALLS = {
    "knn": """
        x = rng.standard_normal((60000, 512), dtype=np.float32)
        call = lambda: knn(x, 50, threads=2)
    """,
    "knn among near-ties": """
        x = np.resize(rng.standard_normal((1000, 512), dtype=np.float32), (200000, 512))
        x *= 1 + np.float32(1e-6) * rng.random((200000, 1), dtype=np.float32)
        call = lambda: knn(x, 1000, queries=x[:20000], metric="euclidean", threads=2)
    """,
    "lle": """
        x = rng.standard_normal((60000, 512), dtype=np.float32)
        lists = (np.arange(60000)[:, None] + np.arange(1, 201)) % 60000
        call = lambda: lle(x, lists, threads=2)
    """,
    "intrinsic_dimension": """
        x = rng.standard_normal((5000, 1024), dtype=np.float32)
        lists = (np.arange(5000)[:, None] + np.arange(1, 1201)) % 5000
        call = lambda: intrinsic_dimension(x, lists, threads=2)
    """,
    "global_similarity": """
        x = np.resize(rng.standard_normal((1999, 4096), dtype=np.float32), (30000, 4096))
        call = lambda: global_similarity(x, x[::-1], threads=2)
    """,
    "similarity_terms": """
        x = np.resize(rng.standard_normal((1999, 4096), dtype=np.float32), (30000, 4096))
        call = lambda: similarity_terms(x, x[::-1], center=True, threads=2)
    """,
    "relabeled_agreement": """
        near = rng.integers(0, 200000, (200000, 200), dtype=np.int32)
        labels = np.array([rng.permutation(200000) for _ in range(40)], dtype=np.int32)
        call = lambda: core.relabeled_agreement(near, None, near, None, labels, threads=2, progress=None)
    """,
    "kernels in threads of in_threads within one another": """
        near = rng.integers(0, 200000, (200000, 200), dtype=np.int32)
        labels = np.array([rng.permutation(200000) for _ in range(40)], dtype=np.int32)
        kernel = lambda _: core.relabeled_agreement(
            near, None, near, None, labels, threads=1, progress=keep_going
        )
        call = lambda: in_threads(lambda _: in_threads(kernel, range(2), 2), range(2), 2)
    """,
    "panel_estimates": """
        x = rng.standard_normal((40000, 600), dtype=np.float32)
        call = lambda: panel_estimates(x, x[::-1], strata=np.arange(40000) // 80, threads=2)
    """,
}


def gaussian(n=300, d=16, seed=3):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def every_kernel(x):
    """Call each kernel once; the answer can be compared by bits."""
    neighbors = knn(x, 20, threads=2)
    weights = lle(x, neighbors, threads=2)
    dimension = intrinsic_dimension(x, neighbors, threads=2)
    similarity = global_similarity(x, x[:, ::2], threads=2)
    arrays = (neighbors.indices, neighbors.similarities, weights.weights, dimension.n_components)
    return [a.tobytes() for a in arrays], similarity


def script(body):
    """Return the arguments that run a piece of Python in a process of its own."""
    return [sys.executable, "-c", PRELUDE + textwrap.dedent(body)]


def run(body, timeout=120):
    """Run a piece of Python, and fail with what it wrote where it fails or hangs."""
    try:
        done = subprocess.run(script(body), capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"hangs: {error.stdout!r} {error.stderr!r}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def seconds_to_stop(body):
    """Interrupt a long call in a process of its own, and return how long it took to stop."""
    with subprocess.Popen(script(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        watchdog = threading.Timer(120, child.kill)
        watchdog.start()
        try:
            assert child.stdout.readline() == "ready\n", child.stderr.read()
            time.sleep(0.7)  # so that the call is under way
            child.send_signal(signal.SIGINT)
            sent = time.monotonic()
            line = child.stdout.readline()
            took = time.monotonic() - sent
            # communicate() would miss what readline() has read ahead.
            out, err = child.stdout.read(), child.stderr.read()
            child.wait()
        finally:
            watchdog.cancel()
            child.kill()
    assert line == "interrupted\n", f"{line!r} after {took:.1f} s: {err}"
    assert out == "sound\n" and child.returncode == 0, err
    return took


@pytest.mark.parametrize("name", LONG_CALLS)
def test_interruption(name):
    body = (
        # A process started in the background inherits an ignored SIGINT; Ctrl-C at a terminal is meant.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "small = rng.standard_normal((500, 8))\n"
        "before = knn(small, 7)\n"
        + textwrap.dedent(LONG_CALLS[name])
        + textwrap.dedent("""
            print("ready", flush=True)
            try:
                call()
                print("finished", flush=True)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            after = knn(small, 7)
            assert after.indices.tobytes() == before.indices.tobytes()
            assert after.similarities.tobytes() == before.similarities.tobytes()
            print("sound", flush=True)
        """)
    )
    # A shared machine may stall for seconds: one call of three has to stop in time, and all of them soundly.
    assert any(seconds_to_stop(body) < SECONDS_TO_STOP for _ in range(3))


def test_calls_from_another_thread():
    x = gaussian()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(every_kernel, x).result() == every_kernel(x)


def test_concurrent_calls():
    # Each caller has a matrix of its own, so a workspace shared between calls would show.
    matrices = [gaussian(200 + 50 * i, 8 + i, seed=i) for i in range(6)]
    expected = [every_kernel(x) for x in matrices]
    with ThreadPoolExecutor(len(matrices)) as pool:
        for _ in range(5):
            assert list(pool.map(every_kernel, matrices)) == expected


def test_errors_in_threads_stay_errors():
    bad = gaussian()
    bad[7] = np.nan
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(knn, bad, 5) for _ in range(8)]
    assert all("7" in str(future.exception()) for future in futures)


def test_the_interpreter_is_free_during_a_call():
    # A second thread ticks while the kernel runs; if the lock were held it would tick before and after alone.
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.monotonic())
            time.sleep(0.002)

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        n = 2000
        while True:
            x = gaussian(n, 128)
            start = time.monotonic()
            knn(x, 10, threads=1)
            end = time.monotonic()
            if end - start > 0.5 or n > 200_000:
                break
            n *= 2
    finally:
        stop.set()
        ticker.join()
    during = [t for t in ticks if start < t < end]
    gaps = np.diff([start, *during, end])
    assert len(during) > 20, f"{len(during)} ticks in {end - start:.2f} s"
    assert gaps.max() < 0.5 * (end - start), f"a gap of {gaps.max():.2f} s in {end - start:.2f} s"


def test_more_threads_than_rows_or_cores():
    x = gaussian(5, 3)
    expected = knn(x, 2, threads=1)
    np.testing.assert_array_equal(knn(x, 2, threads=64).indices, expected.indices)
    np.testing.assert_array_equal(lle(x, expected, threads=64).weights, lle(x, expected, threads=1).weights)


def test_subnormal_numbers_count_whatever_the_calling_thread_thinks_of_them():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    x = (np.random.default_rng(0).integers(-3, 4, (4000, 32)) * np.float32(1.4e-45)).astype(np.float32)
    expected = knn(x, 5, threads=2).indices
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        answers = [knn(x, 5, threads=threads).indices for threads in (1, 2, 2)]
        still_flushed = float(torch.tensor(1e-40) / 2) == 0
    finally:
        torch.set_flush_denormal(False)
    assert still_flushed
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("kernel", ["knn", "lle", "intrinsic_dimension", "global_similarity"])
def test_progress_writes_to_stderr_alone(kernel, capfd, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    x = gaussian(600, 32)
    neighbors = knn(x, 40)
    calls = {
        "knn": lambda progress: knn(x, 40, progress=progress),
        "lle": lambda progress: lle(x, neighbors, progress=progress),
        "intrinsic_dimension": lambda progress: intrinsic_dimension(x, neighbors, progress=progress),
        "global_similarity": lambda progress: global_similarity(x, x[:, :9], progress=progress),
    }
    calls[kernel](False)
    assert terminal.getvalue() == ""
    calls[kernel](True)
    assert terminal.getvalue() != "" and capfd.readouterr() == ("", "")


def test_progress_does_not_change_the_answer(capfd):
    x = gaussian()
    assert knn(x, 9, progress=True).indices.tobytes() == knn(x, 9).indices.tobytes()


def test_fork_after_use():
    # The child of a fork has none of its parent's threads; a pool that waits for them hangs for ever.
    done = run("""
        x = rng.standard_normal((700, 24))
        def work():
            neighbors = knn(x, 30, threads=2)
            return neighbors.indices.tobytes(), lle(x, neighbors, threads=2).weights.tobytes(), \\
                intrinsic_dimension(x, neighbors, threads=2).n_components.tobytes(), \\
                round(global_similarity(x, x[:, ::2], threads=2), 10)
        expected = work()
        child = os.fork()
        if child == 0:
            os._exit(0 if work() == expected else 3)
        limit = time.monotonic() + 30
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > limit:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                sys.exit("the child of a fork hangs")
            time.sleep(0.01)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert work() == expected
        print("sound")
    """)
    assert done.stdout == "sound\n"


def test_multiprocessing_fork():
    run("""
        import multiprocessing, warnings
        warnings.simplefilter("ignore")  # newer Pythons warn of any fork beside threads
        x = rng.standard_normal((500, 16))
        expected = knn(x, 5).indices
        with multiprocessing.get_context("fork").Pool(2) as pool:
            results = pool.starmap_async(knn, [(x, 5)] * 4).get(timeout=60)
        assert all((r.indices == expected).all() for r in results)
    """)


def test_results_are_right_under_load():
    # The other tests here compare calls with each other; this one compares a crowded call with the oracle.
    x = gaussian(400, 12)
    ranking = reference.rank(x)
    with ThreadPoolExecutor(5) as pool:
        for found in pool.map(lambda threads: knn(x, 15, threads=threads), [1, 2, 3, 7, 16]):
            reference.assert_same_neighbors(found.indices, found.similarities, ranking)


def test_a_daemon_thread_in_a_kernel_does_not_disturb_the_exit():
    # The BLAS is taken down under the thread's feet; the exit status must be the program's own.
    body = """
        import sys, threading, time
        import numpy as np
        import embgeom
        x = np.random.default_rng(0).standard_normal((12000, 512), dtype=np.float32)
        lists = np.random.default_rng(1).integers(0, len(x), (len(x), 200), dtype=np.int32)
        for kernel in (lambda: embgeom.knn(x, 100, threads=2), lambda: embgeom.lle(x, lists, threads=2)):
            threading.Thread(target=kernel, daemon=True).start()
        time.sleep(0.4)
        sys.exit(5)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(body)], timeout=60, check=False)
    assert done.returncode == 5


@pytest.mark.parametrize("name", ["lle", "intrinsic_dimension"])
def test_lists_that_change_meanwhile_lead_nowhere(name):
    x = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    lists = np.random.default_rng(1).integers(0, 500, (500, 12), dtype=np.int32)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            lists[::7] = 2**30
            lists[::7] = 3

    writer = threading.Thread(target=disturb)
    writer.start()
    try:
        for _ in range(40):
            # Whether a call meets a wrong number is chance; that it reads no memory but its own is not.
            with contextlib.suppress(InputError):
                getattr(embgeom, name)(x, lists, threads=2)
    finally:
        stop.set()
        writer.join()

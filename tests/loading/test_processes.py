"""Loads from the Hub that are killed, interrupted, or at work on the same tensor."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from embgeom.loading import load
from tests.helpers.hub_server import BIG, CARELESS, big, kept, stalling

pytest.importorskip("huggingface_hub")

LOAD = """
import sys, numpy as np, embgeom
loaded = embgeom.load("owner/big", cache_dir=sys.argv[1])
print(loaded.provenance.bytes_fetched, float(np.abs(loaded.matrix).sum()))
"""


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def start(cache):
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(cache)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def partial_size(cache):
    # A file is renamed as soon as it is whole, perhaps between its listing and here.
    try:
        return sum(path.stat().st_size for path in kept(cache, ".partial"))
    except FileNotFoundError:
        return 0


def test_killed_in_the_middle_and_repeated_only_the_rest_is_fetched(hub, cache):
    big(hub)
    hub.faults = [None, stalling(4_000_000, 30)]
    process = start(cache)
    until(lambda: partial_size(cache) >= 4_000_000)
    process.kill()
    process.communicate()
    assert partial_size(cache) - 4_000_000 < 1000  # what comes before is the head of the kept file
    sent = hub.fetched("model.safetensors")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    rest = hub.fetched("model.safetensors") - sent
    assert rest == BIG.nbytes - 4_000_000
    assert hub.fetched("model.safetensors") == (1 << 16) + BIG.nbytes


def test_ctrl_c_ends_a_load_within_a_second(hub, cache):
    big(hub)
    hub.faults = [None, stalling(1_000_000, 30)]
    process = start(cache)
    until(lambda: partial_size(cache) >= 1_000_000)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - begin < 1 and "KeyboardInterrupt" in errors
    assert partial_size(cache) >= 1_000_000


def test_a_server_that_falls_silent_is_asked_again(hub, cache, monkeypatch):
    big(hub)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    hub.faults = [None, stalling(1_000_000, 5)]
    begin = time.monotonic()
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert time.monotonic() - begin < 5


@pytest.mark.slow
def test_two_processes_fetch_a_tensor_once(hub, cache):
    big(hub)

    def slowly(handler, path, request):
        time.sleep(1)
        CARELESS.send(handler, path, request)

    hub.faults = [None, None, slowly, None]
    processes = [start(cache) for _ in range(2)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0] == results[1][0]
    assert hub.fetched("model.safetensors") <= 2 * (1 << 16) + BIG.nbytes
    assert not kept(cache, ".partial")


def test_where_nothing_can_be_locked_each_has_a_file_of_its_own(hub, cache, monkeypatch):
    big(hub)
    monkeypatch.setattr("embgeom.loading.hub.tensors._lock", lambda _: None)
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert not kept(cache, ".partial")


def test_a_process_that_is_stuck_is_not_waited_for_forever(hub, cache, monkeypatch):
    big(hub)
    hub.faults = [None, stalling(1_000_000, 30)]
    process = start(cache)
    until(lambda: partial_size(cache) >= 1_000_000)
    monkeypatch.setattr("embgeom.loading.hub.tensors._STUCK", 0.5)
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    process.kill()
    process.communicate()

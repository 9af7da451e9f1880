"""A run on a Dask cluster gives the bits of one machine, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest

import embgeom
from embgeom._common.native import build_digest, core
from embgeom.cli.main import main
from embgeom.errors import EmbgeomError, EmbgeomWarning, InputError
from embgeom.runs import dask as runs_dask
from embgeom.runs import run as runs_run
from tests.runs.test_run import TASKS, matrix, plainly, same

distributed = pytest.importorskip("distributed", reason="distributed is not installed")


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster, monkeypatch):
    # Twelve blocks for each stage, which only the first call of a run decides on.
    cut = {stage: list(range(0, 301, 25)) for stage in TASKS}
    monkeypatch.setattr(
        runs_run, "boundaries", lambda parameters, *_, **__: {s: cut[s] for s in parameters.stages}
    )
    monkeypatch.setattr(runs_dask, "_LOOK", 0.1)
    with distributed.Client(cluster, set_as_default=False) as client:
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        yield client


def hold_blocks(folder, stage):
    """Run on a worker: let blocks of a stage begin and not end."""
    plain = runs_dask.compute_block

    def held(actual, *arguments):
        if actual == stage:
            (folder / f"{os.getpid()}.partial").touch()
            time.sleep(60)
        return plain(actual, *arguments)

    runs_dask.compute_block = held


def claim_instructions(name):
    """Run on a worker: let it report another instruction set."""
    runs_dask.core.instruction_set = lambda: name


def worker_at_work(folder):
    """Wait for the first worker that holds a block, and return its process number."""
    while not (begun := list(folder.glob("*.partial"))):
        time.sleep(0.02)
    return int(begun[0].stem)


def kill_at_work(folder):
    os.kill(worker_at_work(folder), signal.SIGKILL)


@pytest.fixture
def killer(tmp_path):
    thread = threading.Thread(target=kill_at_work, args=(tmp_path,), daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("task", TASKS)
def test_a_cluster_gives_the_same_bits(task, client, tmp_path):
    x = matrix()
    same(embgeom.run(task, x, tmp_path / "run", k=20, client=client), plainly(task, x, k=20))


def test_the_command_computes_on_a_cluster(cluster, tmp_path, capsys):
    for name, more in (("plain", []), ("dask", ["--dask", cluster.scheduler_address])):
        call = [
            "dimension",
            "example:small",
            "-o",
            str(tmp_path / name),
            "-k",
            "50",
            "--tokens",
            "30",
            "--quiet",
        ]
        assert main([*call, *more]) == 0
    plain, remote = ((tmp_path / name / "dimension.safetensors").read_bytes() for name in ("plain", "dask"))
    assert plain == remote


@pytest.mark.parametrize("stage", ["knn", "dimension"])
def test_the_blocks_of_a_killed_worker_are_done_again(stage, client, killer, tmp_path):
    x = matrix()
    worker = next(iter(client.nthreads()))
    client.run(partial(hold_blocks, tmp_path, stage), workers=[worker])
    result = embgeom.run("dimension", x, tmp_path / "run", k=20, client=client)
    assert worker not in client.nthreads()
    same(result, plainly("dimension", x, k=20))


def test_without_workers_the_run_ends_and_goes_on_elsewhere(client, tmp_path, monkeypatch):
    def end_all():
        # A worker that is killed would be replaced, perhaps before its loss is noticed.
        worker_at_work(tmp_path)
        client.cluster.scale(0)

    monkeypatch.setattr(runs_dask, "PATIENCE", 0.0)
    x = matrix()
    client.cluster.scale(1)
    while len(client.nthreads()) > 1:
        time.sleep(0.02)
    client.run(partial(hold_blocks, tmp_path, "dimension"))
    threading.Thread(target=end_all, daemon=True).start()
    with pytest.raises(EmbgeomError, match=r"has had no worker .* \(12 of 24 blocks are done\)"):
        embgeom.run("dimension", x, tmp_path / "run", k=20, client=client)
    assert len(list((tmp_path / "run/blocks").glob("knn-*"))) == 12
    same(embgeom.run("dimension", x, tmp_path / "run", k=20), plainly("dimension", x, k=20))


def test_a_cluster_goes_on_where_one_machine_stopped(client, tmp_path):
    x = matrix()

    def interrupt(phase, done, _):
        if phase == "weights" and done >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embgeom.run("lle", x, tmp_path / "run", k=20, progress=interrupt)
    same(embgeom.run("lle", x, tmp_path / "run", k=20, client=client), plainly("lle", x, k=20))


def test_what_a_worker_refuses_is_the_error_of_the_call(client, tmp_path):
    x = matrix()
    x[41, 5] = np.nan
    with pytest.raises(InputError) as plain:
        embgeom.knn(x, 20)
    with pytest.raises(InputError) as remote:
        embgeom.run("knn", x, tmp_path / "run", k=20, client=client)
    assert str(remote.value) == str(plain.value)


def test_mixed_instruction_sets_are_warned_of_and_recorded(client, tmp_path):
    x = matrix()
    worker = next(iter(client.nthreads()))
    client.run(claim_instructions, "other", workers=[worker])
    try:
        with pytest.warns(EmbgeomWarning, match="last bits of weights, residuals and ratios may differ"):
            embgeom.run("lle", x, tmp_path / "run", k=20, client=client)
    finally:
        client.run(claim_instructions, core.instruction_set(), workers=[worker])
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert sorted(manifest["instruction_sets"]["lle"]) == sorted(["other", core.instruction_set()])


def test_a_worker_of_another_version_is_refused():
    with pytest.raises(InputError, match=r"not 0\.0; install one version everywhere"):
        runs_dask._checked(matrix(), "", "0.0", build_digest())
    with pytest.raises(InputError, match=r"another build of embgeom .*; install the same wheel everywhere"):
        runs_dask._checked(matrix(), "", runs_dask.versions().get("embgeom"), "other")


def test_a_damaged_matrix_is_refused():
    version = runs_dask.versions().get("embgeom")
    with pytest.raises(EmbgeomError, match="arrived damaged"):
        runs_dask._checked(matrix(), "", version, build_digest())


def test_a_worker_without_room_for_the_matrix_is_named(client, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_dask, "_SHARE_OF_MEMORY", 0.0)
    with pytest.raises(InputError, match="start workers with a larger --memory-limit"):
        embgeom.run("knn", matrix(), tmp_path / "run", k=20, client=client)


def test_a_block_that_is_always_lost_is_an_error_that_says_how(client, tmp_path, monkeypatch):
    monkeypatch.setattr(runs_dask, "_ARRIVAL", 1e-9)
    monkeypatch.setattr(runs_dask, "_SLOWEST", 1e15)
    told = r"was lost 4 times, on tcp://\S+ \(its result did not arrive within 0 s\), tcp://.*see the logs"
    with pytest.raises(EmbgeomError, match=told):
        embgeom.run("knn", matrix(), tmp_path / "run", k=20, client=client)


def test_what_is_no_scheduler_is_named():
    for address in ("nonsense://x", "localhost", "nowhere.invalid:8786", "127.0.0.1:1"):
        with (
            pytest.raises(InputError, match=f"no Dask scheduler answers at '{address}'"),
            runs_dask.connected(address),
        ):
            pass
    with pytest.raises(InputError, match=r"must be a distributed\.Client"):
        runs_dask.Cluster("tcp://host:8786", matrix(), "")

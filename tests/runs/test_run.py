"""A run gives the bits of the plain functions, however it is cut and wherever it stopped."""

from __future__ import annotations

import errno
import json
import random
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embgeom
from embgeom._common.record import plain
from embgeom.runs import cache, compute, folder, plan
from embgeom.runs import run as run_module
from tests.helpers.ended import END_AT_A_STEP

TASKS = ("knn", "lle", "dimension")
K = 20


def matrix(n=300, d=12, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    x[7] = x[3]
    x[11] = 0.0
    return x


def plainly(task, x, rows=None, metric="cosine", k=K, center=False):
    search = {"metric": metric, "rows": rows, "center": center}
    if task == "dimension":
        return embgeom.intrinsic_dimension(x, k=k, **search)
    neighbors = embgeom.knn(x, k, **search)
    return neighbors if task == "knn" else embgeom.lle(x, neighbors)


def same(one, other):
    a, b = {}, {}
    assert type(one) is type(other)
    assert plain(one, a) == plain(other, b) and a.keys() == b.keys()
    for name, array in a.items():
        assert array.dtype == b[name].dtype
        assert array.tobytes() == b[name].tobytes(), name
    return True


def cut_at(monkeypatch, *cuts):
    """Cut all stages of new runs at these tokens."""

    def boundaries(parameters, shape, count, **_):
        return {stage: [0, *cuts, count] for stage in parameters.stages}

    monkeypatch.setattr(run_module, "boundaries", boundaries)


@pytest.fixture
def computed(monkeypatch):
    """The stage and the size of each block that is computed."""
    seen, before = [], compute.compute_block

    def watched(stage, x, neighbors, rows, *rest):
        seen.append((stage, len(x) if rows is None else len(rows)))
        return before(stage, x, neighbors, rows, *rest)

    monkeypatch.setattr(compute, "compute_block", watched)
    return seen


def stop_after(monkeypatch, count, error):
    """Let a run fail when it writes its next block after `count` of them."""
    before, left = folder.save_tensors, [count]

    def failing(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise error
        before(*arguments)

    monkeypatch.setattr(folder, "save_tensors", failing)
    return lambda: monkeypatch.setattr(folder, "save_tensors", before)


@pytest.mark.parametrize("rows", [None, [5, 3, 120, 11]], ids=["all", "some"])
@pytest.mark.parametrize("task", TASKS)
def test_a_run_gives_the_plain_result(task, rows, tmp_path):
    x, place = matrix(150), tmp_path / "new" / "run"
    result = embgeom.run(task, x, place, k=K, rows=rows)
    same(result, plainly(task, x, rows))
    same(type(result).load(place / f"{task}.safetensors"), result)
    assert sorted(path.name for path in place.iterdir()) == sorted(
        ["lock", "manifest.json", f"{task}.safetensors"]
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    task=st.sampled_from(TASKS),
    metric=st.sampled_from(("cosine", "inner_product", "euclidean")),
    cuts=st.sets(st.integers(1, 79), max_size=6).map(sorted),
    search_cuts=st.sets(st.integers(1, 79), max_size=6).map(sorted),
    some=st.booleans(),
    center=st.booleans(),
    threads=st.sampled_from((1, 3)),
)
def test_boundaries_of_blocks_change_no_bit(
    monkeypatch, tmp_path_factory, task, metric, cuts, search_cuts, some, center, threads
):
    x = matrix(80 + 40 * some)
    rows = np.random.default_rng(1).permutation(len(x))[:80] if some else None

    def boundaries(parameters, shape, count, **_):
        return {stage: [0, *(search_cuts if stage == "knn" else cuts), count] for stage in parameters.stages}

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "boundaries", boundaries)
        place = tmp_path_factory.mktemp("run")
        options = {"metric": metric, "center": center}
        result = embgeom.run(task, x, place, k=K, rows=rows, threads=threads, **options)
    same(result, plainly(task, x, rows, **options))


def test_tokens_and_model_are_kept(tmp_path):
    model = embgeom.load("example:small")
    result = embgeom.run("dimension", model, tmp_path, k=30, rows=[5, 2])
    assert result.tokens == model.tokens and result.columns()["token"] == [model.tokens[5], model.tokens[2]]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["model"]["name"] == "example:small" and manifest["rows"] == [5, 2]
    assert manifest["versions"]["numpy"] == np.__version__
    other = embgeom.load("example:large")
    with pytest.raises(embgeom.OutputError, match=r"its matrix shape is \[4096, 128\], not \[4096, 192\]"):
        embgeom.run("dimension", other, tmp_path, k=30, rows=[5, 2])
    with pytest.raises(embgeom.OutputError, match="which is read"):
        embgeom.run("dimension", model, model.provenance.file.parent, k=30)


@pytest.mark.parametrize("stop", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("task", ["lle", "dimension"])
def test_only_missing_blocks_are_computed(task, stop, tmp_path, monkeypatch, computed, capsys):
    x = matrix(150)
    cut_at(monkeypatch, 50, 70)
    mend = stop_after(monkeypatch, stop, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt, match=rf"{stop} of 6 blocks are in .*, and the same call goes on"):
        embgeom.run(task, x, tmp_path, k=K)
    mend()
    # Blocks of a stage that has begun stay as they were cut, the others are cut anew.
    cut_at(monkeypatch, 10)
    computed.clear()
    result = embgeom.run(task, x, tmp_path, k=K, progress=True)
    begun = [50, 20, 80]
    searched = [("knn", size) for size in (begun[stop:] if stop else [10, 140])]
    measured = [(task, size) for size in (begun[stop - 3 :] if stop > 3 else [10, 140])]
    assert computed == searched + measured
    total = 6 if stop > 3 else 5
    assert (f"resumed: {stop} of {total} blocks were there\n" in capsys.readouterr().err) == (stop > 0)
    same(result, plainly(task, x))
    computed.clear()
    same(embgeom.run(task, x, tmp_path, k=K), result)
    assert computed == []


def test_a_disk_that_is_full_loses_no_block(tmp_path, monkeypatch, computed):
    cut_at(monkeypatch, 50, 100)
    mend = stop_after(monkeypatch, 2, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        embgeom.OutputError, match=r"cannot write .*knn-00002.safetensors: No space left on device"
    ):
        embgeom.run("knn", matrix(150), tmp_path, k=K)
    assert sorted(path.name for path in (tmp_path / "blocks").iterdir()) == [
        "knn-00000.safetensors",
        "knn-00001.safetensors",
    ]
    mend()
    computed.clear()
    same(embgeom.run("knn", matrix(150), tmp_path, k=K), plainly("knn", matrix(150)))
    assert computed == [("knn", 50)]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "text": lambda path: path.write_text("{}"),
    "other block": lambda path: path.write_bytes((path.parent / "knn-00000.safetensors").read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_block_is_computed_again(damage, tmp_path, monkeypatch, computed):
    cut_at(monkeypatch, 50, 100)
    mend = stop_after(monkeypatch, 5, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        embgeom.run("dimension", matrix(150), tmp_path, k=K)
    mend()
    for name in ("knn-00001", "dimension-00001"):
        DAMAGES[damage](tmp_path / "blocks" / f"{name}.safetensors")
    computed.clear()
    is_there = damage != "gone"
    with (
        pytest.warns(embgeom.EmbgeomWarning, match="again: (knn|dimension)-00001")
        if is_there
        else monkeypatch.context()
    ):
        result = embgeom.run("dimension", matrix(150), tmp_path, k=K)
    same(result, plainly("dimension", matrix(150)))
    assert computed == [("knn", 50), ("dimension", 50), ("dimension", 50)]


def test_a_result_has_the_tokens_of_the_call(tmp_path):
    x, tokens = matrix(150), [f"t{row}" for row in range(150)]
    for task in TASKS:
        assert embgeom.run(task, x, tmp_path / task, k=K).tokens is None
        named = embgeom.load(x, vocabulary=tokens)
        assert embgeom.run(task, named, tmp_path / task, k=K).tokens == named.tokens
        assert embgeom.run(task, x, tmp_path / task, k=K).tokens is None


def test_defaults_are_those_of_the_plain_functions(tmp_path):
    x = np.random.default_rng(0).standard_normal((1300, 8)).astype(np.float32)
    rows = [3, 4]
    dimension = embgeom.run("dimension", x, tmp_path / "dimension", rows=rows)
    same(dimension, embgeom.intrinsic_dimension(x, rows=rows))
    same(embgeom.run("knn", x, tmp_path / "knn", rows=rows), embgeom.knn(x, rows=rows))
    with pytest.raises(embgeom.InputError) as told:
        embgeom.knn(x[:7])
    with pytest.raises(embgeom.InputError, match=f"^{re.escape(str(told.value))}$"):
        embgeom.run("knn", x[:7], tmp_path / "few")
    with pytest.warns(embgeom.EmbgeomWarning, match="over k = 3 neighbors"):
        assert embgeom.run("dimension", x[:7], tmp_path / "all").k == 3
    for task, option, owner in (("knn", "reg", "lle"), ("lle", "variance", "dimension")):
        with pytest.raises(embgeom.InputError, match=f"{option} = 0.5 goes with the task '{owner}', not"):
            embgeom.run(task, x, tmp_path / "few", **{option: 0.5})
    assert not (tmp_path / "few").exists()


@pytest.mark.parametrize("damage", ["bit", "truncated", "gone"])
@pytest.mark.parametrize("name", ["knn-00001", "lle-00001"])
def test_a_block_that_is_damaged_once_it_was_written_is_computed_again(
    name, damage, tmp_path, monkeypatch, computed
):
    cut_at(monkeypatch, 50, 100)
    before, damaged = folder.RunFolder.assembled, []

    def assembled(kept, stage):
        if not damaged:
            DAMAGES[damage](tmp_path / "blocks" / f"{name}.safetensors")
            damaged.append(name)
        return before(kept, stage)

    monkeypatch.setattr(folder.RunFolder, "assembled", assembled)
    with pytest.warns(embgeom.EmbgeomWarning, match=name) if damage != "gone" else monkeypatch.context():
        result = embgeom.run("lle", matrix(150), tmp_path, k=K)
    same(result, plainly("lle", matrix(150)))
    assert computed[6:] == [(name[:3], 50)]


def test_a_disk_that_damages_every_block_is_reported(tmp_path, monkeypatch):
    before = folder.save_tensors

    def damaging(arrays, path, metadata):
        before(arrays, path, metadata)
        flip(path)

    monkeypatch.setattr(folder, "save_tensors", damaging)
    with (
        pytest.warns(embgeom.EmbgeomWarning, match="damaged, so computed again: knn-00000"),
        pytest.raises(embgeom.OutputError, match="are damaged again and again"),
    ):
        embgeom.run("knn", matrix(150), tmp_path, k=K)


@pytest.mark.parametrize("ending", [None, KeyboardInterrupt])
def test_a_matrix_that_changes_during_a_run_is_refused(ending, tmp_path):
    x = matrix(150)

    def change(*_):
        x[3] += 1.0
        if ending:
            raise ending

    with (
        embgeom.use_cache(tmp_path / "cache"),
        pytest.raises(embgeom.InputError, match="x has changed during the run"),
    ):
        embgeom.run("knn", x, tmp_path / "run", k=K, progress=change)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run" / "blocks").exists()
    same(embgeom.run("knn", matrix(150), tmp_path / "run", k=K), plainly("knn", matrix(150)))


def test_neighbors_that_are_damaged_under_way_are_an_error(tmp_path, monkeypatch):
    def damage(phase, *_):
        if phase == "weights":
            (tmp_path / "blocks" / "knn-00001.safetensors").write_bytes(b"")

    cut_at(monkeypatch, 50, 100)
    with pytest.raises(embgeom.LoadError, match=r"knn-00001.* was damaged .* repeat the call"):
        embgeom.run("lle", matrix(150), tmp_path, k=K, progress=damage)
    with pytest.warns(embgeom.EmbgeomWarning, match="knn-00001"):
        result = embgeom.run("lle", matrix(150), tmp_path, k=K)
    same(result, plainly("lle", matrix(150)))


def test_what_fails_in_the_call_is_not_reported_of_the_folder(tmp_path):
    def closed(*_):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        embgeom.run("knn", matrix(150), tmp_path, k=K, progress=closed)


def test_the_matrix_is_hashed_at_the_start_and_at_the_end(tmp_path, monkeypatch):
    sizes = []
    before = run_module.array_digest

    def counted(array):
        sizes.append(array.shape)
        return before(array)

    for module in (run_module, cache):
        monkeypatch.setattr(module, "array_digest", counted)
    x = matrix(150).astype(np.float64)
    with embgeom.use_cache(tmp_path / "cache"):
        hashed = embgeom.run("lle", x, tmp_path / "run", k=K)
        assert sizes.count((150, 12)) == 2
        same(embgeom.run("lle", x, tmp_path / "again", k=K), hashed)


PROGRAM = (
    """
import os, random, signal, sys
from pathlib import Path

import embgeom
import numpy as np
from embgeom.runs import run

signal.signal(signal.SIGINT, signal.default_int_handler)
task, folder, number, left = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
"""
    + END_AT_A_STEP
    + """
run.boundaries = lambda parameters, *_, **__: {stage: [0, 40, 90, 150] for stage in parameters.stages}
embgeom.run(task, np.load(folder + ".npy"), folder, k=20, progress=step)
"""
)


@pytest.mark.parametrize("task", ["lle", "dimension"])
def test_a_run_that_is_killed_again_and_again(task, tmp_path):
    np.save(tmp_path / "run.npy", matrix(150))
    draws, ends = random.Random(task), []
    while not ends or ends[-1] != 0:
        # A block takes about 20 of these steps; a process that has no time for one is not the last.
        number = draws.choice((signal.SIGKILL, signal.SIGINT))
        arguments = [task, str(tmp_path / "run"), str(int(number)), str(draws.randrange(1, 120))]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments], check=False, capture_output=True, timeout=120
        )
        ends.append(done.returncode)
        assert done.returncode in (0, -signal.SIGKILL, -signal.SIGINT), done.stderr
        assert len(ends) < 60
    assert {-signal.SIGKILL, -signal.SIGINT} <= set(ends)
    result = embgeom.run(task, matrix(150), tmp_path / "run", k=K)
    same(result, plainly(task, matrix(150)))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        ["lock", "manifest.json", f"{task}.safetensors"]
    )


def test_progress_counts_tokens_and_never_runs_back(tmp_path, monkeypatch):
    cut_at(monkeypatch, 50, 100)
    seen = {}
    embgeom.run(
        "lle", matrix(150), tmp_path, k=K, progress=lambda *now: seen.setdefault(now[0], []).append(now)
    )
    assert list(seen) == ["neighbors", "weights"]
    for reports in seen.values():
        counts = [done for _, done, _ in reports]
        assert counts == sorted(counts) and {50, 100, 150} <= set(counts)
        assert {total for *_, total in reports} == {150}


def test_blocks_are_cut_by_cost():
    def cuts(task, n, d, k, threads=2, count=None, **options):
        parameters = compute.Parameters(task, k, "cosine", 1e-3, 0.95)
        found = plan.boundaries(parameters, (n, d), count or n, threads=threads, **options)
        for stage in parameters.stages:
            assert found[stage][0] == 0 and found[stage][-1] == (count or n)
            assert found[stage] == sorted(set(found[stage]))
        return found

    # One search of all rows where that takes less than a minute, which visits each pair once.
    wide = cuts("dimension", 50_257, 768, 1200)
    assert len(wide["knn"]) == 2 and 10 <= len(wide["dimension"]) <= 60
    larger = cuts("dimension", 262_144, 5376, 1200)
    assert len(larger["knn"]) > 30
    assert max(np.diff(larger["knn"])) * 1200 * 8 <= 1 << 29
    # Reading the matrix takes at most a hundredth of a block's time.
    seconds = max(np.diff(larger["dimension"])) * (1200 * 1200 * 5376 / 2 + 2 * 1200**3 / 3) / 30e9
    assert pytest.approx(seconds, rel=0.01) == 100 * 4 * 262_144 * 5376 / 5e9
    assert len(cuts("knn", 100, 10, 5)["knn"]) == 2
    assert len(cuts("dimension", 50_257, 768, 1200, count=3)["dimension"]) == 2
    assert len(cuts("dimension", 50_257, 768, 1200, count=100, workers=8)["dimension"]) == 33

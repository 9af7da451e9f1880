"""What a run accepts as its folder, what it refuses, and what it leaves there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

import embgeom
from embgeom.runs import folder
from embgeom.runs import run as run_module
from tests.runs.test_run import DAMAGES, K, computed, matrix, plainly, same, stop_after

__all__ = ["computed"]


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("task", "changes", "told"),
    [
        ("dimension", {"k": 21}, "its k is 20, not 21"),
        ("dimension", {"variance": 0.9}, "its variance is 0.95, not 0.9"),
        ("dimension", {"metric": "euclidean"}, "its metric is cosine, not euclidean"),
        ("dimension", {"rows": [1, 2]}, "it is about all rows, not 2 rows"),
        ("lle", {}, "its task is dimension, not lle"),
    ],
)
def test_another_run_is_refused(task, changes, told, finished, tmp_path, monkeypatch):
    x = matrix(150)
    if not finished:
        stop_after(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt) if not finished else monkeypatch.context():
        embgeom.run("dimension", x, tmp_path, k=K)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(embgeom.OutputError, match=f"holds another run: {told}; name another folder, or give"):
        embgeom.run(task, x, tmp_path, **{"k": K, **changes})
    x[149, 11] += 1.0
    with pytest.raises(embgeom.OutputError, match="its matrix has different values; name another folder"):
        embgeom.run("dimension", x, tmp_path, k=K)
    assert sorted(tmp_path.rglob("*")) == before


OTHERS = {"versions": ({"embgeom": "0.0.7"}, r"0\.1\.0"), "build_digest": ("0", r"another build of 0\.1\.0")}


@pytest.mark.parametrize("what", OTHERS)
def test_only_finished_runs_are_read_by_another_build(what, tmp_path, monkeypatch, computed):
    x = matrix(150)
    mend = stop_after(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        embgeom.run("lle", x, tmp_path / "begun", k=K)
    mend()
    done = embgeom.run("lle", x, tmp_path / "done", k=K)
    other, told = OTHERS[what]
    monkeypatch.setattr(run_module, what, lambda: other)
    with pytest.raises(
        embgeom.OutputError, match=rf"begun with another embgeom \({told}\).* name a new folder, or"
    ):
        embgeom.run("lle", x, tmp_path / "begun", k=K)
    computed.clear()
    same(embgeom.run("lle", x, tmp_path / "done", k=K), done)
    # A block that is copied from a run of the other build is not taken either.
    with pytest.raises(KeyboardInterrupt):
        stop_after(monkeypatch, 0, KeyboardInterrupt())
        embgeom.run("lle", x, tmp_path / "new", k=K)
    name = "blocks/knn-00000.safetensors"
    (tmp_path / "new" / name).write_bytes((tmp_path / "begun" / name).read_bytes())
    assert computed == [("knn", 150)]
    with pytest.raises(KeyboardInterrupt), pytest.warns(embgeom.EmbgeomWarning, match="again: knn-00000"):
        embgeom.run("lle", x, tmp_path / "new", k=K)
    assert computed == [("knn", 150)] * 2


@pytest.mark.parametrize("damage", ["bit", "truncated", "empty", "another"])
def test_a_damaged_result_is_refused(damage, tmp_path):
    embgeom.run("knn", matrix(150), tmp_path / "run", k=K)
    result = tmp_path / "run" / "knn.safetensors"
    if damage == "another":
        embgeom.run("knn", matrix(150, seed=1), tmp_path / "other", k=K)
        result.write_bytes((tmp_path / "other" / "knn.safetensors").read_bytes())
    else:
        DAMAGES[damage](result)
    with pytest.raises(embgeom.LoadError, match=rf"damaged.* delete {tmp_path / 'run'} and repeat the call"):
        embgeom.run("knn", matrix(150), tmp_path / "run", k=K)
    result.unlink()
    same(embgeom.run("knn", matrix(150), tmp_path / "run", k=K), plainly("knn", matrix(150)))


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": {"knn": [0, 100]}},
        {"blocks": {"knn": [100, 300]}},
        {"blocks": None},
        {"instruction_sets": None},
        {"parameters": []},
        {"result": "0"},
    ],
    ids=str,
)
def test_a_manifest_that_was_changed_is_refused(change, tmp_path, monkeypatch):
    mend = stop_after(monkeypatch, 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        embgeom.run("knn", matrix(150), tmp_path, k=K)
    mend()
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(embgeom.OutputError, match=r"manifest.json is damaged .*; delete .*, or name another"):
        embgeom.run("knn", matrix(150), tmp_path, k=K)


def test_a_result_is_read_where_nothing_can_be_written(tmp_path, monkeypatch, capsys):
    first = embgeom.run("knn", matrix(150), tmp_path, k=K)

    def refuse(*_, **__):
        raise PermissionError(errno.EROFS, "Read-only file system")

    (tmp_path / "lock").unlink()
    for owner, name in ((folder.fcntl, "flock"), (folder.Path, "mkdir"), (folder, "write_file")):
        monkeypatch.setattr(owner, name, refuse)
    same(embgeom.run("knn", matrix(150), tmp_path, k=K, progress=True), first)
    assert capsys.readouterr().err == f"embgeom: read from {tmp_path}\n"
    assert not (tmp_path / "lock").exists()


def test_other_folders_are_refused(tmp_path):
    for name in ("blocks", "knn.safetensors"):
        (tmp_path / name / name).mkdir(parents=True)
        with pytest.raises(embgeom.OutputError, match=f"holds '{name}' and no run that could be continued"):
            embgeom.run("knn", matrix(150), tmp_path / name)
        assert [path.name for path in (tmp_path / name).rglob("*")] == [name]
        (tmp_path / name / name).rmdir()
        (tmp_path / name).rmdir()
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(embgeom.OutputError, match=r"holds 'thesis.tex' and no run that could be continued"):
        embgeom.run("knn", matrix(150), tmp_path)
    with pytest.raises(embgeom.OutputError, match=r"thesis.tex is a file; name a folder for the run"):
        embgeom.run("knn", matrix(150), tmp_path / "thesis.tex")
    for text in ("", "[]", "{}", '{"format": 1}', "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(embgeom.OutputError, match=r"manifest.json is not the manifest of a run"):
            embgeom.run("knn", matrix(150), tmp_path)
    with pytest.raises(embgeom.InputError, match="task = 'pca' is unknown: use one of knn, lle, dimension"):
        embgeom.run("pca", matrix(150), tmp_path)
    for name in (None, b"run", 3):
        with pytest.raises(embgeom.InputError, match="is not a path; name a folder for the run"):
            embgeom.run("knn", matrix(150), name)
    with pytest.raises(embgeom.InputError, match="k must be a whole number, not True"):
        embgeom.run("knn", matrix(150), tmp_path, k=True)


def test_what_a_run_does_not_write_stays(tmp_path, monkeypatch):
    mend = stop_after(monkeypatch, 1, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        embgeom.run("lle", matrix(150), tmp_path, k=K)
    mend()
    for name in ("notes.txt", "blocks/notes.txt"):
        (tmp_path / name).write_text("mine")
    embgeom.run("lle", matrix(150), tmp_path, k=K)
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ["blocks/notes.txt", "lle.safetensors", "lock", "manifest.json", "notes.txt"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_holds_a_folder_whose_file_system_has_no_locks(number, tmp_path, monkeypatch):
    def flock(file, _):
        if "run" in str(getattr(file, "name", "")):
            raise OSError(number, "No locks")

    def other(*_):
        with pytest.raises(
            embgeom.OutputError,
            match=rf"in use by process {os.getpid()} on .*: if that process has ended, delete .*owner and",
        ):
            embgeom.run("knn", matrix(150), tmp_path / "run", k=K)
        tried.append(True)

    tried = []
    monkeypatch.setattr(folder.fcntl, "flock", flock)
    same(embgeom.run("knn", matrix(150), tmp_path / "run", k=K, progress=other), plainly("knn", matrix(150)))
    assert tried and not (tmp_path / "run" / "owner").exists()


def test_two_processes_in_a_folder_are_refused(tmp_path):
    program = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(embgeom.OutputError, match=r"is in use by another process; wait until that ends"):
            embgeom.run("knn", matrix(150), tmp_path)
        process.kill()
    # The lock of a dead process is not in the way.
    embgeom.run("knn", matrix(150), tmp_path)

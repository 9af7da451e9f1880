"""Places for what is not complete: they do not collide, and those of dead runs are swept by the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import embgeom
from embgeom import SteeringVector
from embgeom._common import temporary, writing


def start(folder, body):
    """Run a piece of Python that prints a line and stays; return the process once it has."""
    program = "import os, sys, time\nfrom pathlib import Path\nfrom embgeom._common import writing\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + textwrap.dedent(body)], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process, number=signal.SIGKILL):
    process.send_signal(number)
    process.wait(timeout=60)
    process.stdout.close()


STAYS_IN_A_FILE = """
    def write(path):
        path.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
    writing.write_file("out.txt", write)
"""
STAYS_IN_A_FOLDER = """
    with writing.new_folder("out", overwrite=True) as partial:
        (partial / "tokens.csv").write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""
# Where a system cannot exchange folders in one step.
STAYS_BETWEEN_TWO_NAMES = """
    writing._exchange = lambda *_: False
    replace, calls = Path.replace, []
    def stay(self, target):
        calls.append(self)
        if len(calls) == 2:
            print("ready", flush=True)
            time.sleep(60)
        return replace(self, target)
    Path.replace = stay
    with writing.new_folder("out", overwrite=True) as partial:
        (partial / "tokens.csv").write_text("new")
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("body", [STAYS_IN_A_FILE, STAYS_IN_A_FOLDER], ids=["file", "folder"])
def test_what_a_killed_run_leaves_is_swept_by_the_next(tmp_path, body):
    (tmp_path / "out.txt").write_text("old")
    process = start(tmp_path, body)
    # A run that lives keeps what is its own.
    writing.write_file(tmp_path / "other.txt", lambda path: path.write_text("new"))
    assert len(names(tmp_path)) == 3
    end(process)
    assert (tmp_path / "out.txt").read_text() == "old" and len(names(tmp_path)) == 3
    writing.write_file(tmp_path / "other.txt", lambda path: path.write_text("newer"))
    assert names(tmp_path) == ["other.txt", "out.txt"]


def test_a_kill_amid_an_exchange_loses_nothing(tmp_path):
    with writing.new_folder(tmp_path / "out") as partial:
        (partial / "tokens.csv").write_text("old")
    end(start(tmp_path, STAYS_BETWEEN_TWO_NAMES))
    assert "out" not in names(tmp_path)
    # The next run finds the old results where they were, before it starts its work.
    with pytest.raises(embgeom.OutputError, match="holds something already"):
        writing.check_writable(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "tokens.csv").read_text() == "old"


def test_only_places_of_dead_runs_are_swept(tmp_path):
    (tmp_path / "thesis").mkdir()
    like_ours = [".embgeom-x.partial-1234567", ".other.partial-abcdefgh", "embgeom-x.partial-abcdefgh"]
    for name in like_ours:
        (tmp_path / name).mkdir()
    (tmp_path / ".embgeom-link.partial-abcdefgh").symlink_to(tmp_path / "thesis")
    (tmp_path / ".embgeom-file.partial-abcdefgh").touch()
    before = names(tmp_path)
    with temporary.place_beside(tmp_path / "mine") as place:
        temporary.sweep(tmp_path)
        assert len(names(tmp_path)) == len(before) + 1 and place.new.parent.is_dir()
    (tmp_path / ".embgeom-dead.partial-abcdefgh").mkdir()  # killed before it was locked
    temporary.sweep(tmp_path)
    assert names(tmp_path) == before


def test_threads_write_one_path(tmp_path):
    vectors = [SteeringVector({1: np.full(500, i, dtype=np.float32)}) for i in (1, 2)]
    errors = []

    def save(vector):
        try:
            for _ in range(40):
                vector.save(tmp_path / "one.safetensors")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=[vector]) for vector in vectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and names(tmp_path) == ["one.safetensors"]
    assert set(SteeringVector.load(tmp_path / "one.safetensors").directions[1]) in ({1.0}, {2.0})


def test_processes_of_one_number_write_one_path(tmp_path):
    # Containers that share a folder each have a process 1.
    body = """
        os.getpid = lambda: 1
        print("ready", flush=True)
        for i in range(40):
            writing.write_file("one.txt", lambda path: path.write_text(str(i) * 5000))
    """
    processes = [start(tmp_path, body) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    for process in processes:
        process.stdout.close()
    assert names(tmp_path) == ["one.txt"] and (tmp_path / "one.txt").read_text() == "39" * 5000


@pytest.mark.parametrize("letter", ["n", "é", "\udcff"])
def test_names_as_long_as_a_name_may_be(tmp_path, letter):
    size = 250 - len(".safetensors")
    name = letter * (size // len(os.fsencode(letter))) + ".safetensors"
    vector = SteeringVector({1: np.ones(3)})
    vector.save(tmp_path / name)
    vector.save(tmp_path / name)
    assert names(tmp_path) == [name]
    with writing.new_folder(tmp_path / name[:-12]) as partial:
        (partial / "tokens.csv").touch()
    assert len(names(tmp_path)) == 2


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(temporary.fcntl, "flock", refuse)
    with writing.new_folder(tmp_path / "out") as partial:
        (partial / "tokens.csv").write_text("all")
        # Nobody can know whether this run is dead, so it is left alone.
        temporary.sweep(tmp_path)
    assert (tmp_path / "out" / "tokens.csv").read_text() == "all" and names(tmp_path) == ["out"]


def test_files_get_the_usual_permissions_whatever_other_threads_do(tmp_path):
    mask = os.umask(0o027)
    try:
        writing.write_file(tmp_path / "a.txt", lambda path: os.close(os.open(path, os.O_CREAT, 0o600)))
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640

"""The command `study` as a process: killed at any moment it goes on, and two of them do not mix."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from embgeom.runs.folder import locked
from tests.helpers.cli import status
from tests.helpers.ended import END_AT_A_STEP
from tests.helpers.loading import write_folder
from tests.helpers.real_data import FOREIGN, find
from tests.studies.test_study import files

pytest.importorskip("scipy", reason="scipy is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
OPTIONS = ("-k", "4", "--ks", "3,8", "--dimension-k", "12", "--relabelings", "20")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    shared = np.random.default_rng(0).standard_normal((60, 5))
    found = []
    for number, columns in enumerate((6, 9, 7, 8)):
        rng = np.random.default_rng(number + 1)
        x = shared @ rng.standard_normal((5, columns)) + 0.3 * rng.standard_normal((60, columns))
        tensors = {"model.embed_tokens.weight": x.astype(np.float32)}
        found.append(str(write_folder(home / f"model{number}", tensors)))
    return found


def test_the_command(models, tmp_path, capsys):
    folder = tmp_path / "out"
    assert status("study", *models[:3], "-o", folder, *OPTIONS, "--quiet") == 0
    out, err = capsys.readouterr()
    assert "neighbor overlap" in out and "report.html" in out and err == ""
    assert status("study", *models[:3], "-o", folder, *OPTIONS) == 0
    err = capsys.readouterr().err
    assert (
        "embgeom: 0 parts computed; " in err and " reads from the folder" in err and "files unchanged" in err
    )
    assert status("study", models[0], "-o", folder) == 2
    assert "a study compares at least two models" in capsys.readouterr().err
    assert status("study", *models[:2], "-o", models[0]) == 2
    assert "which is read" in capsys.readouterr().err


def test_a_folder_in_use_is_refused(models, tmp_path, capsys):
    folder = tmp_path / "out"
    (folder / "parts").mkdir(parents=True)
    with locked(folder):
        assert status("study", *models[:2], "-o", folder, *OPTIONS, "--quiet") == 2
    assert "is in use by another process" in capsys.readouterr().err


PROGRAM = (
    """
import os, signal, sys
from pathlib import Path

import embgeom
from embgeom.studies.study import study

signal.signal(signal.SIGINT, signal.default_int_handler)
folder, number, left, *models = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
"""
    + END_AT_A_STEP
    + """
study(models, folder=folder, k=4, ks=(3, 8), dimension_k=12, relabelings=20, progress=step)
"""
)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_in_the_same_files(models, tmp_path):
    draws, ends, folder = random.Random(0), [], tmp_path / "out"

    def run(folder, number, step):
        command = [sys.executable, "-c", PROGRAM, str(folder), str(int(number)), str(step), *models[:3]]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, -signal.SIGKILL, -signal.SIGINT), done.stderr
        return done.returncode

    assert run(tmp_path / "alone", signal.SIGKILL, 0) == 0
    while not ends or ends[-1] != 0:
        # Later ones come later, so that parts of any number of steps are done in the end.
        last = int(400 * 1.25 ** len(ends))
        ends.append(run(folder, draws.choice((signal.SIGKILL, signal.SIGINT)), draws.randrange(20, last)))
        assert len(ends) < 60
    assert {-signal.SIGKILL, -signal.SIGINT} <= set(ends)
    assert files(folder) == files(tmp_path / "alone")


@pytest.mark.slow
@pytest.mark.model
def test_four_real_models_and_a_fifth(tmp_path):
    folder, alone = tmp_path / "out", tmp_path / "alone"
    models = ["example:small", "example:large", *(str(find(f"models/{name}")) for name in FOREIGN)]

    def parts():
        return {entry.name: entry.stat().st_ino for entry in os.scandir(folder / "parts")}

    assert status("study", *models, "-o", folder, "--quiet") == 0
    before, kept = parts(), files(folder)
    begin = time.monotonic()
    assert status("study", *models, "-o", folder, "--quiet") == 0
    assert time.monotonic() - begin < 20.0
    assert files(folder) == kept and parts() == before
    fifth = [*models, "example:small"]
    assert status("study", *fifth, "-o", folder, "--quiet") == 0
    after = parts()
    del before["written.json"]
    assert before.items() <= after.items()
    assert status("study", *fifth, "-o", alone, "--quiet") == 0
    assert files(folder) == files(alone)

"""The commands knn, lle and dimension."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys

import numpy as np
import pytest

import embgeom
from embgeom.cli import runs
from tests.helpers.cli import status

MODEL = "example:small"


def table(folder):
    with (folder / "tokens.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def model():
    return embgeom.load(MODEL)


def test_dimension_of_a_sample(model, tmp_path, capsys):
    command = ("dimension", MODEL, "-o", tmp_path / "run", "--tokens", 40, "-k", 60, "--seed", 3, "--quiet")
    assert status(*command) == 0
    out, err = capsys.readouterr()
    result = embgeom.IntrinsicDimension.load(tmp_path / "run" / "dimension.safetensors")
    rows = table(tmp_path / "run")
    assert [int(row["row"]) for row in rows] == sorted(np.unique(result.rows)) and len(rows) == 40
    assert [row["token"] for row in rows] == [model.tokens[row] for row in result.rows]
    assert [row["text"] for row in rows] == [model.text(row) for row in result.rows]
    assert [int(row["n_components"]) for row in rows] == result.n_components.tolist()
    plain = embgeom.intrinsic_dimension(model, k=60, rows=result.rows)
    assert plain.participation_ratio.tobytes() == result.participation_ratio.tobytes()
    assert result.summary() in out and "tokens of the lowest dimension" in out and err == ""
    lowest = result.rows[np.argmin(result.n_components)]
    assert repr(model.text(lowest)) in out.partition("tokens of the highest dimension")[0]
    # The result is there, so nothing is computed again; another seed draws other tokens.
    assert status(*command) == 0 and capsys.readouterr().out == out
    assert status(*command, "--seed", 4) == 2
    assert "it is about 40 rows, but not these; name another folder" in capsys.readouterr().err


def test_a_command_shows_a_run_where_nothing_can_be_written(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise embgeom.OutputError("Read-only file system")

    command = ("knn", MODEL, "-o", tmp_path / "run", "--tokens", 3, "-k", 4, "--quiet")
    assert status(*command) == 0
    out = capsys.readouterr().out
    monkeypatch.setattr(runs, "write_file", refuse)
    assert status(*command) == 0 and capsys.readouterr().out == out
    (tmp_path / "run" / "tokens.csv").unlink()
    assert status(*command) == 2


def test_the_default_k_is_that_of_inspect(model, tmp_path, capsys):
    assert status("dimension", MODEL, "-o", tmp_path / "run", "--tokens", 2, "--quiet") == 0
    found = embgeom.IntrinsicDimension.load(tmp_path / "run" / "dimension.safetensors")
    assert found.k == embgeom.inspect(model, dimension_sample=1).dimension.k == 200
    assert "k=200" in capsys.readouterr().out


def test_a_centered_run_is_another_run(model, tmp_path, capsys):
    command = ("knn", MODEL, "-o", tmp_path / "run", "--tokens", 20, "-k", 4, "--quiet")
    assert status(*command, "--center") == 0
    found = embgeom.Neighbors.load(tmp_path / "run" / "knn.safetensors")
    plain = embgeom.knn(model, 4, rows=found.rows, center=True)
    assert found.center and found.similarities.tobytes() == plain.similarities.tobytes()
    assert status(*command) == 2
    assert "its center is True, not False; name another folder" in capsys.readouterr().err


def test_knn_and_lle_of_all_tokens(model, tmp_path, capsys):
    for task in ("knn", "lle"):
        assert status(task, MODEL, "-o", tmp_path / task, "-k", 5, "--quiet") == 0
    neighbors = embgeom.Neighbors.load(tmp_path / "knn" / "knn.safetensors")
    assert neighbors.rows is None and (neighbors.indices == embgeom.knn(model, 5).indices).all()
    rows = table(tmp_path / "knn")
    assert len(rows) == len(model) and rows[9]["nearest_token"] == model.tokens[neighbors.indices[9, 0]]
    weights = embgeom.LLE.load(tmp_path / "lle" / "lle.safetensors")
    assert weights.weights.tobytes() == embgeom.lle(model, neighbors).weights.tobytes()
    assert {row["status"] for row in table(tmp_path / "lle")} <= {state.name for state in embgeom.LLEStatus}
    out = capsys.readouterr().out
    assert "tokens of the lowest similarity to the nearest" in out and "tokens of the highest residual" in out


def test_tokens_of_a_file(model, tmp_path, capsys):
    words, numbers = tmp_path / "words.txt", tmp_path / "numbers.txt"
    words.write_text(" king\n\n red\n")
    numbers.write_text("17\n5\n")
    unknown = tmp_path / "unknown.txt"
    unknown.write_text(" red\nnonsense of mine\n")
    common = ("-k", 5, "--quiet", "--table-format", "parquet")
    assert status("lle", MODEL, "-o", tmp_path / "a", "--tokens", words, *common) == 0
    result = embgeom.LLE.load(tmp_path / "a" / "lle.safetensors")
    assert result.rows.tolist() == [model.row_of(" king"), model.row_of(" red")]
    assert (tmp_path / "a" / "tokens.parquet").is_file()
    assert status("knn", MODEL, "-o", tmp_path / "b", "--tokens", numbers, "--row", *common) == 0
    assert embgeom.Neighbors.load(tmp_path / "b" / "knn.safetensors").rows.tolist() == [17, 5]
    capsys.readouterr()
    for tokens, told in (
        ((words, "--row"), "' king' is not a row number"),
        ((5, "--row"), "--row goes with a file of row numbers"),
        ((0,), "--tokens 0 asks for no token"),
        ((tmp_path / "absent",), "is neither all, nor a number, nor a file"),
        (("2,000",), "--tokens 2,000 is neither all"),
        ((1_000_000,), "--tokens 1000000 is more than the 4096 of example:small"),
        ((unknown,), "unknown.txt, line 2: 'nonsense of mine' is not a token"),
    ):
        assert status("knn", MODEL, "-o", tmp_path / "c", "--tokens", *tokens, *common) == 2
        assert told in capsys.readouterr().err
    assert status("knn", MODEL, "-o", tmp_path, "--tokens", words, *common) == 2
    assert "holds" in capsys.readouterr().err and not (tmp_path / "c").exists()


def test_ctrl_c_says_how_to_go_on(tmp_path):
    program = """
import os, signal, sys
from embgeom.cli.main import main
from embgeom.runs import folder, run
signal.signal(signal.SIGINT, signal.default_int_handler)
run.boundaries = lambda parameters, shape, count, **_: {s: [0, 9, count] for s in parameters.stages}
before = folder.save_tensors
def save(*arguments):
    before(*arguments)
    if sys.argv[-1] == "stop":
        os.kill(os.getpid(), signal.SIGTERM)
folder.save_tensors = save
sys.exit(main(sys.argv[1:-1]))
"""
    command = [sys.executable, "-c", program, "lle", MODEL, "-o", "run", "--tokens", "20"]
    stopped = subprocess.run([*command, "stop"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert stopped.returncode == 128 + signal.SIGTERM
    kept = "0 of 4 blocks are in run, and the same call goes on from there"
    assert stopped.stderr == f"embgeom: terminated; {kept}\n"
    done = subprocess.run([*command, "go on"], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("LLE(20 tokens, k=10: 20 OK)")

"""Results appear whole or not at all, whatever fails or interrupts."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embgeom
from embgeom import Emb2Emb, OutputError, SteeringVector
from embgeom._common import tables, writing
from embgeom.comparison import saving

RESULT = ["inspection.json", "inspection.safetensors", "tokens.csv"]


@pytest.fixture(scope="module")
def embeddings():
    matrix = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    return embgeom.Embeddings.from_array(matrix, [f"word{i}" for i in range(40)])


@pytest.fixture(scope="module")
def inspection(embeddings):
    return embgeom.inspect(embeddings)


@pytest.fixture(scope="module")
def comparison(embeddings):
    return embgeom.compare(embeddings, embeddings, k=5, dimension_sample=5)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def expected(name):
    return sorted([name, *(f"{name}/{file}" for file in RESULT)])


def failing(error):
    def write(*args, **options):
        raise error

    return write


ERRORS = [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("a bug"), MemoryError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("step", ["write_csv", "write_json"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_halfway_leaves_things_as_they_were(
    inspection, tmp_path, monkeypatch, step, error, overwrite
):
    target = tmp_path / "new" / "parents" / "out"
    if overwrite:
        inspection.save(target)
        (target / "tokens.csv").write_text("earlier")
    before = tree(tmp_path)
    monkeypatch.setattr(tables if step == "write_csv" else saving, step, failing(error))
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)) as caught:
        inspection.save(target, overwrite=overwrite)
    assert tree(tmp_path) == before
    if overwrite:
        assert (target / "tokens.csv").read_text() == "earlier"
    if isinstance(error, OSError):
        assert str(caught.value) == f"cannot write {target}: No space left on device"


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["os", "ctrl-c"]
)
def test_a_failure_of_the_exchange_keeps_the_old_folder(inspection, tmp_path, monkeypatch, call, error):
    inspection.save(tmp_path / "out")
    (tmp_path / "out" / "tokens.csv").write_text("earlier")
    monkeypatch.setattr(writing, "_exchange", lambda *_: False)  # as where a system has no such call
    replace, calls = Path.replace, []

    def fail_once(self, target):
        calls.append(self)
        if len(calls) == call:
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        inspection.save(tmp_path / "out", overwrite=True)
    assert tree(tmp_path) == expected("out")
    assert (tmp_path / "out" / "tokens.csv").read_text() == "earlier"


@pytest.mark.parametrize("exchange", [True, False])
def test_results_that_are_replaced(inspection, tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(writing, "_exchange", lambda *_: False)
    inspection.save(tmp_path / "out")
    (tmp_path / "out" / "tokens.csv").write_text("earlier")
    inspection.save(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "tokens.csv").read_text() != "earlier"
    assert tree(tmp_path) == expected("out")


def test_what_another_process_wrote_meanwhile_is_kept(inspection, tmp_path, monkeypatch):
    def be_outrun(file):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "tokens.csv").write_text("the other's")

    monkeypatch.setattr("embgeom._common.writing._flush", be_outrun)
    with pytest.raises(OutputError, match="holds something already"):
        inspection.save(tmp_path / "out")
    assert (tmp_path / "out" / "tokens.csv").read_text() == "the other's"
    assert tree(tmp_path) == ["out", "out/tokens.csv"]


def test_folders_that_hold_something(inspection, comparison, tmp_path):
    target = tmp_path / "out"
    inspection.save(target)
    (target / "tokens.csv").write_text("earlier")
    with pytest.raises(OutputError, match=r"out holds something already; .*overwrite=True"):
        inspection.save(target)
    assert (target / "tokens.csv").read_text() == "earlier"
    inspection.save(target, overwrite=True)
    assert (target / "tokens.csv").read_text() != "earlier"
    # Nothing of an earlier result stays beside the new one.
    comparison.save(target, overwrite=True)
    assert tree(target) == ["comparison.json", "comparison.safetensors", "tokens.csv"]
    assert tree(tmp_path)[0] == "out" and len(tree(tmp_path)) == 4


def test_only_results_are_overwritten(inspection, tmp_path):
    # Replacing a folder removes what is in it, and `-o . --overwrite` is soon typed.
    (tmp_path / "tokens.csv").touch()
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"also holds 'thesis.tex', which would be lost; name another"):
        inspection.save(tmp_path, overwrite=True)
    assert tree(tmp_path) == ["thesis.tex", "tokens.csv"]


def test_empty_folders_are_used(inspection, tmp_path):
    (tmp_path / "out").mkdir()
    inspection.save(tmp_path / "out")
    assert tree(tmp_path) == expected("out")


def test_a_folder_is_made_with_its_parents_and_the_usual_permissions(inspection, tmp_path):
    mask = os.umask(0o027)
    try:
        inspection.save(tmp_path / "a" / "b")
    finally:
        os.umask(mask)
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
    for file in RESULT:
        assert stat.S_IMODE((tmp_path / "a" / "b" / file).stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["out", "./out", "out/", "elsewhere/../out"])
def test_names_of_folders(inspection, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    inspection.save(name)
    assert tree(tmp_path) == expected("out")


def test_names_of_unusual_characters(inspection, tmp_path):
    name = "naïve [bold] 日本 \udcff"
    inspection.save(tmp_path / name)
    assert (tmp_path / name / "tokens.csv").is_file()


@pytest.mark.parametrize("full", [False, True])
def test_a_link_stays_and_what_it_points_to_is_written(inspection, tmp_path, full):
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    if full:
        (real / "tokens.csv").write_text("earlier")
    inspection.save(link, overwrite=full)
    assert link.is_symlink() and tree(real) == RESULT
    assert tree(tmp_path / "disk") == expected("real")


@pytest.mark.parametrize("kind", ["file", "link to a file", "device"])
def test_files_are_no_folders(inspection, tmp_path, kind):
    file, target = tmp_path / "file", tmp_path / "link"
    file.write_text("text")
    if kind == "link to a file":
        target.symlink_to(file)
    else:
        target = file if kind == "file" else Path("/dev/null")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="is a file; name a folder"):
            inspection.save(target, overwrite=overwrite)
    assert file.read_text() == "text"


@pytest.mark.parametrize(
    "make", [lambda file: file / "out", lambda file: file / "deep" / "out", lambda file: "/proc/no/such"]
)
def test_places_that_take_no_folder(inspection, tmp_path, make):
    (tmp_path / "file").write_text("text")
    target = make(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot write") as caught:
        inspection.save(target)
    assert str(target) in str(caught.value) and "\n" not in str(caught.value)
    assert tree(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["", "/", "loop"])
def test_names_that_cannot_be(inspection, comparison, tmp_path, name):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    target = tmp_path / name if name == "loop" else name
    for overwrite in (False, True):
        with pytest.raises(OutputError):
            inspection.save(target, overwrite=overwrite)
    if name != "loop":  # A page may take the place of a link that leads nowhere.
        with pytest.raises(OutputError):
            comparison.to_html(target)


def test_asking_leaves_nothing_behind(tmp_path):
    writing.check_writable(tmp_path / "new" / "out")
    # The command asks before the work, which may then be interrupted.
    assert tree(tmp_path) == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_html_appears_whole_or_not_at_all(comparison, tmp_path, monkeypatch, error):
    (tmp_path / "out.html").write_text("earlier")
    monkeypatch.setattr(writing, "_flush", failing(error))
    for name in ("out.html", "new.html"):
        with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
            comparison.to_html(tmp_path / name)
    assert tree(tmp_path) == ["out.html"]
    assert (tmp_path / "out.html").read_text() == "earlier"


def test_html_replaces_ordinary_files_alone(comparison, tmp_path):
    # Written as a file beside it and renamed, a page would take the place of the device itself.
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", tmp_path, "/dev/null"):
        with pytest.raises(OutputError, match="is not an ordinary file"):
            comparison.to_html(target)
    with pytest.raises(OutputError, match=r"there is no folder .*missing"):
        comparison.to_html(tmp_path / "missing" / "out.html")
    assert tree(tmp_path) == ["pipe"] and stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    (tmp_path / "link").symlink_to(tmp_path / "page.html")
    comparison.to_html(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "page.html").is_file()


def test_a_disk_that_fills_up(tmp_path):
    # A limit on the size of files stands for the disk: the write in the middle of a file fails.
    pytest.importorskip("resource", reason="no limits on this platform")
    program = (
        "import resource, sys; from embgeom.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); sys.exit(main(sys.argv[1:]))"
    )
    matrix = np.random.default_rng(0).standard_normal((3000, 4)).astype(np.float32)
    np.savez(tmp_path / "model.npz", matrix=matrix, tokens=[f"word{i}" for i in range(3000)])
    arguments = ["inspect", "model.npz", "-o", "deep/out", "--dimension-k", "10", "--no-cache"]
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert run.stderr.startswith(f"embgeom: cannot write {tmp_path.resolve() / 'deep' / 'out'}: ")
    assert "File too large" in run.stderr and run.stderr.count("\n") == 1
    assert tree(tmp_path) == ["model.npz"]


@pytest.mark.parametrize(
    "made", [lambda: Emb2Emb.fit(np.eye(5), np.eye(5), held_out=0), lambda: SteeringVector({1: np.ones(3)})]
)
def test_a_disk_that_is_full_while_tensors_are_written(made, tmp_path, monkeypatch):
    def full(*_):
        raise pytest.importorskip("safetensors").SafetensorError(
            "I/O error: No space left on device (os error 28)"
        )

    thing = made()
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        thing.save(tmp_path / "full.safetensors")
    assert list(tmp_path.iterdir()) == []

"""Damaged files give the sound result, what another library reads in them, or an EmbgeomError."""

import os
import selectors
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from tests.helpers.fuzz_more_kinds import NEEDS
from tests.helpers.fuzzing import KINDS, SECONDS

# Together 2,000 files and more; EMBGEOM_FUZZ_CASES=20000 looks further in each kind.
CASES = int(os.environ.get("EMBGEOM_FUZZ_CASES", "100"))
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind, tmp_path):
    if package := NEEDS.get(kind):
        pytest.importorskip(package, reason=f"{package} is not installed")
    outcomes = run(kind, tmp_path)
    wrong = {n: what for n, what in outcomes.items() if what not in ("ok", "refused")}
    assert not wrong, f"of {kind}: {wrong}"
    assert len(outcomes) == CASES
    # Damage that changes nothing, or that nothing survives, would test little.
    assert "refused" in outcomes.values() and "ok" in outcomes.values()


def run(kind, folder):
    """The outcome of each case by its number, in a process that a crash or a hang ends alone."""
    outcomes = {}
    while len(outcomes) < CASES:
        first = len(outcomes)
        home = folder / str(first)
        home.mkdir()
        command = [
            sys.executable,
            "-m",
            "tests.helpers.fuzzing",
            kind,
            str(first),
            str(CASES - first),
            str(home),
        ]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
            for line in lines(worker):
                number, _, what = line.partition(" ")
                if number.isdigit():
                    outcomes[int(number)] = what
            if len(outcomes) < CASES:
                outcomes[len(outcomes)] = f"ended with {worker.wait()}: {worker.stderr.read()[-2000:]!r}"
    return outcomes


def lines(worker):
    """The lines of a process; one that is silent for far too long is killed."""
    patience = 60 + SECONDS  # the first line waits for imports
    with selectors.DefaultSelector() as ready:
        ready.register(worker.stdout, selectors.EVENT_READ)
        while ready.select(patience):
            if not (line := worker.stdout.readline()):
                return
            yield line.decode(errors="replace").rstrip("\n")
            patience = 4 * SECONDS
    worker.kill()

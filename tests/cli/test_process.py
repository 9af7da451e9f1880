"""The command as a process: signals, pipes and encodings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.loading import matrix, write_folder

COMMAND = [sys.executable, "-m", "embgeom"]
NONE = b""
FULL = Path("/dev/full")


@pytest.fixture
def small(tmp_path):
    return str(write_folder(tmp_path / "small", {"model.embed_tokens.weight": matrix(40, 6)}))


def run(*arguments, stdout=subprocess.PIPE, **environment):
    # A user's own settings of these would change what is tested.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHONIO")}
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=clean | environment,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def test_success_and_failure(small):
    status, out, err = run("neighbors", small, "w3", "-k", "3")
    assert (status, err) == (0, NONE) and b"nearest rows of ' w3' (row 3) in small" in out
    status, out, err = run("neighbors", small, "w3", "-k", "40")
    assert (status, out) == (2, NONE)
    assert err == b"embgeom: k = 40 is outside [1, 39]: there are 39 rows to choose neighbors from\n"


def test_debug_shows_the_traceback(small):
    status, out, err = run("neighbors", small, "w3", "-k", "40", "--debug")
    assert status not in (0, None) and out == NONE
    assert err.startswith(b"Traceback") and b"InputError: k = 40" in err


def test_a_terminal_without_unicode(small):
    status, out, err = run("neighbors", small, "w3", PYTHONIOENCODING="ascii")
    assert (status, err) == (0, NONE)
    lines = out.decode("ascii").splitlines()
    # Lines are drawn in ASCII instead of a code for each character of them.
    assert any(set(line.strip()) == {"-"} for line in lines) and b"\\u2500" not in out
    status, out, err = run("neighbors", small, "é", PYTHONIOENCODING="ascii")
    assert (status, out) == (2, NONE) and err.isascii() and b"\\xe9" in err


def test_a_reader_that_leaves_early(small, tmp_path):
    # `| head -1`: the pipe has no reader by the time of the first write, as long as Python takes to start.
    reader, writer = os.pipe()
    os.close(reader)
    status, _, err = run("inspect", small, "-o", tmp_path / "out", stdout=writer)
    os.close(writer)
    assert (status, err) == (0, NONE)
    # The results asked for are written all the same.
    assert (tmp_path / "out" / "inspection.json").is_file()


def test_a_reader_that_takes_one_line(small):
    command = f"{' '.join(COMMAND)} neighbors {small} {' '.join(f'w{i}' for i in range(40))} | head -1"
    done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, timeout=120)
    assert done.stdout == b"nearest rows of ' w0' (row 0) in small, centered\n" and done.stderr == NONE


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full on this platform")
def test_output_that_takes_nothing(small):
    with FULL.open("wb") as full:
        status, _, err = run("neighbors", small, "w3", stdout=full)
    assert status == 2
    assert err == b"embgeom: cannot write to standard output: No space left on device\n"


def test_help_that_nobody_reads_to_its_end():
    reader, writer = os.pipe()
    os.close(reader)
    status, _, err = run("compare", "--help", stdout=writer)
    os.close(writer)
    assert (status, err) == (0, NONE)


# Where the tests run in the background of a shell, children would ignore Ctrl-C, so its handler is set.
HEEDS = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
# The package is imported so by the installed script and by `python -m embgeom`.
STARTS = {"script": "/bin/embgeom", "module": "-m"}
ENDS = {signal.SIGINT: (130, b"embgeom: interrupted\n"), signal.SIGTERM: (143, b"embgeom: terminated\n")}


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("start", STARTS)
def test_signals_while_the_command_is_importing(start, number):
    # NumPy stands for all that takes long to import: its import is stretched, so that the signal comes then.
    program = (
        HEEDS
        + f"""
import builtins, time
before = builtins.__import__
def slow(name, *rest):
    if name == "numpy" and slow.first:
        slow.first = False
        print("ready", flush=True)
        time.sleep(30)
    return before(name, *rest)
slow.first = True
builtins.__import__ = slow
sys.argv = [{STARTS[start]!r}, "compare", "example:small", "example:large"]
from embgeom.cli.main import main
sys.exit(main())
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (out, (process.returncode, err)) == (NONE, ENDS[number])


def test_importing_the_package_elsewhere_leaves_signals_alone():
    program = HEEDS + (
        "before = [signal.getsignal(n) for n in (2, 15)]; import embgeom, embgeom.cli.main;"
        "assert [signal.getsignal(n) for n in (2, 15)] == before;"
        "embgeom.cli.main.main(['neighbors', 'example:small', '5', '--row']);"
        "assert [signal.getsignal(n) for n in (2, 15)] == before"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_signals_end_a_long_computation(tmp_path, number):
    rows = 30_000
    np.savez(tmp_path / "big.npz", matrix=matrix(rows, 128), tokens=[f"word{i}" for i in range(rows)])
    # The line "ready" tells that Python has started; before that, a signal is Python's own affair.
    program = (
        HEEDS + "from embgeom.cli.main import main; print('ready', flush=True); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["compare", "big.npz", "big.npz", "-o", "deep/out", "--html", "out.html"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.7)
            assert process.poll() is None, "the computation is too short to interrupt"
            process.send_signal(number)
            sent = time.monotonic()
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (out, (process.returncode, err)) == (NONE, ENDS[number])
    # Kernels look for signals about ten times a second; the rest is room for a busy machine.
    assert time.monotonic() - sent < 5.0
    assert [path.name for path in tmp_path.iterdir()] == ["big.npz"]


def test_a_signal_while_results_are_written(tmp_path):
    # SIGTERM leaves as little behind as Ctrl-C does.
    program = (
        HEEDS
        + """
import time
from pathlib import Path
from embgeom._common import tables
from embgeom.cli.main import main
def stay(path, columns):
    Path(path).write_text("half")
    print("ready", flush=True)
    time.sleep(30)
tables.write_csv = stay
sys.exit(main(["inspect", "example:small", "--dimension-sample", "5", "-o", "out", "--quiet"]))
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while process.stdout.readline() != b"ready\n":  # after the tables
            assert process.poll() is None
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == ENDS[signal.SIGTERM]
    assert list(tmp_path.iterdir()) == []

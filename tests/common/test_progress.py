"""Progress: bars on terminals, a line a minute in logs."""

import io
import subprocess
import sys

import pytest

from embgeom import knn
from embgeom._common import progress
from embgeom._common.progress import byte_bar, reporter
from tests.helpers.printed import Terminal


class Time:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    clock = Time()
    monkeypatch.setattr(progress, "monotonic", clock)
    monkeypatch.setattr(progress, "_CLOCK", progress._Clock())
    return clock


@pytest.fixture
def log(capsys):
    """Return the lines written since it was last asked."""

    def written():
        return capsys.readouterr().err.splitlines()

    return written


def work(time, report, phase, counts, total, step=1.0):
    for done in counts:
        time.now += step
        report(phase, done, total)


def test_a_line_a_minute_with_rate_and_time_left(time, log):
    with reporter(True, "dimension") as report:
        work(time, report, "decompose", range(0, 12_401, 100), 49_152)
    assert log() == [
        "embgeom: dimension: decompose 5,900 of 49,152 (12 %), 100/s, 7 min left",
        "embgeom: dimension: decompose 11,900 of 49,152 (24 %), 100/s, 6 min left",
    ]


def test_work_of_less_than_a_minute_writes_nothing(time, log):
    with reporter(True, "knn") as report:
        work(time, report, "multiply", range(59), 59)
    time.now += 3600
    with reporter(True, "knn") as report:
        work(time, report, "multiply", range(59), 59)
    assert log() == []


def test_many_short_calls_are_one_long_work(time, log):
    for _ in range(10):
        with reporter(True, "knn") as report:
            work(time, report, "multiply", range(20), 20)
    assert len(log()) == 3


def test_time_left_follows_the_rate_of_the_last_minutes(time, log):
    with reporter(True, "lle") as report:
        work(time, report, "solve", range(0, 60_000, 1000), 100_000)
        work(time, report, "solve", range(60_000, 60_600), 100_000)
    assert log()[-1] == "embgeom: lle: solve 60,599 of 100,000 (60 %), 1.0/s, 10 h 57 min left"


def test_a_resumed_count_says_nothing_of_the_rate(time, log):
    with reporter(True, "run") as report:
        work(time, report, "blocks", range(40_000, 40_062), 40_100)
    assert log() == ["embgeom: run: blocks 40,059 of 40,100 (99 %), 1.0/s, 41 s left"]


def test_a_new_phase_and_slow_steps(time, log):
    with reporter(True, "evaluate") as report:
        work(time, report, "scores", range(3), 30, step=90.0)
        work(time, report, "neutral text", [1], 7, step=90.0)
    assert log() == [
        "embgeom: evaluate: scores 0 of 30 (0 %)",
        "embgeom: evaluate: scores 1 of 30 (3 %), 0.7/min, 44 min left",
        "embgeom: evaluate: scores 2 of 30 (6 %), 0.7/min, 42 min left",
        "embgeom: evaluate: neutral text 1 of 7 (14 %)",
    ]


def test_bytes(time, log):
    with byte_bar("fetching\x1b wte.weight", 10**10, True) as bar:
        bar.update(5 * 10**6)
        bar.reset()
        for _ in range(61):
            time.now += 1
            bar.update(10**7)
    assert log() == [
        "embgeom: fetching\\x1b wte.weight 600.0 MB of 10,000.0 MB (6 %), 10.0 MB/s, 16 min left"
    ]
    with byte_bar("reading", None, True) as bar:
        time.now += 60
        bar.update(10**6)
    assert log() == ["embgeom: reading 1.0 MB"]
    with byte_bar("reading", 10, False) as bar:
        time.now += 600
        bar.update(5)
    assert log() == []


def test_no_standard_error_is_no_error(time, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with reporter(True, "knn") as report:
        work(time, report, "multiply", range(70), 70)


def test_notebooks_and_terminals_have_bars(time, monkeypatch):
    class OutStream(io.StringIO):
        """As notebooks have it."""

    OutStream.__module__ = "ipykernel.iostream"
    for stream in (Terminal(), OutStream()):
        monkeypatch.setattr(sys, "stderr", stream)
        knn([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], 2, progress=True)
        assert "knn: multiply" in stream.getvalue()


@pytest.mark.parametrize("end", ["1", "2>&-", "| true"])
def test_a_log_whose_reader_has_gone_stops_nothing(end):
    program = (
        "import time, os; from embgeom._common import progress; progress._INTERVAL = 0\n"
        "with progress.reporter(True, 'run') as report:\n"
        "    for i in range(50): report('rows', i, 50); time.sleep(0.01)\n"
        "os.write(1, b'done')"
    )
    redirected = {"1": "", "2>&-": "2>&-", "| true": "2> >(true)"}[end]
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" {redirected}', sys.executable, program],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0 and done.stdout == b"done"
    assert (b"embgeom: run: rows 49 of 50 (98 %)" in done.stderr) == (end == "1")

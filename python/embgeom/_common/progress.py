"""Showing how far a kernel is: a bar on a terminal, elsewhere a line a minute."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.tables import visible, write_error
from embgeom.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

ProgressCallable = Callable[[str, int, int], None]
Progress = bool | ProgressCallable

# Seconds between two lines of a log, between two of the counts that give a rate, and over which it is taken.
_INTERVAL = 60.0
_SAMPLED = 2.0
_REMEMBERED = 180.0


@contextmanager
def reporter(progress: Progress, name: str) -> Iterator[ProgressCallable | None]:
    """Give the callable ``(phase, done, total)`` that a kernel reports to, or None, for what users pass."""
    if isinstance(progress, bool | np.bool_):
        if not progress:
            yield None
            return
        if not on_terminal():
            yield _Lines(name)
            return
        bars = _Bars(name)
        try:
            yield bars
        finally:
            bars.close()
    elif callable(progress):
        yield progress
    else:
        raise InputError(f"progress = {progress!r} must be True, False or a callable (phase, done, total)")


def byte_bar(what: str, total: int | None, show: bool) -> Any:
    """Return a progress bar of bytes, with the calls of tqdm's; one that is not shown takes them, too."""
    from tqdm import tqdm

    if show and not on_terminal():
        return _ByteLines(what, total)
    return tqdm(
        total=total,
        desc=visible(what),
        unit="B",
        unit_scale=True,
        leave=False,
        dynamic_ncols=True,
        disable=not show,
    )


def on_terminal() -> bool:
    """Return whether standard error can draw bars: a terminal, or a notebook."""
    stream = sys.stderr
    # A command may be started with standard error closed. Older streams of notebooks deny being terminals.
    return stream is not None and (stream.isatty() or type(stream).__module__.startswith("ipykernel."))


class _Clock:
    """When the next line of a log is due, in whichever call the work then is."""

    def __init__(self) -> None:
        self._last = self._seen = -np.inf

    def begin(self) -> None:
        """Let a minute pass before the first line, unless work has been going on."""
        if monotonic() - self._seen > _INTERVAL:
            self._last = self._seen = monotonic()

    def due(self, now: float) -> bool:
        """Return whether a line is due, which is then taken for written."""
        self._seen = now
        if now - self._last < _INTERVAL:
            return False
        self._last = now
        return True


_CLOCK = _Clock()


class _Lines:
    """A line a minute, with the rate of the last minutes."""

    def __init__(self, name: str, unit: str = "") -> None:
        self._name, self._unit, self._phase, self._total = name, unit, "", -1
        self._samples: deque[tuple[float, int]] = deque()
        _CLOCK.begin()

    def __call__(self, phase: str, done: int, total: int) -> None:
        now, samples = monotonic(), self._samples
        if (phase, total) != (self._phase, self._total) or (samples and done < samples[-1][1]):
            self._phase, self._total = phase, total
            samples.clear()
        if not samples or now - samples[-1][0] >= _SAMPLED:
            samples.append((now, done))
        while now - samples[0][0] > _REMEMBERED and len(samples) > 2:
            samples.popleft()
        if _CLOCK.due(now):
            parts = [self._count(done, total), *self._rate(now, done, total)]
            what = f"{self._name}: {phase}" if phase else self._name
            write_error(f"embgeom: {what} {', '.join(parts)}\n")

    def _count(self, done: int, total: int) -> str:
        if total <= 0:
            return self._amount(done)
        return f"{self._amount(done)} of {self._amount(total)} ({100 * done // total} %)"

    def _rate(self, now: float, done: int, total: int) -> Iterator[str]:
        begin, before = self._samples[0]
        if now <= begin:
            return
        rate = (done - before) / (now - begin)
        if self._unit or rate >= 10:
            yield f"{self._amount(rate)}/s"
        else:
            yield f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        if rate > 0 and done < total:
            yield f"{_duration((total - done) / rate)} left"

    def _amount(self, count: float) -> str:
        return f"{count / 1e6:,.1f} MB" if self._unit else f"{count:,.0f}"


class _ByteLines:
    """Lines in place of a bar of bytes."""

    def __init__(self, what: str, total: int | None) -> None:
        self._lines, self._total, self._done = _Lines(what, "B"), total or 0, 0

    def update(self, count: int) -> None:
        self._done += count
        self._lines("", self._done, self._total)

    def reset(self) -> None:
        self.update(-self._done)

    def __enter__(self) -> _ByteLines:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class _Bars:
    """One bar at a time, a new one for each phase."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._phase = ""
        self._bar: tqdm[None] | None = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None or phase != self._phase:
            self.close()
            self._phase = phase
            self._bar = tqdm(
                total=total, desc=visible(f"{self._name}: {phase}"), leave=False, dynamic_ncols=True
            )
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

"""Showing how far a kernel is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from embgeom._common.tables import visible
from embgeom.errors import InputError

if TYPE_CHECKING:
    from tqdm import tqdm

ProgressCallable = Callable[[str, int, int], None]
Progress = bool | ProgressCallable


@contextmanager
def reporter(progress: Progress, name: str) -> Iterator[ProgressCallable | None]:
    """Give the callable ``(phase, done, total)`` that a kernel reports to, or None, for what users pass."""
    if isinstance(progress, bool | np.bool_):
        if not progress:
            yield None
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


def byte_bar(what: str, total: int | None, show: bool) -> tqdm[None]:
    """Return a progress bar of bytes; one that is not shown takes all calls, too."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=visible(what),
        unit="B",
        unit_scale=True,
        leave=False,
        dynamic_ncols=True,
        disable=not show,
    )


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

"""Comparing printed results, where another processor may round the last figure the other way."""

from __future__ import annotations

import io

import pytest


def differences(text, expected):
    """Return the pairs of words in which two texts differ; fractions may differ in their last figure."""
    ours, theirs = text.split(), expected.split()
    assert len(ours) == len(theirs), f"{len(ours)} words instead of {len(theirs)}"
    return [pair for pair in zip(ours, theirs, strict=True) if not _same(*pair)]


def _same(ours, theirs):
    if "." not in ours:
        return ours == theirs
    try:
        return float(ours.rstrip("%,")) == pytest.approx(float(theirs.rstrip("%,")), abs=2e-4, rel=2e-3)
    except ValueError:
        return ours == theirs


class Terminal(io.StringIO):
    """A stream that keeps what is shown on a terminal."""

    def isatty(self):
        return True

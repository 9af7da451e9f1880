"""Figures: names of models are drawn as they are."""

from __future__ import annotations

import sys

import pytest

import embgeom
from embgeom._common.result import check_figure_path, new_figure, save_figure

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("name", ["m\udcff\x1b[31m", "$x^^$"])
@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_name_is_neither_a_formula_nor_a_command(tmp_path, name, suffix):
    figure = new_figure(3, 2)
    figure.subplots().set_title(name)
    figure.suptitle(name)
    save_figure(figure, tmp_path / f"figure{suffix}")
    assert (tmp_path / f"figure{suffix}").stat().st_size > 0


def test_a_missing_matplotlib_is_explained(monkeypatch, tmp_path):
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    for draw in (lambda: new_figure(3, 2), lambda: check_figure_path(tmp_path / "a.svg")):
        with pytest.raises(embgeom.InputError, match=r'needs matplotlib: pip install "embgeom\[figures\]"'):
            draw()

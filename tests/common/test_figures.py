"""Figures: names of models are drawn as they are."""

from __future__ import annotations

import pytest

from embgeom._common.figures import new_figure, save_figure

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("name", ["m\udcff\x1b[31m", "$x^^$"])
@pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf"])
def test_a_name_is_neither_a_formula_nor_a_command(tmp_path, name, suffix):
    figure = new_figure(3, 2)
    figure.subplots().set_title(name)
    figure.suptitle(name)
    save_figure(figure, tmp_path / f"figure{suffix}")
    assert (tmp_path / f"figure{suffix}").stat().st_size > 0

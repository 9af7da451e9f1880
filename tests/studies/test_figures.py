"""The figures of a study: all that it measured is drawn, named and explained."""

from __future__ import annotations

import pytest

import embgeom
from embgeom.studies.charts import small
from embgeom.studies.figures import drawings
from tests.studies.test_study import MODELS, OPTIONS

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return embgeom.study(MODELS, folder=tmp_path_factory.mktemp("study") / "out", **OPTIONS)


def test_everything_measured_is_drawn(study):
    found = {drawing.name: drawing for drawing in drawings(study)}
    measures = {f"heatmap_{statistic.name}" for statistic in study.pairs[0].statistics}
    others = {"curves_overlap", "curves_weights", "curves_dimension", "curves_variance", "lineage", "norms"}
    dimensions = {"dimension_histograms", "dimension_against_dimension"}
    assert set(found) == measures | others | dimensions | {"weight_cosine_histogram", "map_scores"}
    for drawing in found.values():
        assert drawing.caption.endswith(".") and drawing.figure.axes
        assert ": the same for" not in drawing.caption and "the same after" not in drawing.caption
    lines = any(axes.lines for axes in found["dimension_against_dimension"].figure.axes)
    assert lines == ("Dashed" in found["dimension_against_dimension"].caption)
    texts = [text.get_text() for axes in found["map_scores"].figure.axes for text in axes.texts]
    scores = study.pairs[0].maps[0].scores
    assert any(f"chance {small(1 / scores.candidates)}" in text for text in texts)


def test_two_models_at_first_look(tmp_path):
    study = embgeom.study(MODELS[:2], folder=tmp_path / "out", quick=True, **OPTIONS)
    names = {drawing.name for drawing in drawings(study)}
    assert {"heatmap_neighbor_overlap", "norms"} <= names
    assert not {"lineage", "map_scores", "curves_weights"} & names

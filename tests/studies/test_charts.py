"""Charts of few and of many models hold what they say, and are the same bytes for the same input."""

import numpy as np
import pytest

from embgeom._common.result import new_figure, save_figure
from embgeom._common.style import shortened, styled
from embgeom.comparison.curves import Curve
from embgeom.comparison.nulls import Baseline, Estimate, Interval
from embgeom.studies.charts import Cell, against, curves, distributions, heatmap, heatmaps, small, tree

matplotlib = pytest.importorskip("matplotlib")
from matplotlib.text import Text  # noqa: E402

LONG = "/models/somebody/llama-3.2-1B-Instruct-abliterated-Q8_0"


def names(count):
    return [LONG, *(f"model-{i}" for i in range(1, count))]


def estimate(value, half_width=0.02, stratified=True):
    null = Baseline(0.001, 0.0002)
    within = Baseline(0.12, 0.01, 200, 30) if stratified else None
    return Estimate(value, Interval(value - half_width, value + half_width), null, within, 1000)


def pairs(count):
    return [(i, j) for i in range(count) for j in range(i + 1, count)]


def charts(count):
    rng = np.random.default_rng(count)
    labels = [f"{i} / {j}" for i, j in pairs(count)]
    cells = {pair: Cell.from_estimate(estimate(rng.uniform(0.1, 0.9))) for pair in pairs(count)}
    both = cells | {(j, i): cell for (i, j), cell in cells.items()}
    drawn = [
        Curve("neighbor_overlap", "k", (10, 50, 200), tuple(estimate(v) for v in rng.uniform(0, 1, 3)))
        for _ in labels
    ]
    dimensions = [rng.integers(-1, 40, 300) for _ in range(count)]
    linkage = np.array([[0, 1, 0.5, 2], *([i, count + i - 2, 0.5 + i / 99, i + 1] for i in range(2, count))])
    yield heatmap(names(count), cells, "neighbor overlap")
    yield heatmaps(names(count), {"R²": both, "retrieval": both})
    yield curves(labels, drawn, "neighbor overlap", range(len(drawn)))
    yield distributions(
        labels, [rng.normal(size=200) for _ in labels], "cosine", levels={"null": [0.0] * len(labels)}
    )
    values = {(i, j): (dimensions[i], dimensions[j]) for i, j in pairs(count)}
    yield against(names(count), values, {pair: estimate(0.3) for pair in pairs(count)})
    yield tree(names(count), linkage, [0.9] * (count - 1), 0.99, "1 - neighbor overlap")


def texts(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_charts_are_the_same_bytes_for_the_same_input(tmp_path):
    for number, (one, other) in enumerate(zip(charts(2), charts(2), strict=True)):
        for suffix in (".svg", ".pdf"):
            paths = [tmp_path / f"{number}{part}{suffix}" for part in "ab"]
            for figure, path in zip((one, other), paths, strict=True):
                save_figure(figure, path)
            assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 7])
def test_charts_of_more_models(tmp_path, count):
    for number, figure in enumerate(charts(count)):
        save_figure(figure, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000


def test_the_line_of_equal_numbers_does_not_make_the_data_small():
    x, y = np.arange(40, 50), np.arange(80, 90)
    for other, lines in ((y, 0), (x + 3, 1)):
        axes = against(["a", "b"], {(0, 1): (x, other)}, {(0, 1): estimate(0.5)}).axes[0]
        assert len(axes.lines) == lines and axes.get_ylim() == (other.min() - 0.5, other.max() + 0.5)


def test_a_cell_has_value_interval_and_both_nulls():
    figure = heatmap(names(3), {pair: Cell.from_estimate(estimate(0.456)) for pair in pairs(3)}, "overlap")
    assert texts(figure).count("0.46\n±0.02") == 3
    assert texts(figure).count("null 0.001±2e-4\nstrata 0.12±0.01") == 3
    assert Cell.from_estimate(estimate(float("nan"))).text() == "–"
    assert Cell(0.25, float("nan"), {}).text() == "0.25"


def test_of_many_curves_the_highest_and_the_lowest_are_named():
    drawn = [Curve("x", "k", (1, 2), (estimate(v / 10), estimate(v / 10))) for v in range(8)]
    figure = curves([f"pair {v}" for v in range(8)], drawn, "overlap", range(8))
    shown = {text for text in texts(figure) if text.startswith("pair")}
    assert shown == {f"pair {v}" for v in (0, 1, 2, 5, 6, 7)}


def test_a_pair_has_the_same_look_in_all_figures():
    looks = []
    for first, other in ((1, 5), (5, 1)):
        drawn = [Curve("x", "k", (1, 2), (estimate(v / 10), estimate(v / 10))) for v in (first, other)]
        figure = curves(["one", "two"], drawn, "overlap", [3, 9])
        shown = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
        looks.append([shown[name][0].get_color() for name in ("one", "two")])
        assert shown["one"][0].get_marker() != shown["two"][0].get_marker()
    assert looks[0] == looks[1]


def test_each_row_has_all_of_its_levels():
    values = [np.arange(9), np.arange(5)]
    figure = distributions(["a", "b"], values, "x", levels={"most": [8.0, 7.0], "Gaussian": [5.0, 6.0]})
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_linestyle() in ("--", ":")]
    assert marks == [8.0, 5.0, 7.0, 6.0]
    assert {"most", "Gaussian"} <= set(texts(figure))


def test_many_rows_are_quantiles_in_order():
    values = [np.full(5, v, dtype=float) for v in range(20)]
    figure = distributions([f"row {v}" for v in range(20)], values, "x", levels={})
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [f"row {v}" for v in range(19, -1, -1)]


def test_no_setting_of_matplotlib_changes_a_figure(tmp_path):
    draw = styled(lambda: new_figure(2, 1).subplots().figure)
    save_figure(draw(), tmp_path / "plain.png")
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30, "axes.grid": True}):
        save_figure(draw(), tmp_path / "set.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "set.png").read_bytes()


def test_names_are_short_and_distinct():
    assert shortened(["a", LONG]) == ["a", "llama-3.2-1B-In…rated-Q8_0"]
    alike = shortened(["Qwen2.5-Coder-0.5B-Instruct", "Qwen2.5-Coder-1.5B-Instruct"], 14)
    assert len(set(alike)) == 2 and all(len(name) <= 14 for name in alike)


def test_small_numbers_take_little_room():
    numbers = (0.0, 3.6e-5, -2e-4, 0.0031, 0.0912, float("nan"))
    assert [small(x) for x in numbers] == ["0", "4e-5", "-2e-4", "0.003", "0.09", "?"]

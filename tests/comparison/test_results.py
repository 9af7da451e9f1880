"""What saved results hold: everything measured, and everything needed to repeat it."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import re
import sys
from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
from safetensors.numpy import load_file

import embgeom
from embgeom import InputError, LoadError
from embgeom._common.record import plain, versions
from embgeom._common.tables import TABLE_FORMATS, visible
from embgeom.comparison.tokens import WITHOUT
from tests.helpers.loading import tokenizer, write_folder
from tests.helpers.real_data import EXAMPLES

# What a table must keep apart: separators, quotes, ends of lines, spaces, control characters, formulas.
HARD = ["a,b", '"', 'a "b" c', "two\nlines", "\r", "\r\n", " padded ", "\t", "=1+1", "\\", "é", "日本", "nan"]
SURROGATE = "\ud800"
ROWS = 60


def model(tokens, seed=0, name="model"):
    matrix = np.random.default_rng(seed).standard_normal((len(tokens), 6)).astype(np.float32)
    return embgeom.Embeddings.from_array(matrix, tokens, name=name)


def tokens_with(hard):
    return [*hard, *(f"word{i}" for i in range(ROWS - len(hard)))]


@pytest.fixture(scope="module")
def comparison():
    tokens = tokens_with(HARD)
    return embgeom.compare(
        model(tokens, 0, "[bold]<b>&"),
        model(tokens, 1, "right"),
        k=5,
        dimension_k=20,
        dimension_sample=20,
        seed=7,
    )


@pytest.fixture(scope="module")
def inspection():
    return embgeom.inspect(model(tokens_with(HARD)), dimension_k=20, dimension_sample=20, seed=7)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(one, other):
    """Compare two results field by field, arrays with their types."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    elif is_dataclass(one):
        for field in fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    else:
        assert one == other


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_comparison_is_read_back(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["comparison.json", "comparison.safetensors", "tokens.csv"]
    loaded = embgeom.Comparison.load(tmp_path / "out")
    assert_same(loaded, comparison)
    assert loaded.summary() == comparison.summary() and loaded.to_dict() == comparison.to_dict()
    arrays = load_file(tmp_path / "out" / "comparison.safetensors")
    np.testing.assert_array_equal(arrays["local_b.lle.weights"], comparison.local_b.lle.weights)


def test_what_is_not_a_saved_comparison(inspection, tmp_path):
    inspection.save(tmp_path / "out")
    with pytest.raises(LoadError, match=r"comparison.safetensors cannot be read: No such file"):
        embgeom.Comparison.load(tmp_path / "out")
    file = tmp_path / "out" / "inspection.safetensors"
    file.rename(file.with_name("comparison.safetensors"))
    with pytest.raises(LoadError, match="is not a saved Comparison"):
        embgeom.Comparison.load(tmp_path / "out")


def test_the_table_of_a_comparison(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    lines = read_csv(tmp_path / "out" / "tokens.csv")
    assert [line["token_a"] for line in lines] == tokens_with(HARD) == [line["token_b"] for line in lines]
    assert [int(line["row_a"]) for line in lines] == comparison.match.ids_a.tolist()
    # Numbers are written so that they are read back to the bit.
    assert [float(line["neighbor_overlap"]) for line in lines] == comparison.neighbor_overlap.tolist()
    assert [float(line["weight_cosine"]) for line in lines] == comparison.weight_cosine.tolist()
    sampled = {i: int(line["n_components_b"]) for i, line in enumerate(lines) if line["n_components_b"]}
    components = comparison.local_b.dimension.n_components.tolist()
    expected = dict(zip(comparison.sampled.tolist(), components, strict=True))
    assert sampled == expected


def test_the_json_of_a_comparison(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert content["options"] == {
        "k": 5,
        "metric": "cosine",
        "center": True,
        "reg": 1e-3,
        "dimension_k": 20,
        "dimension_sample": 20,
        "variance": 0.95,
        "without": list(WITHOUT),
        "only": None,
        "relabelings": 200,
        "panel": False,
        "curves": False,
        "seed": 7,
        "threads": comparison.options.threads,
    }
    for written, statistic in zip(content["statistics"], comparison.statistics, strict=True):
        assert written == plain({**written, **statistic.record(), "meaning": statistic.meaning})
        assert written["measure"] == statistic.name and written["null_sd"] == statistic.null.sd
    assert content["match"] == comparison.match.to_dict()
    assert content["versions"] == versions()
    assert set(versions()) == {"embgeom", "numpy", "tokenizers", "python", "machine"}
    assert versions()["embgeom"] == embgeom.__version__ and versions()["numpy"] == np.__version__
    assert [content["models"][side]["name"] for side in "ab"] == ["[bold]<b>&", "right"]


def test_the_csv_of_a_comparison(comparison, tmp_path):
    comparison.to_csv(tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    whole = [row for row in rows if not row["tokens"]]
    assert [row["measure"] for row in whole] == [statistic.name for statistic in comparison.statistics]
    content = comparison.to_dict()["statistics"]
    for row, written in zip(whole, content, strict=True):
        assert set(written) - {"meaning", "without"} == set(row) - {"model_a", "model_b", "tokens"}
        assert float(row["value"]) == written["value"] and float(row["null_mean"]) == written["null_mean"]
    assert {row["model_b"] for row in rows} == {"right"}


def test_undefined_numbers_become_null(tmp_path):
    # NaN is no JSON, and strict readers refuse a file that holds it.
    x = model(tokens_with([]))
    embgeom.compare(x, x, k=8, reg=0.0, dimension_sample=1).save(tmp_path / "out")
    text = (tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    statistics = {statistic["measure"]: statistic for statistic in content["statistics"]}
    assert statistics["weight_cosine"]["value"] is None and statistics["dimension_pearson"]["value"] is None
    assert set(content["weight_cosine_quantiles"].values()) == {None}


def test_an_inspection_is_read_back(inspection, tmp_path):
    inspection.save(tmp_path / "out")
    assert names(tmp_path / "out") == ["inspection.json", "inspection.safetensors", "tokens.csv"]
    loaded = embgeom.Inspection.load(tmp_path / "out")
    assert_same(loaded, inspection)
    assert loaded.summary() == inspection.summary()
    lines = read_csv(tmp_path / "out" / "tokens.csv")
    tokens = tokens_with(HARD)
    assert [(int(line["row"]), line["token"]) for line in lines] == [
        (row, tokens[row]) for row in inspection.sampled
    ]
    content = json.loads((tmp_path / "out" / "inspection.json").read_text(encoding="utf-8"))
    assert content["options"] == inspection.options
    assert set(content["options"]) == {
        "dimension_k",
        "dimension_sample",
        "variance",
        "metric",
        "center",
        "without",
        "only",
        "seed",
        "threads",
    }
    assert content["versions"] == versions()


def test_the_files_of_models_are_known_by_their_sha256(tmp_path):
    matrix = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    folder = write_folder(tmp_path / "model", {"model.embed_tokens.weight": matrix})
    embgeom.compare(folder, folder, k=3).save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    for side in "ab":
        origin = content["models"][side]["provenance"]
        assert origin["sha256"] == digest
        assert origin["tensor"] == "model.embed_tokens.weight"
        assert origin["source"] == str(folder)


def test_the_real_pair_is_repeated_from_what_was_saved(tmp_path):
    embgeom.compare(*EXAMPLES, dimension_sample=50, seed=3).save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    sources = [content["models"][side]["provenance"]["source"] for side in "ab"]
    again = embgeom.compare(*sources, **content["options"])
    assert content["statistics"] == again.to_dict()["statistics"]
    lines = read_csv(tmp_path / "out" / "tokens.csv")
    tokens = again.a.tokens
    assert [line["token_a"] for line in lines] == [tokens[row] for row in again.match.ids_a]


def test_a_lone_surrogate_is_written_as_its_code(tmp_path):
    # A tokenizer's JSON may hold one, and no UTF-8 file can.
    vocabulary = tokenizer([SURROGATE, *(f"▁w{i}" for i in range(29))])
    matrix = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    folder = write_folder(tmp_path / "model", {"model.embed_tokens.weight": matrix})
    (folder / "tokens.json").write_text(json.dumps(list(vocabulary["model"]["vocab"])))
    loaded = embgeom.load(folder, vocabulary=str(folder / "tokens.json"))
    inspection = embgeom.inspect(loaded)
    inspection.save(tmp_path / "out")
    assert read_csv(tmp_path / "out" / "tokens.csv")[0]["token"] == "\\ud800"
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    inspection.save(tmp_path / "parquet", table_format="parquet")
    assert parquet.read_table(tmp_path / "parquet" / "tokens.parquet")["token"][0].as_py() == "\\ud800"


def test_parquet_tables(comparison, inspection, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    comparison.save(tmp_path / "out", table_format="parquet")
    assert "tokens.parquet" in names(tmp_path / "out")
    table = parquet.read_table(tmp_path / "out" / "tokens.parquet").to_pydict()
    assert table["token_a"] == tokens_with(HARD)
    assert table["weight_cosine"] == comparison.weight_cosine.tolist()
    assert [i for i, value in enumerate(table["n_components_a"]) if value is not None] == (
        comparison.sampled.tolist()
    )
    inspection.save(tmp_path / "other", table_format="parquet")
    table = parquet.read_table(tmp_path / "other" / "tokens.parquet").to_pydict()
    assert table["n_components"] == inspection.dimension.n_components.tolist()


@pytest.mark.parametrize("result", ["comparison", "inspection"])
def test_parquet_without_pyarrow(result, request, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r'pip install "embgeom\[parquet\]", or use csv'):
        request.getfixturevalue(result).save(tmp_path / "out", table_format="parquet")
    assert names(tmp_path) == []


@pytest.mark.parametrize("result", ["comparison", "inspection"])
def test_unknown_formats(result, request, tmp_path):
    with pytest.raises(InputError, match=f"'xlsx' is unknown: use one of {', '.join(TABLE_FORMATS)}"):
        request.getfixturevalue(result).save(tmp_path / "out", table_format="xlsx")
    assert names(tmp_path) == []


def test_html_says_what_the_summary_says(comparison, tmp_path):
    comparison.to_html(tmp_path / "out.html")
    assert names(tmp_path) == ["out.html"]
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert 'charset="UTF-8"' in page
    # Names with markup of rich or of HTML stand there as they are.
    assert "[bold]&lt;b&gt;&amp;" in page
    text = html.unescape(re.sub(r"<[^<>]+>", "", page.split("<body>")[1]))
    for block in comparison.tables():
        lines = [[block]] if isinstance(block, str) else [[block.title], block.columns, *block.cells()]
        assert all(visible(text_of_cell) in text for line in lines for text_of_cell in line)
    comparison.to_html(str(tmp_path / "out.html"))
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page


def test_a_neighborhood_is_read_back(tmp_path):
    found = embgeom.inspect_token(model(tokens_with(HARD)), "two\nlines", k=5, dimension_k=20)
    found.save(tmp_path / "two.json")
    loaded = embgeom.TokenNeighborhood.load(tmp_path / "two.json")
    assert_same(loaded, found)
    assert loaded.summary() == found.summary()


def test_tables_as_frames(comparison, inspection, tmp_path):
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = comparison.to_pandas()
    assert frame["token_a"].tolist() == tokens_with(HARD)
    assert frame["n_components_a"].notna().sum() == len(comparison.sampled)
    assert frame["neighbor_overlap"].mean() == pytest.approx(comparison["neighbor_overlap"].value)
    assert inspection.to_pandas()["n_components"].tolist() == inspection.dimension.n_components.tolist()
    near = embgeom.inspect_token(model(tokens_with([])), "word3", k=5, metric="inner_product").to_pandas()
    assert list(near.columns) == ["row", "token", "inner_product", "weight"] and len(near) == 5


def test_two_matrices_of_a_model_are_told_apart(comparison):
    same = replace(comparison, b=replace(comparison.b, name=comparison.a.name, which="output"))
    name = comparison.a.name
    title, caption = same._headings()
    assert title.endswith(f"{name}, input and {name}, output share") and f"B: {name}, output" in caption
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert same.figure().get_suptitle().endswith(f"of A: {name}, input and B: {name}, output")


def test_figures_show_what_was_measured(comparison, inspection, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    statistics, overlap, dimension, _ = comparison.figure().axes
    names = [statistic.name for statistic in comparison.statistics]
    assert [tick.get_text() for tick in statistics.get_yticklabels()] == names
    drawn = {line.get_label(): line.get_xdata() for line in statistics.lines}
    first = comparison.statistics[0]
    for label, value in (
        ("value", first.value),
        ("null", first.null.mean),
        ("null in strata", first.stratified.mean),
    ):
        assert list(drawn[label]) == [value]
    # A bar for each possible number of common neighbors; together they are all tokens, also by the null.
    assert [bar.get_height() for bar in overlap.patches] == np.bincount(
        np.rint(comparison.neighbor_overlap * 5).astype(int), minlength=6
    ).tolist()
    (expected,) = overlap.lines
    assert sum(expected.get_ydata()) == pytest.approx(len(comparison.match))
    (cells,) = dimension.collections
    assert np.nansum(cells.get_array()) == len(comparison.sampled)
    # Legends stand above the data.
    for axes in (statistics, overlap):
        assert axes.get_legend().get_window_extent().y0 >= axes.get_window_extent().y1
    assert all(axes.get_xlabel() for axes in (statistics, overlap, dimension))
    norms, dimensions = inspection.figure().axes
    assert sum(bar.get_height() for bar in norms.patches) == len(inspection.norms)
    assert sum(bar.get_height() for bar in dimensions.patches) == len(inspection.sampled)
    for result, file in ((comparison, "c.svg"), (inspection, "i.png")):
        result.plot(tmp_path / file)
    assert (tmp_path / "c.svg").read_text().lstrip().startswith("<?xml")
    assert "<table" in comparison._repr_html_()

"""What saved results hold: everything measured, and everything needed to repeat it."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import re
import sys

import numpy as np
import pytest

import embgeom
from embgeom import InputError
from embgeom._common.record import versions
from embgeom.comparison.results import TABLE_FORMATS
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


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_comparison_is_read_back(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    assert names(tmp_path) == ["out"]
    assert names(tmp_path / "out") == ["arrays.npz", "comparison.json", "tokens.csv"]
    with np.load(tmp_path / "out" / "arrays.npz", allow_pickle=False) as arrays:
        held = {"ids_a": comparison.match.ids_a, "ids_b": comparison.match.ids_b}
        held["sampled"] = comparison.sampled
        for side, local in (("a", comparison.local_a), ("b", comparison.local_b)):
            held[f"indices_{side}"] = local.neighbors.indices
            held[f"similarities_{side}"] = local.neighbors.similarities
            held[f"weights_{side}"] = local.lle.weights
            held[f"n_components_{side}"] = local.dimension.n_components
        assert set(arrays.files) == set(held)
        for name, array in held.items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)


def test_the_table_of_a_comparison(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    lines = read_csv(tmp_path / "out" / "tokens.csv")
    assert [line["token_a"] for line in lines] == tokens_with(HARD) == [line["token_b"] for line in lines]
    assert [int(line["row_a"]) for line in lines] == comparison.match.ids_a.tolist()
    # Numbers are written so that they are read back to the bit.
    assert [float(line["neighbor_overlap"]) for line in lines] == comparison.overlap.tolist()
    assert [float(line["weight_cosine"]) for line in lines] == comparison.weight_cosine.tolist()
    sampled = {i: int(line["n_components_b"]) for i, line in enumerate(lines) if line["n_components_b"]}
    components = comparison.local_b.dimension.n_components.tolist()
    expected = dict(zip(comparison.sampled.tolist(), components, strict=True))
    assert sampled == expected


def test_the_json_of_a_comparison(comparison, tmp_path):
    comparison.save(tmp_path / "out")
    content = json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8"))
    assert content["parameters"] == {
        "k": 5,
        "metric": "cosine",
        "reg": 1e-3,
        "dimension_k": 20,
        "dimension_sample": 20,
        "variance": 0.95,
        "seed": 7,
        "threads": comparison.options.threads,
    }
    found = [(m["name"], m["value"], m["shuffled"], m["gaussian"]) for m in content["statistics"]]
    assert found == [(m.name, m.value, m.shuffled, m.gaussian) for m in comparison.statistics]
    assert content["match"] == comparison.match.to_dict()
    assert content["versions"] == versions()
    assert set(versions()) == {"embgeom", "numpy", "tokenizers", "python", "machine"}
    assert versions()["embgeom"] == embgeom.__version__ and versions()["numpy"] == np.__version__
    assert [content["models"][side]["name"] for side in "ab"] == ["[bold]<b>&", "right"]


def test_undefined_numbers_become_null(tmp_path):
    # NaN is no JSON, and strict readers refuse a file that holds it.
    x = model(tokens_with([]))
    embgeom.compare(x, x, k=8, reg=0.0, dimension_sample=1).save(tmp_path / "out")
    text = (tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    statistics = {statistic["name"]: statistic for statistic in content["statistics"]}
    assert statistics["weight_cosine"]["value"] is None and statistics["dimension_pearson"]["value"] is None
    assert set(content["weight_cosine_quantiles"].values()) == {None}


def test_an_inspection_is_read_back(inspection, tmp_path):
    inspection.save(tmp_path / "out")
    assert names(tmp_path / "out") == ["arrays.npz", "inspection.json", "tokens.csv"]
    with np.load(tmp_path / "out" / "arrays.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {"norms", "sampled", "n_components", "participation_ratio"}
        np.testing.assert_array_equal(arrays["norms"], inspection.norms)
        np.testing.assert_array_equal(arrays["n_components"], inspection.dimension.n_components)
    lines = read_csv(tmp_path / "out" / "tokens.csv")
    tokens = tokens_with(HARD)
    assert [(int(line["row"]), line["token"]) for line in lines] == [
        (row, tokens[row]) for row in inspection.sampled
    ]
    content = json.loads((tmp_path / "out" / "inspection.json").read_text(encoding="utf-8"))
    assert content["parameters"] == inspection.parameters
    assert set(content["parameters"]) == {
        "dimension_k",
        "dimension_sample",
        "variance",
        "metric",
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
    again = embgeom.compare(*sources, **content["parameters"])
    assert [m["gaussian"] for m in content["statistics"]] == [m.gaussian for m in again.statistics]
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
    with pytest.raises(InputError, match=r"pip install 'embgeom\[parquet\]', or use csv"):
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
    squeezed = " ".join(text.split())
    for line in comparison.summary().splitlines():
        assert " ".join(line.split()) in squeezed
    comparison.to_html(str(tmp_path / "out.html"))
    assert (tmp_path / "out.html").read_text(encoding="utf-8") == page

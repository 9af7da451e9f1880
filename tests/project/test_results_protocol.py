"""Every public result keeps one protocol: text, plain types, HTML, a table, a file that reads back equal."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from safetensors.numpy import save_file

import embgeom
from embgeom._common.record import plain
from embgeom._common.result import Result, Tabular
from embgeom.comparison.saving import FolderResult
from embgeom.emb2emb import Forecast, Scores
from embgeom.evaluation import Certificate, Effect, Evaluation, Outcome, SideEffects, Sweep
from embgeom.evaluation.certificate import PromotedTokens
from embgeom.hidden_states import StateComparison, StateMeasure
from embgeom.hidden_states.comparison import MEASURES

TOKENS = [f"▁word{i}" for i in range(40)]


def outcome(kind, shift, name=None):
    values = np.array([shift, np.nan, 1.0])
    effect = Effect(shift, float("nan"), 0.5)
    return Outcome(
        name or kind, kind, (1, 2), 2.0, {"score": values}, {"score": effect}, SideEffects(9.0, 1.1, 0.2)
    )


def evaluation():
    outcomes = (outcome("transferred", 1.0), outcome("transferred_negated", -1.0))
    provenance = {"options": {"norms": {"1": 1.0}}, "vector": {"name": "mood"}}
    return Evaluation(outcomes, {"score": np.array([0.0, 1.0, 2.0])}, 8.0, provenance)


def sweep():
    grid = (outcome("setting", 1.0, "layer 1"), outcome("setting", 2.0, "layer 2"))
    choice, held_out = np.array([0, 2]), np.array([1, 3])
    unsteered = {"score": np.array([0.0, 1.0])}
    return Sweep(grid, grid[1], evaluation(), 0.5, choice, held_out, unsteered, 8.0, {"seed": 0})


def certificate():
    forecast = Forecast(
        1, 2, 0.7, 0.6, 0.8, 0.01, 0.1, 0.3, 0.1, 400, True, 0.5, None, 1.5, 0.3, 0.3, 1.2, float("nan")
    )
    tokens = PromotedTokens(2, ["' happy'"], ["' sad'"], ["' glad'"], ["' angry'"])
    model = {"name": "small", "matrix_sha256": "0" * 64}
    mapping = {"method": "ridge", "mode": "logits", "shuffle": False}
    scores = Scores(10, 0.5, 0.6, 0.7, 0.9, 20, 0.1, 0.1, 0.2, 0.1)
    return Certificate(
        source=model, target=model, vector={"model": "small"}, mapping=mapping, scores=scores, shuffled=None,
        forecasts=(forecast,), promoted=(tokens,), norms={2: 1.5}, length={"norm": "states"},
        evaluation=evaluation(), versions={"embgeom": "0.1"},
    )  # fmt: skip


def state_comparison():
    tables = np.random.default_rng(0).random((len(MEASURES), 3, 5))
    measures = tuple(
        StateMeasure(name, table, table / 2, None) for name, table in zip(MEASURES, tables, strict=True)
    )
    return StateComparison("small", "large", 3, 12, measures, {"seed": 1})


@cache
def results():
    rng = np.random.default_rng(0)
    a, b = (
        embgeom.Embeddings.from_array(rng.standard_normal((40, d)), TOKENS, special=TOKENS[:1], name=name)
        for d, name in ((4, "left"), (6, "right"))
    )
    neighbors = embgeom.knn(a, 3, rows=[5, 1, 7])
    found = [
        a,
        neighbors,
        embgeom.knn(a.matrix, 3, queries=b.matrix[:2, :4], metric="euclidean"),
        embgeom.lle(a, neighbors),
        embgeom.intrinsic_dimension(a, k=9),
        embgeom.row_stats(np.vstack([a.matrix, np.zeros((2, 4))])),
        embgeom.match(a, b),
        evaluation(),
        sweep(),
        state_comparison(),
        certificate(),
        certificate().forecasts[0],
        Scores(10, 0.5, 0.6, 0.7, float("nan"), 20, 0.1, 0.1, 0.2, float("nan")),
        embgeom.compare(a, b, k=4),
        embgeom.inspect(a),
        embgeom.inspect_token(a, "word3", k=4),
        embgeom.inspect_token([a, b], "word3", k=4),
    ]
    return {f"{type(result).__name__}-{place}": result for place, result in enumerate(found)}


def file_name(result):
    if isinstance(result, FolderResult):
        return "result"
    return "result.safetensors" if result._large else "result.json"


NAMES = sorted(results())
FILES = [name for name in NAMES if not isinstance(results()[name], FolderResult)]


@pytest.mark.parametrize("name", NAMES)
def test_text_and_html(name):
    result = results()[name]
    assert isinstance(result, Result)
    text = result.summary()
    assert text and max(map(len, text.splitlines())) <= 110
    html = result._repr_html_()
    assert html.startswith("<div") and "\x1b" not in html


@pytest.mark.parametrize("name", NAMES)
def test_plain_types(name):
    result = results()[name]
    described = result.to_dict()
    assert described["result"] == type(result).__name__
    assert json.loads(json.dumps(described, allow_nan=False)) == described


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_result_reads_back_equal(name, tmp_path):
    result = results()[name]
    path = tmp_path / file_name(result)
    result.save(path)
    loaded = type(result).load(path)
    written, read = {}, {}
    structure = plain(result, written)
    assert structure == plain(loaded, read) or "provenance" in structure
    assert repr(loaded) == repr(result) and loaded.summary() == result.summary()
    assert loaded.to_dict() == result.to_dict()
    for key, array in written.items():
        assert array.dtype == read[key].dtype
        np.testing.assert_array_equal(array, read[key])


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(name, tmp_path):
    result = results()[name]
    path = tmp_path / file_name(result)
    result.save(path)
    whole = path.read_bytes()
    damaged = [b"", b"{}", b"[1]", whole[: len(whole) // 2], whole.replace(b"result", b"resulf")]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(embgeom.LoadError, match=rf"result\.\w+ is not a saved {type(result).__name__}"):
            type(result).load(path)
    with pytest.raises(embgeom.LoadError, match="cannot be read"):
        type(result).load(tmp_path / "absent")
    with pytest.raises(embgeom.OutputError):
        result.save(tmp_path / "absent" / path.name)
    for name in ("result", "result.npz"):
        with pytest.raises(
            embgeom.OutputError, match=rf"{name} does not end in {path.suffix}, the format of"
        ):
            result.save(tmp_path / name)


@pytest.mark.parametrize("name", [name for name in NAMES if isinstance(results()[name], Tabular)])
def test_tables(name):
    pytest.importorskip("pandas", reason="pandas is not installed")
    result = results()[name]
    frame = result.to_pandas()
    assert list(frame.columns) == list(result.columns()) and len(frame) > 0


def test_a_missing_pandas_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(embgeom.InputError, match=r'needs pandas: pip install "embgeom\[pandas\]"'):
        embgeom.row_stats([[1.0]]).to_pandas()


def test_fields_that_do_not_belong_together_are_refused(tmp_path):
    path = tmp_path / "state.json"
    state_comparison().save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["positions"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(embgeom.LoadError, match="lacks 'positions'"):
        StateComparison.load(path)
    content["positions"] = "twelve"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(embgeom.LoadError, match="'twelve' is not of type"):
        StateComparison.load(path)


def test_a_model_is_not_written_over_its_file(tmp_path):
    path, saved = tmp_path / "weights.safetensors", tmp_path / "saved.safetensors"
    save_file({"embed_tokens.weight": np.eye(40, 4, dtype=np.float32)}, path)
    model = embgeom.load(path, vocabulary=TOKENS)
    with pytest.raises(embgeom.OutputError, match="which is read"):
        model.save(path)
    model.save(saved)
    path.unlink()
    again = embgeom.Embeddings.load(saved)
    assert again.provenance.sha256 == model.provenance.sha256 is not None
    assert not again.matrix.flags.writeable and again.row_of("word3") == 3


def test_a_saved_matrix_is_loaded_like_a_model_and_other_results_are_named(tmp_path):
    model = results()[NAMES[[name.split("-")[0] for name in NAMES].index("Embeddings")]]
    path = tmp_path / "saved.safetensors"
    model.save(path)
    loaded = embgeom.load(path)
    assert loaded.name == "left" and loaded.tokens == model.tokens
    np.testing.assert_array_equal(loaded.matrix, model.matrix)
    assert embgeom.load(path, "input").which == "input"
    with pytest.raises(embgeom.LoadError, match="holds the input side of left alone, not 'output'"):
        embgeom.load(path, "output")
    with pytest.raises(embgeom.InputError, match=r"vocabulary=.* has no meaning for .*its tokens"):
        embgeom.load(path, vocabulary=TOKENS)
    embgeom.inspect(model).save(tmp_path / "out")
    embgeom.knn(model, 3).save(tmp_path / "near.safetensors")
    for name, kind, place in (
        ("out", "Inspection", "out"),
        ("out/inspection.safetensors", "Inspection", "out"),
        ("near.safetensors", "Neighbors", "near.safetensors"),
    ):
        with pytest.raises(embgeom.LoadError, match=rf"saved {kind}: read it by {kind}\.load\('.*{place}'\)"):
            embgeom.load(tmp_path / name)

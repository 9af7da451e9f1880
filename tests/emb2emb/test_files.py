"""Maps in files: what is written is read again, and what does not fit is refused."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save, save_file

from embgeom import Emb2Emb, Embeddings, InputError, LoadError, OutputError, SteeringVector
from tests.helpers.emb2emb import LINEAR, fit, related

FORMAT = "embgeom"


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_round_trip(tmp_path, method):
    mapping = Emb2Emb.fit(*related(), method=method)
    mapping.save(tmp_path / "map.safetensors")
    again = Emb2Emb.load(tmp_path / "map.safetensors")
    v = np.random.default_rng(0).standard_normal((3, 12))
    for mode in ("primal", "logits"):
        np.testing.assert_array_equal(again.transfer(v, mode=mode), mapping.transfer(v, mode=mode))
    assert (again.scores, again.shuffled, again.method) == (mapping.scores, mapping.shuffled, mapping.method)
    assert (again.source, again.target, again.names) == (mapping.source, mapping.target, mapping.names)
    assert again.provenance == json.loads(json.dumps(mapping.provenance))


def test_equal_maps_are_equal_files(tmp_path):
    path = tmp_path / "map.safetensors"
    mapping = Emb2Emb.fit(*related(60, 3, 4))
    files = set()
    for _ in range(8):
        mapping.save(path)
        files.add(path.read_bytes())
    assert len(files) == 1


def test_files_that_are_no_maps(tmp_path):
    path = tmp_path / "map.safetensors"
    mapping = Emb2Emb.fit(*related(), held_out=0)
    with pytest.raises(OutputError, match="does not end in"):
        mapping.save(tmp_path / "map.npz")
    with pytest.raises(LoadError, match="cannot be read"):
        Emb2Emb.load(path)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(LoadError, match="is not a saved Emb2Emb: it holds something else"):
        Emb2Emb.load(path)
    mapping.save(path)
    with pytest.raises(LoadError, match="is a map of embgeom; a steering vector is expected"):
        SteeringVector.load(path)
    with pytest.raises(
        LoadError, match="is not a saved Embeddings: it holds a result of the class 'Emb2Emb'"
    ):
        Embeddings.load(path)
    SteeringVector({1: np.ones(3)}).save(path)
    with pytest.raises(LoadError, match="is not a saved Emb2Emb: it holds a steering vector"):
        Emb2Emb.load(path)
    mapping.save(path)
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for spoil, why in (
        ({"matrix": arrays["matrix"][:5]}, r"matrix has the shape \(5, 20\)"),
        ({"matrix": np.full_like(arrays["matrix"], np.nan)}, "NaN"),
        ({"matrix": None}, "there is no array 'matrix' of float64"),
    ):
        spoiled = {name: array for name, array in (arrays | spoil).items() if array is not None}
        save_file(spoiled, path, metadata)
        with pytest.raises(LoadError, match=why):
            Emb2Emb.load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LoadError, match="is not a saved Emb2Emb"):
        Emb2Emb.load(path)


def parts(path, method):
    """Return the tensors of a small map that was saved, and what the file says of it."""
    Emb2Emb.fit(*related(60, 3, 4), method=method).save(path)
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return arrays, json.loads(file.metadata()[FORMAT])


def write(path, arrays, about):
    text = about if isinstance(about, str) else json.dumps(about)
    save_file(arrays, path, {FORMAT: text})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    return {method: parts(folder / "m.safetensors", method) for method in ("ridge", "lle")}


ROWS = np.ones((54, 3), np.float32)


@pytest.mark.parametrize(
    ("method", "change", "why"),
    [
        ("lle", {"source_rows": ROWS.ravel()}, "source_rows has the shape"),
        ("lle", {"source_rows": ROWS[None]}, "source_rows has the shape"),
        ("lle", {"source_rows": ROWS[:, :2]}, r"source_rows has the shape \(54, 2\), not \(54, 3\)"),
        ("lle", {"target_rows": np.ones((9, 4), np.float32)}, r"target_rows has the shape \(9, 4\)"),
        ("lle", {"source_rows": np.zeros((54, 3), np.float32)}, "only 0 source rows are not zero"),
        ("lle", {"source_rows": ROWS.astype(np.float64)}, "no array 'source_rows' of float32"),
        ("lle", {"source_rows": ROWS.astype(np.int32)}, "no array 'source_rows' of float32"),
        ("lle", {"source_rows": ROWS[:0], "target_rows": np.ones((0, 4), np.float32)}, "0 tokens to fit on"),
        ("lle", {"target_rows": None}, "no array 'target_rows'"),
        ("lle", {"matrix": np.ones((3, 4))}, "also holds 'matrix'"),
        ("ridge", {"source_rows": ROWS}, "also holds 'source_rows'"),
        ("ridge", {"extra": ROWS}, "also holds 'extra'"),
        ("ridge", {"source_mean": np.ones((3, 1))}, r"source_mean has the shape \(3, 1\)"),
        ("ridge", {"source_mean": np.array(1.0)}, r"source_mean has the shape \(\)"),
        (
            "ridge",
            {"source_mean": np.ones(0), "matrix": np.ones((0, 4))},
            r"source_mean has the shape \(0,\)",
        ),
        ("ridge", {"source_mean": None}, "no array 'source_mean'"),
        ("ridge", {"source_mean": np.array([1.0, np.inf, 0.0])}, "source_mean is NaN or infinite"),
        ("ridge", {"source_mean": np.ones(4)}, "has the shape"),
        ("ridge", {"matrix": np.ones(3)}, r"matrix has the shape \(3,\)"),
        ("ridge", {"matrix": np.ones((3, 4), np.int64)}, "no array 'matrix' of float64"),
        ("ridge", {"matrix": np.ones((3, 4), np.float16)}, "no array 'matrix' of float64"),
        ("ridge", {"matrix": np.ones((3, 4), np.float32)}, "no array 'matrix' of float64"),
        ("ridge", {"matrix": np.ones((3, 4), bool)}, "no array 'matrix' of float64"),
        ("ridge", {"logits_matrix": np.ones((4, 3))}, r"logits_matrix has the shape \(4, 3\)"),
        ("ridge", {"logits_matrix": None}, "no array 'logits_matrix'"),
    ],
)
def test_tensors_that_make_no_map(saved, tmp_path, method, change, why):
    arrays, about = saved[method]
    spoiled = {name: array for name, array in (arrays | change).items() if array is not None}
    write(tmp_path / "m.safetensors", spoiled, about)
    with pytest.raises(LoadError, match=why):
        Emb2Emb.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("method", "place", "value", "why"),
    [
        ("ridge", ["result"], "Scores", "it holds a result of the class 'Scores'"),
        ("ridge", ["method", "name"], "magic", "NeighborWeights lacks"),
        ("ridge", ["method"], ["ridge"], r"\['ridge'\] is not"),
        ("ridge", ["method"], {"ridge": 1}, "NeighborWeights lacks"),
        ("ridge", ["method", "strength"], 0.0, "is not"),
        ("ridge", ["method", "center"], 1, "is not"),
        ("ridge", ["method"], {"name": "lle", "k": 2, "reg": 0.1, "center": True}, "has no matrix"),
        ("ridge", ["matrix"], None, "also holds 'matrix'|needs matrix"),
        ("ridge", ["matrix"], [[1.0]], "matrix has the shape|also holds 'matrix'"),
        ("ridge", ["provenance"], None, "None is not of type"),
        ("ridge", ["provenance"], [1], "is not of type"),
        ("ridge", ["names"], "ab", "'ab' is not of type"),
        ("ridge", ["names"], ["a"], "shorter|longer"),
        ("ridge", ["names"], [1, 2], "1 is not of type"),
        ("ridge", ["source"], None, "is not"),
        ("ridge", ["source", "name"], 1, "1 is not of type"),
        ("ridge", ["target", "num_layers"], 2.5, "2.5 is not of type"),
        ("ridge", ["target", "num_layers"], True, "True is not of type"),
        ("ridge", ["target", "aliases"], "a", "'a' is not of type"),
        ("ridge", ["scores"], [1], r"is not"),
        ("ridge", ["scores"], False, "is not"),
        ("ridge", ["scores"], {}, "Scores lacks 'tokens'"),
        ("ridge", ["shuffled", "r2"], "high", "'high' is not of type"),
        ("ridge", ["scores", "cosine"], True, "True is not of type"),
        ("ridge", ["scores", "r2"], 10**400, "too large"),
        ("ridge", ["scores", "r2"], 10**40, "not a score"),
        ("ridge", ["scores", "tokens"], 10**40, "not a score"),
        ("ridge", ["scores", "tokens"], 2.5, "2.5 is not of type"),
        ("ridge", ["provenance", "fit", "gcv"], float("inf"), "JSON compliant"),
        ("lle", ["method", "k"], 2.0, "2.0 is not of type"),
        ("lle", ["method", "k"], "2", "'2' is not of type"),
        ("lle", ["method", "k"], True, "True is not of type"),
        ("lle", ["method", "k"], None, "None is not of type"),
        ("lle", ["method", "k"], 0, r"k = 0 must be at least 1"),
        ("lle", ["method", "k"], 55, r"k = 55 is outside \[1, 54\]"),
        ("lle", ["method", "reg"], 0, "reg = 0"),
        ("lle", ["method", "reg"], -1, "reg = -1"),
        ("lle", ["method", "reg"], [1], "is not of type"),
        ("lle", ["method", "reg"], "1", "is not of type"),
        ("lle", ["method", "reg"], 10**400, "too large"),
    ],
)
def test_words_that_make_no_map(saved, tmp_path, method, place, value, why):
    arrays, about = copy.deepcopy(saved[method])
    inner = about
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    write(tmp_path / "m.safetensors", arrays, about)
    with pytest.raises(LoadError, match=why):
        Emb2Emb.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not a saved Emb2Emb"),
        ("[]", "it holds something else"),
        ("null", "it holds something else"),
        ("{", "is not a saved Emb2Emb"),
        ("[" * 100_000, "recursion"),
        ('{"result": "Emb2Emb", "provenance": ' + "1" * 5000 + "}", "is not a saved Emb2Emb"),
        ("{}", "it holds something else"),
        ('{"result": "Emb2Emb"}', "Emb2Emb lacks 'method'"),
    ],
)
def test_texts_that_are_no_words_of_a_map(saved, tmp_path, text, why):
    path = tmp_path / "m.safetensors"
    write(path, saved["ridge"][0], text)
    with pytest.raises(LoadError, match=why):
        Emb2Emb.load(path)


def test_files_without_words_and_things_that_are_no_files(saved, tmp_path):
    path = tmp_path / "m.safetensors"
    save_file(saved["ridge"][0], path, {"format": "pt"})
    with pytest.raises(LoadError, match="is not a saved Emb2Emb: it holds something else"):
        Emb2Emb.load(path)
    path.write_bytes(b"")
    for odd in (path, tmp_path, 5, None, "\0"):
        with pytest.raises(LoadError):
            Emb2Emb.load(odd)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def spots(thing, path=()):
    """Give the places of all values in a JSON object."""
    for key, value in thing.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from spots(value, (*path, key))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_that_was_changed_gives_a_whole_map_or_says_why(saved, tmp_path, data):
    method = data.draw(st.sampled_from(["ridge", "lle"]))
    arrays, about = copy.deepcopy(saved[method])
    for _ in range(data.draw(st.integers(0, 2))):
        place = data.draw(st.sampled_from(list(spots(about))))
        inner = about
        for key in place[:-1]:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner[place[-1]] = data.draw(JSON)
    written = bytearray(save(arrays, {FORMAT: json.dumps(about)}))
    for _ in range(data.draw(st.integers(0, 3))):
        written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.safetensors"
    path.write_bytes(written)
    try:
        found = Emb2Emb.load(path)
    except LoadError as error:
        assert str(path) in str(error)
        return
    assert found.summary().startswith("Emb2Emb(")
    vector = SteeringVector({0: np.ones(3)})
    try:
        assert np.isfinite(found.transfer(np.ones(3))).all()
        assert found.transfer(vector, norm="raw").hidden_size == 4
    except InputError as error:
        # A byte of a matrix may make it any number, and a changed depth is believed.
        assert "beyond float32" in str(error) or "layers" in str(error)
    found.save(path)
    assert Emb2Emb.load(path).provenance == found.provenance


def test_provenance_that_no_file_holds(tmp_path):
    made = fit(*related())
    for odd in ({1, 2}, float("nan"), np.ones(2)):
        with pytest.raises(InputError, match="provenance of the map cannot be written"):
            replace(made, provenance={**made.provenance, "odd": odd})
        changed = replace(made, provenance=dict(made.provenance))
        changed.provenance["odd"] = odd
        with pytest.raises(InputError, match="provenance of the map cannot be written"):
            changed.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_undefined_r2_is_kept(tmp_path):
    made = Emb2Emb.fit(*related())
    made = replace(made, scores=replace(made.scores, r2=float("nan")))
    made.save(tmp_path / "m.safetensors")
    again = Emb2Emb.load(tmp_path / "m.safetensors").scores
    assert np.isnan(again.r2) and again.cosine == made.scores.cosine


def test_vectors_transferred_beyond_float32_are_refused():
    made = fit(*related())
    made = replace(made, matrix=made.matrix * 1e300)
    with pytest.raises(InputError, match="beyond float32"):
        made.transfer(np.full(12, 1e20), mode="primal")

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

from embgeom import Emb2Emb, InputError, LoadError, OutputError, SteeringVector
from tests.helpers.emb2emb import LINEAR, fit, related

FORMAT = "embgeom.emb2emb/1"


@pytest.mark.parametrize("method", [*LINEAR, "lle"])
def test_round_trip(tmp_path, method):
    mapping = Emb2Emb.fit(*related(), method=method)
    mapping.save(tmp_path / "map.safetensors")
    again = Emb2Emb.load(tmp_path / "map.safetensors")
    v = np.random.default_rng(0).standard_normal((3, 12))
    for mode in ("primal", "logits"):
        np.testing.assert_array_equal(again.transfer(v, mode=mode), mapping.transfer(v, mode=mode))
    assert (again.scores, again.shuffled, again.method) == (mapping.scores, mapping.shuffled, method)
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
    with pytest.raises(LoadError, match="no map of this version"):
        Emb2Emb.load(path)
    mapping.save(path)
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for spoil, why in (
        ({"matrix": arrays["matrix"][:5]}, r"matrix has the shape \(5, 20\)"),
        ({"matrix": np.full_like(arrays["matrix"], np.nan)}, "NaN"),
        ({"matrix": None}, "lacks 'matrix'"),
    ):
        spoiled = {name: array for name, array in (arrays | spoil).items() if array is not None}
        save_file(spoiled, path, metadata)
        with pytest.raises(LoadError, match=why):
            Emb2Emb.load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(LoadError, match="cannot be read"):
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
        ("lle", {"source_rows": ROWS[:, :2]}, "widths"),
        ("lle", {"target_rows": np.ones((9, 4), np.float32)}, "its rows have the shapes"),
        ("lle", {"source_rows": np.zeros((54, 3), np.float32)}, "only 0 source rows are not zero"),
        ("lle", {"source_rows": ROWS.astype(np.float64)}, "source_rows is of type F64, not F32"),
        ("lle", {"source_rows": ROWS.astype(np.int32)}, "source_rows is of type I32"),
        ("lle", {"source_rows": ROWS[:0], "target_rows": np.ones((0, 4), np.float32)}, "shape"),
        ("lle", {"target_rows": None}, "lacks 'target_rows'"),
        ("lle", {"matrix": np.ones((3, 4))}, "holds 'matrix', which no map of method 'lle' has"),
        ("ridge", {"source_rows": ROWS}, "holds 'source_rows'"),
        ("ridge", {"extra": ROWS}, "holds 'extra'"),
        ("ridge", {"source_mean": np.ones((3, 1))}, r"source_mean has the shape \(3, 1\)"),
        ("ridge", {"source_mean": np.array(1.0)}, r"source_mean has the shape \(\)"),
        ("ridge", {"source_mean": np.ones(0), "matrix": np.ones((0, 4))}, "shape"),
        ("ridge", {"source_mean": None}, "lacks 'source_mean'"),
        ("ridge", {"source_mean": np.array([1.0, np.inf, 0.0])}, "source_mean is NaN or infinite"),
        ("ridge", {"source_mean": np.ones(4)}, "has the shape"),
        ("ridge", {"matrix": np.ones(3)}, r"matrix has the shape \(3,\)"),
        ("ridge", {"matrix": np.ones((3, 4), np.int64)}, "matrix is of type I64, not F64"),
        ("ridge", {"matrix": np.ones((3, 4), np.float16)}, "matrix is of type F16"),
        ("ridge", {"matrix": np.ones((3, 4), np.float32)}, "matrix is of type F32"),
        ("ridge", {"matrix": np.ones((3, 4), bool)}, "matrix is of type BOOL"),
        ("ridge", {"logits_matrix": np.ones((4, 3))}, r"logits_matrix has the shape \(4, 3\)"),
        ("ridge", {"logits_matrix": None}, "lacks 'logits_matrix'"),
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
        ("ridge", ["method"], "magic", "its method is 'magic'"),
        ("ridge", ["method"], ["ridge"], r"its method is \['ridge'\]"),
        ("ridge", ["method"], {"ridge": 1}, "its method is"),
        ("ridge", ["method"], "lle", "lacks 'source_rows'"),
        ("ridge", ["provenance"], None, "its provenance is a NoneType"),
        ("ridge", ["provenance"], [1], "its provenance is a list"),
        ("ridge", ["provenance", "names"], "ab", "its names are 'ab'"),
        ("ridge", ["provenance", "names"], ["a"], "its names are"),
        ("ridge", ["provenance", "names"], [1, 2], "its names are"),
        ("ridge", ["provenance", "names"], ["\ud800", "a"], "surrogates"),
        ("ridge", ["scores"], [1], r"its scores are \[1\]"),
        ("ridge", ["scores"], False, "its scores are False"),
        ("ridge", ["scores"], {}, "its scores are"),
        ("ridge", ["scores", "more"], 1, "its scores are"),
        ("ridge", ["shuffled", "r2"], "high", "r2 in its shuffled is 'high'"),
        ("ridge", ["scores", "cosine"], None, "cosine in its scores is None"),
        ("ridge", ["scores", "cosine"], True, "cosine in its scores is True"),
        ("ridge", ["scores", "r2"], 10**400, "r2 in its scores"),
        ("ridge", ["scores", "tokens"], 2.5, "tokens in its scores is 2.5"),
        ("ridge", ["scores", "r2"], float("nan"), "a number in it is NaN"),
        ("ridge", ["provenance", "fit", "gcv"], float("inf"), "a number in it is Infinity"),
        ("lle", ["k"], 2.0, "k must be a whole number"),
        ("lle", ["k"], "2", "no two numbers"),
        ("lle", ["k"], True, "no two numbers"),
        ("lle", ["k"], None, "k must be a whole number"),
        ("lle", ["k"], 0, r"k = 0 is outside \[1, 54\]"),
        ("lle", ["k"], 55, r"k = 55 is outside \[1, 54\]"),
        ("lle", ["reg"], 0, "reg = 0"),
        ("lle", ["reg"], -1, "reg = -1"),
        ("lle", ["reg"], [1], "reg must be a number"),
        ("lle", ["reg"], "1", "no two numbers"),
        ("lle", ["reg"], 10**400, "reg must be a number"),
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
        ("", "no complete map"),
        ("[]", "what it says of itself is a list"),
        ("null", "what it says of itself is a NoneType"),
        ("{", "no complete map"),
        ("[" * 100_000, "recursion"),
        ('{"provenance": 1e999}', "1e999, neither finite nor JSON"),
        ('{"provenance": ' + "1" * 5000 + "}", "no complete map"),
        ("{}", "lacks 'method'"),
        ('{"method": "ridge"}', "lacks 'provenance'"),
        ('{"method": "ridge", "provenance": {}}', "lacks 'scores'"),
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
    with pytest.raises(LoadError, match="no map of this version"):
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
        assert found.transfer(vector).width == 4
    except InputError as error:
        # A byte of a matrix may make it any number, and a changed depth is believed.
        assert "beyond float32" in str(error) or "layers" in str(error)
    found.save(path)
    assert Emb2Emb.load(path).provenance == found.provenance


def test_provenance_that_no_file_holds(tmp_path):
    made = fit(*related())
    for odd in ({1, 2}, float("nan"), np.ones(2)):
        spoiled = replace(made, provenance={**made.provenance, "odd": odd})
        with pytest.raises(InputError, match="provenance of the map cannot be written"):
            spoiled.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_undefined_r2_is_kept(tmp_path):
    made = Emb2Emb.fit(*related())
    made = replace(made, scores=replace(made.scores, r2=float("nan")))
    made.save(tmp_path / "m.safetensors")
    again = Emb2Emb.load(tmp_path / "m.safetensors").scores
    assert np.isnan(again.r2) and again.cosine == made.scores.cosine


def test_vectors_carried_beyond_float32_are_refused():
    made = fit(*related())
    made = replace(made, matrix=made.matrix * 1e300)
    with pytest.raises(InputError, match="beyond float32"):
        made.transfer(np.full(12, 1e20), mode="primal")

"""The cache gives the bits that are computed without it, and nothing that is damaged or of other input."""

import inspect
import os
import stat
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embgeom
from embgeom import EmbgeomWarning, InputError, global_similarity, intrinsic_dimension, knn, lle
from embgeom._common.record import plain
from embgeom.comparison import classify, kept_rows
from embgeom.runs import cache as module
from embgeom.runs import requests
from embgeom.runs.cache import KINDS, ResultCache, requested, use_cache
from tests.helpers.cached import computed, same

X = np.random.default_rng(0).standard_normal((120, 9)).astype(np.float32)
Y = np.random.default_rng(1).standard_normal((120, 7)).astype(np.float32)
NEAR = knn(X, 6)
FUNCTIONS = {"knn": knn, "lle": lle, "intrinsic_dimension": intrinsic_dimension}
FUNCTIONS["global_similarity"] = global_similarity
BASE = {
    "knn": {"x": X, "k": 10},
    "lle": {"x": X, "neighbors": NEAR},
    "intrinsic_dimension": {"x": X, "k": 30},
    "global_similarity": {"a": X, "b": Y},
}
# Another value for each parameter, with which the function returns something else.
OTHER = {
    "knn": {
        "x": Y, "k": 11, "queries": X[:5], "rows": [3, 1], "metric": "euclidean", "exclude_self": False,
        "center": True,
    },
    "lle": {"x": Y, "neighbors": NEAR.indices[:, :5], "reg": 1e-2, "rows": [0]},
    "intrinsic_dimension": {
        "x": Y, "neighbors": NEAR, "k": 31, "variance": 0.9, "rows": [3, 1], "metric": "euclidean",
        "center": True,
    },
    "global_similarity": {
        "a": Y, "b": X, "center": True, "sample": 20, "include_diagonal": True, "seed": 3,
    },
}  # fmt: skip
OUTPUT_ALONE = {"threads", "progress"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def key(function, options):
    request = requested(function, (), options, module.array_digest)
    return request.file


@pytest.mark.parametrize("name", KINDS)
def test_a_result_is_read_with_the_same_bits(name, folder):
    with use_cache(folder) as cached:
        one, first = computed(cached, FUNCTIONS[name], **BASE[name])
    with use_cache(folder) as cached:
        two, second = computed(cached, FUNCTIONS[name], **BASE[name], threads=2)
    assert first and not second
    same(one, two)
    same(one, FUNCTIONS[name](**BASE[name]))


@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_is_part_of_the_key(name):
    function, seen = FUNCTIONS[name], {key(FUNCTIONS[name], BASE[name]): "base"}
    parameters = inspect.signature(function).parameters
    assert OTHER[name].keys() == parameters.keys() - OUTPUT_ALONE
    for parameter, value in OTHER[name].items():
        changed = key(function, {**BASE[name], parameter: value})
        assert changed not in seen, f"{parameter} gives the key of {seen[changed]}"
        seen[changed] = parameter
    for parameter in OUTPUT_ALONE:
        assert key(function, {**BASE[name], parameter: 1}) in seen


def test_only_functions_with_kept_results(folder):
    with use_cache(folder) as cached:
        with pytest.raises(InputError, match=r"keeps results of knn, .* not of row_stats"):
            cached(embgeom.row_stats, X)
        with pytest.raises(InputError, match="k = 0 must be at least 1"):
            cached(knn, X, 0)
        with pytest.raises(InputError, match=r"outside \[1, 119\]"):
            cached(knn, X, 120)
    assert not folder.exists()


@given(
    dtype=st.sampled_from([np.float32, np.float64, np.float16]),
    order=st.sampled_from("CF"),
    row=st.integers(0, 119),
    bit=st.integers(0, 22),
)
def test_the_numbers_are_the_key_not_how_they_are_stored(dtype, order, row, bit):
    x = np.asarray(X.astype(np.float16).astype(dtype), order=order)
    request = {"x": x, "k": 3}
    assert key(knn, request) == key(knn, {"x": X.astype(np.float16).astype(np.float32), "k": 3})
    other = X.copy()
    other.view(np.uint32)[row, 0] ^= 1 << bit
    assert key(knn, {"x": other, "k": 3}) != key(knn, {"x": X, "k": 3})
    assert key(knn, {"x": X.reshape(120 * 3, 3), "k": 3}) != key(knn, {"x": X, "k": 3})


@settings(max_examples=25)
@given(
    k=st.integers(1, 20),
    rows=st.none() | st.lists(st.integers(0, 119), min_size=1, max_size=9),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
def test_fewer_neighbors_and_some_rows_are_cut_from_more(tmp_path_factory, k, rows, metric):
    with use_cache(tmp_path_factory.mktemp("cache")) as cached:
        cached(knn, X, 20, metric=metric)
        found, new = computed(cached, knn, X, k, rows=rows, metric=metric)
        same(found, knn(X, k, rows=rows, metric=metric))
        assert not new
        cached(intrinsic_dimension, X, k=30)
        found, new = computed(cached, intrinsic_dimension, X, k=30, rows=rows)
        same(found, intrinsic_dimension(X, k=30, rows=rows))
        assert not new


def test_more_is_never_read_from_less(folder):
    with use_cache(folder) as cached:
        for options in ({"k": 5}, {"k": 9, "rows": [2, 1]}, {"k": 9}, {"k": 10, "rows": [1]}):
            assert computed(cached, knn, X, **options)[1]
        # The dimension over fewer neighbors is not part of that over more, nor are the weights.
        for k in (40, 30):
            assert computed(cached, intrinsic_dimension, X, k=k)[1]
        for k in (9, 5):
            assert computed(cached, lle, X, knn(X, k))[1]


def test_tokens_come_from_the_matrix_and_must_agree(folder):
    a, b = (embgeom.Embeddings.from_array(X, [f"{letter}{i}" for i in range(120)]) for letter in "ab")
    with use_cache(folder) as cached:
        near, _ = computed(cached, knn, X, 4)
        assert near.tokens is None
        for model in (a, b):
            found, new = computed(cached, knn, model, 4)
            assert not new and found.tokens == model.tokens
            same(found, knn(model, 4))
        cached(lle, a, knn(a, 4))
        with pytest.raises(InputError, match="different tokens"):
            cached(lle, a, knn(b, 4))
        cached(global_similarity, a, a)
        with pytest.raises(InputError, match="different tokens"):
            cached(global_similarity, a, b)


@pytest.mark.parametrize("rows", [None, [5, 3, 100]])
@pytest.mark.parametrize("x_has", [False, True])
@pytest.mark.parametrize("neighbors_have", [None, False, True])
@pytest.mark.parametrize("function", [lle, intrinsic_dimension])
def test_a_hit_equals_the_plain_call(folder, function, neighbors_have, x_has, rows):
    named = embgeom.Embeddings.from_array(X, [f"w{i}" for i in range(120)])
    near = knn(named if neighbors_have else X, 6, rows=rows)
    arguments = (named if x_has else X, near.indices if neighbors_have is None else near)
    options = {"rows": rows} if neighbors_have is None else {}
    with use_cache(folder) as cached:
        # What is kept may have come from a call with or without tokens.
        cached(function, X, near.indices, rows=rows)
        found, new = computed(cached, function, *arguments, **options)
        assert not new
        same(found, function(*arguments, **options))
        assert (found.tokens is None) == (not x_has and not neighbors_have)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= 4
    path.write_bytes(data)


@settings(max_examples=25)
@given(position=st.integers(0, 10**6))
def test_what_was_damaged_is_computed_again(tmp_path_factory, position):
    folder = tmp_path_factory.mktemp("cache")
    with use_cache(folder) as cached:
        right = cached(knn, X, 5, rows=[3, 1, 2])
        (path,) = folder.glob("*.safetensors")
        flip(path, position)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found, new = computed(cached, knn, X, 5, rows=[3, 1, 2])
        same(found, right)
        assert new and len(told) == 1 and "is damaged" in str(told[0].message)
        assert not computed(cached, knn, X, 5, rows=[3, 1, 2])[1]


@pytest.mark.parametrize("length", [0, 7, 300, -1])
def test_what_was_cut_off_or_exchanged_is_computed_again(folder, length):
    with use_cache(folder) as cached:
        cached(knn, X, 5)
        (path,) = folder.glob("*.safetensors")
        path.write_bytes(path.read_bytes()[:length])
        with pytest.warns(EmbgeomWarning, match="is damaged"):
            assert computed(cached, knn, X, 5)[1]
        cached(knn, Y, 5)
        other = next(each for each in folder.glob("*.safetensors") if each != path)
        path.write_bytes(other.read_bytes())
        with pytest.warns(EmbgeomWarning, match="another result"):
            assert computed(cached, knn, X, 5)[1]


@pytest.mark.parametrize("kept", [{"k": 5}, {"k": 9, "rows": [3, 1, 2]}])
def test_a_file_under_the_name_of_another_result_is_not_read(folder, kept):
    with use_cache(folder) as cached:
        cached(knn, X, **kept)
        (path,) = folder.glob("*.safetensors")
        path.rename(folder / key(knn, {"x": X, "k": 9}))
        with pytest.warns(EmbgeomWarning, match="another result"):
            found, new = computed(cached, knn, X, 9)
        assert new
        same(found, knn(X, 9))


@pytest.mark.parametrize(("owner", "name"), [(requests, "build_digest"), (requests.core, "instruction_set")])
def test_another_build_or_processor_finds_nothing(folder, monkeypatch, owner, name):
    with use_cache(folder) as cached:
        cached(knn, X, 5)
        assert not computed(cached, knn, X, 5)[1]
        monkeypatch.setattr(owner, name, lambda: "another")
        assert computed(cached, knn, X, 5)[1]


ARRAYS = {
    "knn": {"indices", "similarities"},
    "lle": {"weights", "residuals", "status", "indices"},
    "intrinsic_dimension": {
        "n_components", "participation_ratio", "explained_variance_ratio", "decided_in_float64",
    },
    "global_similarity": set(),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_arrays_of_kept_results_have_a_row_for_each_token(name):
    """Rows are cut from these: an array of another kind needs another cut."""
    arrays = {}
    plain(FUNCTIONS[name](**BASE[name]), arrays)
    assert arrays.keys() == ARRAYS[name] and {len(array) for array in arrays.values()} <= {len(X)}


def test_many_writers_and_readers(folder):
    def work(seed):
        with use_cache(folder) as cached:
            return [cached(knn, X, 5, rows=[(seed + i) % 7]) for i in range(12)]

    with ThreadPoolExecutor(6) as pool:
        for seed, results in enumerate(pool.map(work, range(6))):
            for i, result in enumerate(results):
                same(result, knn(X, 5, rows=[(seed + i) % 7]))
    assert sorted({path.suffix for path in folder.iterdir()}) == [".safetensors"]
    assert len(ResultCache(folder).entries()) == 7


@pytest.mark.parametrize("cleared", [False, True])
def test_a_killed_writer_leaves_nothing_that_is_read(folder, cleared):
    program = """
        import os, sys, signal
        import numpy as np
        from embgeom import knn
        from embgeom.runs import cache
        whole = cache.save_tensors
        def killed(arrays, path, header):
            whole(arrays, path, header)
            os.kill(os.getpid(), signal.SIGKILL)
        cache.save_tensors = killed
        x = np.random.default_rng(0).standard_normal((120, 9)).astype(np.float32)
        with cache.use_cache(sys.argv[1]) as cached:
            cached(knn, x, 5)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(folder)], check=False)
    assert done.returncode == -9 and not list(folder.glob("*.safetensors")) and any(folder.iterdir())
    if cleared:
        ResultCache(folder).clear()
        assert not any(folder.iterdir())
    with use_cache(folder) as cached:
        assert computed(cached, knn, X, 5)[1]
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_others_can_read_what_is_kept(folder):
    with use_cache(folder) as cached:
        cached(lle, X, NEAR)
    (path,) = folder.glob("*.safetensors")
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def refused(*_, **__):
    raise PermissionError(1, "Operation not permitted")


def test_a_cache_that_can_only_be_read_serves(folder, monkeypatch):
    with use_cache(folder) as cached:
        cached(knn, X, 5)
        monkeypatch.setattr(os, "utime", refused)
        assert not computed(cached, knn, X, 5)[1]


def test_what_cannot_be_read_is_computed_and_stays(folder, monkeypatch):
    with use_cache(folder) as cached:
        right = cached(knn, X, 5)
        (path,) = folder.glob("*.safetensors")
        before = path.read_bytes()
        monkeypatch.setattr(module, "_read", refused)
        monkeypatch.setattr(ResultCache, "keep", lambda *_: None)
        found, new = computed(cached, knn, X, 5)
        assert new and path.read_bytes() == before
        same(found, right)


@pytest.mark.parametrize("rows", [None, [5, 3, 100]])
@pytest.mark.parametrize("task", ["knn", "lle", "dimension"])
def test_a_run_in_a_folder_keeps_its_result_and_reads_it(folder, tmp_path, task, rows, monkeypatch):
    model = embgeom.Embeddings.from_array(X, [f"w{i}" for i in range(120)])
    options = {"k": 8, "rows": rows}
    with use_cache(folder) as cached:
        result = embgeom.run(task, model, tmp_path / task, **options)
        assert not (tmp_path / task / "blocks").exists()
        if task == "dimension":
            same(embgeom.intrinsic_dimension(model, **options), result)
            assert not computed(cached, intrinsic_dimension, model, **options)[1]
        else:
            near, new = computed(cached, knn, model, **options)
            same(near, knn(model, **options))
            assert not new
            assert computed(cached, lle, model, near)[1] == (task == "knn")
        monkeypatch.setattr("embgeom.runs.run.compute_here", None)
        same(embgeom.run(task, model, tmp_path / "again", **options), result)


def test_a_run_feeds_an_inspection(folder, tmp_path):
    model = embgeom.load("example:small")
    model = model.select(kept_rows(classify(model)))
    with use_cache(folder):
        embgeom.run("knn", model, tmp_path / "run", k=40, center=True)
        inspection = embgeom.inspect(model, dimension_k=40, dimension_sample=50, without=())
    assert inspection.from_cache == ["knn of example:small"]
    again = embgeom.inspect(model, dimension_k=40, dimension_sample=50, without=())
    same(inspection.dimension, again.dimension)


@pytest.mark.parametrize("shared", [120, 119])
def test_a_comparison_reads_runs_whose_tokens_are_all_shared(folder, tmp_path, shared):
    names = [f"w{i}" for i in range(120)]
    a = embgeom.Embeddings.from_array(X, names, name="a")
    b = embgeom.Embeddings.from_array(Y[:shared], names[:shared], name="b")
    options = {"k": 4, "dimension_k": 30, "dimension_sample": 50}
    with use_cache(folder):
        for task, k in (("knn", 4), ("dimension", 30)):
            embgeom.run(task, a, tmp_path / task, k=k, center=True)
        comparison = embgeom.compare(a, b, **options)
        again = embgeom.compare(a, b, **options, seed=1)
        other = embgeom.compare(a, b, **options, reg=1e-2)
    read = ["knn of a", "intrinsic_dimension of a"]
    assert comparison.from_cache == (read if shared == 120 else [])
    same(comparison.statistics, embgeom.compare(a, b, **options).statistics)
    kept = {f"{name} of {model}" for name in ("knn", "lle") for model in "ab"}
    assert set(again.from_cache) - set(read[1:]) == kept
    assert set(other.from_cache) == {each.replace("lle", "intrinsic_dimension") for each in kept} | set(
        read[:1]
    )

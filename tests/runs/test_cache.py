"""The cache gives the bits that are computed without it, and nothing that is damaged or of other input."""

import inspect
import json
import os
import stat
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embgeom
from embgeom import EmbgeomWarning, InputError, global_similarity, intrinsic_dimension, knn, lle
from embgeom._common.record import plain
from embgeom.runs import cache as module
from embgeom.runs.cache import KINDS, ResultCache, requested, use_cache

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
    },
    "lle": {"x": Y, "neighbors": NEAR.indices[:, :5], "reg": 1e-2, "rows": [0]},
    "intrinsic_dimension": {
        "x": Y, "neighbors": NEAR, "k": 31, "variance": 0.9, "rows": [3, 1], "metric": "euclidean",
    },
    "global_similarity": {
        "a": Y, "b": X, "center": True, "sample": 20, "include_diagonal": True, "seed": 3,
    },
}  # fmt: skip
OUTPUT_ALONE = {"threads", "progress"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def computed(cached, function, *arguments, **options):
    """Return a result, and whether it was computed."""
    before = len(cached.served)
    return cached(function, *arguments, **options), len(cached.served) == before


def same(one, other):
    a, b = {}, {}
    assert type(one) is type(other) and plain(one, a) == plain(other, b) and a.keys() == b.keys()
    for name, array in a.items():
        assert (array.dtype, array.shape) == (b[name].dtype, b[name].shape)
        assert array.tobytes() == b[name].tobytes() and array.flags.c_contiguous, name


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


@settings(max_examples=25)
@given(
    held=st.lists(st.integers(0, 119), min_size=1, max_size=30),
    asked=st.lists(st.integers(0, 119), min_size=1, max_size=5),
)
def test_rows_are_cut_from_rows_that_hold_them_all(tmp_path_factory, held, asked):
    for rows in (asked, held[::-1], held[: len(held) // 2 + 1]):
        with use_cache(tmp_path_factory.mktemp("cache")) as cached:
            cached(knn, X, 5, rows=held)
            found, new = computed(cached, knn, X, 4, rows=rows)
            same(found, knn(X, 4, rows=rows))
            assert new == (not set(rows) <= set(held))


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


def test_another_version_of_the_kernels_finds_nothing(folder, monkeypatch):
    with use_cache(folder) as cached:
        cached(knn, X, 5)
        monkeypatch.setattr(module, "NUMERICS", module.NUMERICS + 1)
        assert computed(cached, knn, X, 5)[1]


def test_the_fields_of_kept_results_are_known():
    """Whoever adds a field to one of these raises NUMERICS, and sees that a part of it can be cut."""
    names = {
        name: [field.name for field in fields(kind)] for name, kind in KINDS.items() if kind is not float
    }
    for name, result in (
        ("knn", NEAR),
        ("lle", lle(X, NEAR)),
        ("intrinsic_dimension", intrinsic_dimension(X, k=9)),
    ):
        by_token = [each for each in names[name] if isinstance(getattr(result, each), np.ndarray)]
        assert all(len(getattr(result, each)) == len(X) for each in by_token), by_token


def test_the_limit_removes_what_is_unused_for_longest(folder, monkeypatch):
    with use_cache(folder) as cached:
        for age, seed in enumerate((1, 2, 3)):
            cached(knn, X, 20, rows=range(seed, seed + 100))
            for path in folder.glob("*.safetensors"):
                os.utime(path, (stat := path.stat().st_mtime - 100 * age, stat))
        limit = ResultCache(folder).size() + 6500
        assert not computed(cached, knn, X, 20, rows=range(1, 101))[1]
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", str(limit / 2**30))
    with use_cache(folder) as cached:
        cached(knn, X, 20, rows=range(100))
        assert ResultCache(folder).size() <= limit
        assert not computed(cached, knn, X, 20, rows=range(1, 101))[1]
        assert len(ResultCache(folder).entries()) == 3
        # What is larger than the limit is not kept, and removes nothing.
        cached(knn, np.repeat(X, 9, axis=0), 50)
        assert len(ResultCache(folder).entries()) == 3
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", "0")
    with use_cache(folder / "none") as cached:
        assert computed(cached, knn, X, 5)[1] and computed(cached, knn, X, 5)[1]
    assert not (folder / "none").exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_none(text, monkeypatch):
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", text)
    with pytest.raises(InputError, match=r"EMBGEOM_CACHE_GIB = .* is no size"), use_cache():
        pass


def full_disk(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_warning(folder, monkeypatch):
    monkeypatch.setattr(module, "save_tensors", full_disk)
    with use_cache(folder) as cached:
        with pytest.warns(EmbgeomWarning, match="results are not kept in .*No space left") as told:
            same(cached(knn, X, 5), knn(X, 5))
            cached(knn, X, 6)
        assert len(told) == 1 and not any(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_a_warning(folder):
    folder.write_text("a file")
    with use_cache(folder) as cached, pytest.warns(EmbgeomWarning, match="results are not kept in"):
        same(cached(knn, X, 5), knn(X, 5))


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


def test_a_killed_writer_leaves_nothing_that_is_read(folder):
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
    with use_cache(folder) as cached:
        assert computed(cached, knn, X, 5)[1]
    assert [path.suffix for path in folder.iterdir()] == [".safetensors"]


def test_entries(folder):
    with use_cache(folder):
        embgeom.compare("example:small", "example:large", k=4, dimension_k=20, dimension_sample=7)
    entries = ResultCache(folder).entries()
    said = {(entry.models, entry.shape, entry.what) for entry in entries}
    assert len(entries) == len(said) == 8
    assert ("example:small", "4095 x 128", "knn(k=4, cosine, exclude_self)") in said
    assert (
        "example:small and example:large",
        "4095 x 128 and 4095 x 192",
        "global_similarity(center, seed=0)",
    ) in said
    assert all(0 < entry.size < 10**6 for entry in entries)
    next(folder.glob("*.safetensors")).write_text("damaged")
    assert len(ResultCache(folder).entries()) == 7
    ResultCache(folder).clear()
    assert not any(folder.iterdir())


def test_headers_are_json(folder):
    with use_cache(folder) as cached:
        cached(lle, X, NEAR)
    (path,) = folder.glob("*.safetensors")
    assert json.dumps(module._about(path)) and stat.S_IMODE(path.stat().st_mode) & 0o400


@pytest.mark.parametrize("rows", [None, [5, 3, 100]])
def test_a_run_in_a_folder_keeps_its_result_and_reads_it(folder, tmp_path, rows, monkeypatch):
    model = embgeom.Embeddings.from_array(X, [f"w{i}" for i in range(120)])
    options = {"k": 8, "rows": rows}
    with use_cache(folder) as cached:
        results = {
            task: embgeom.run(task, model, tmp_path / task, **options) for task in ("knn", "lle", "dimension")
        }
        near, new = computed(cached, knn, model, **options)
        assert not new
        assert not computed(cached, lle, model, near)[1]
        assert not computed(cached, intrinsic_dimension, model, **options)[1]
        for task, result in results.items():
            monkeypatch.setattr("embgeom.runs.run.compute_here", None)
            same(embgeom.run(task, model, tmp_path / f"{task} again", **options), result)


def test_a_run_feeds_an_inspection(folder, tmp_path):
    with use_cache(folder):
        embgeom.run("dimension", embgeom.load("example:small"), tmp_path / "run", k=40)
        inspection = embgeom.inspect("example:small", dimension_k=40, dimension_sample=50)
    assert inspection.from_cache == ["intrinsic_dimension of example:small"]
    same(
        inspection.dimension, embgeom.inspect("example:small", dimension_k=40, dimension_sample=50).dimension
    )

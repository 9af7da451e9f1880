"""The folder of the cache: its names, its limit, what it lists, and what else lies there."""

import os

import numpy as np
import pytest

import embgeom
from embgeom import EmbgeomWarning, InputError, global_similarity, intrinsic_dimension, knn, lle
from embgeom.runs import cache as module
from embgeom.runs.cache import ResultCache, requested, use_cache
from tests.helpers.cached import computed, same

X = np.random.default_rng(0).standard_normal((120, 9)).astype(np.float32)
NEAR = knn(X, 6)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def test_the_limit_removes_what_is_unused_for_longest(folder, monkeypatch):
    foreign = [folder / name for name in ("model.safetensors", f"{40 * 'a'}.5.all.safetensors.bak")]
    foreign.append(folder / f"{40 * 'a'}.5.all" / "model.safetensors")
    with use_cache(folder) as cached:
        for age, seed in enumerate(range(1, 6)):
            cached(knn, X, 20, rows=range(seed, seed + 100))
            for path in folder.glob("*.safetensors"):
                os.utime(path, (stat := path.stat().st_mtime - 100 * age, stat))
        foreign[-1].parent.mkdir()
        for file in foreign:
            file.write_bytes(bytes(10**6))
            os.utime(file, (0, 0))
        limit = ResultCache(folder).usage()[1] + 6500
        assert limit < 10**6
        assert not computed(cached, knn, X, 20, rows=range(1, 101))[1]
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", str(limit / 2**30))
    with use_cache(folder) as cached:
        cached(knn, X, 20, rows=range(100))
        assert ResultCache(folder).usage()[1] <= limit
        assert not computed(cached, knn, X, 20, rows=range(1, 101))[1]
        assert len(ResultCache(folder).entries()) == 5
        # What takes more than a quarter of the limit is not kept, and removes nothing.
        for n in (range(120), range(100)):
            cached(knn, X, 40, rows=n)
        assert len(ResultCache(folder).entries()) == 5
    ResultCache(folder).clear()
    assert not ResultCache(folder).usage()[1] and all(file.stat().st_size == 10**6 for file in foreign)
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", "0")
    with use_cache(folder / "none") as cached:
        assert computed(cached, knn, X, 5)[1] and computed(cached, knn, X, 5)[1]
    assert not (folder / "none").exists()


@pytest.mark.parametrize("text", ["much", "-1", "nan"])
def test_a_limit_that_is_none(text, monkeypatch):
    monkeypatch.setenv("EMBGEOM_CACHE_GIB", text)
    with pytest.raises(InputError, match=r"EMBGEOM_CACHE_GIB = .* is not a size"), use_cache():
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


def test_entries(folder):
    with use_cache(folder):
        embgeom.compare("example:small", "example:large", k=4, dimension_k=20, dimension_sample=7)
    entries = ResultCache(folder).entries()
    said = {(entry.models, entry.shape, entry.what) for entry in entries}
    assert len(entries) == len(said) == 8
    assert ("example:small", "3757 x 128", "knn(k=4, center)") in said
    assert ("example:small", "3757 x 128", "lle(k=4)") in said
    assert all(0 < entry.size < 10**6 for entry in entries)
    next(folder.glob("*.safetensors")).write_text("damaged")
    assert len(ResultCache(folder).entries()) == 7
    ResultCache(folder).clear()
    assert not any(folder.iterdir())


def test_entries_say_what_was_asked_for(folder):
    model = embgeom.Embeddings.from_array(X, [f"w{i}" for i in range(120)], name="mine")
    near = knn(model, 6, rows=[7])
    calls = {
        "knn(k=5, metric=euclidean, exclude_self=False)": (
            knn, (model, 5), {"metric": "euclidean", "exclude_self": False},
        ),
        "knn(k=3, 4 rows: 2, 1, 5, ...)": (knn, (model, 3), {"rows": [2, 1, 5, 4]}),
        "knn(k=3, 4 rows: 2, 1, 6, ...)": (knn, (), {"x": model, "k": 3, "rows": [2, 1, 6, 4]}),
        "lle(k=6, reg=0.01, 1 row: 7)": (lle, (model, near), {"reg": 1e-2}),
        "intrinsic_dimension(k=6, 1 row: 7)": (intrinsic_dimension, (model, near), {}),
        "intrinsic_dimension(k=30, 2 rows: 3, 4)": (
            intrinsic_dimension, (model,), {"k": 30, "rows": [3, 4]},
        ),
        "global_similarity(center, seed=3)": (
            global_similarity, (model,), {"b": model, "center": True, "seed": 3},
        ),
    }  # fmt: skip
    with use_cache(folder) as cached:
        for function, arguments, options in calls.values():
            cached(function, *arguments, **options)
        assert not computed(cached, knn, model, 5, metric="euclidean", exclude_self=False)[1]
    assert cached.served == ["knn of mine"]
    entries = ResultCache(folder).entries()
    assert {entry.what for entry in entries} == calls.keys()
    assert {entry.models for entry in entries} == {"mine", "mine and mine"}


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\ud800", 5, b"folder", "~nobody-has-this-name/x"])
def test_names_that_no_folder_can_have(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        pytest.raises(InputError, match=r"names no folder for results \(.*\); name another"),
        use_cache(name),
    ):
        pass
    if isinstance(name, str) and name[:2] in ("aa", "~n"):
        monkeypatch.setenv("EMBGEOM_CACHE", name)
        with pytest.raises(InputError, match="names no folder for results"), use_cache():
            pass


def test_a_long_name_in_a_folder_to_be_made_is_a_warning(folder):
    with (
        use_cache(folder / ("a" * 300)) as cached,
        pytest.warns(EmbgeomWarning, match="results are not kept"),
    ):
        same(cached(knn, X, 5), knn(X, 5))


@pytest.mark.parametrize("k", ["5", "9" * 195])
def test_pipes_folders_and_other_names_in_the_folder_are_left_alone(folder, k):
    group = requested(knn, (X, 5), {}, module.array_digest).group
    strange = folder / f"{group}.{k}.all.safetensors"
    folder.mkdir()
    os.mkfifo(strange)
    (folder / f"{group}.7.all.safetensors").mkdir()
    (folder / f"{group}.8.all.safetensors").symlink_to(folder / f"{group}.8.all.safetensors")
    cache = ResultCache(folder)
    with use_cache(folder) as cached:
        assert computed(cached, knn, X, 4)[1] and computed(cached, lle, X, NEAR)[1]
        assert len(cache.entries()) == 2 and cache.usage()[1] == sum(entry.size for entry in cache.entries())
    cache.clear()
    assert len(list(folder.iterdir())) == 3

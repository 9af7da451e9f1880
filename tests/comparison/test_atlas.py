"""The table of a vocabulary that the package embedding-atlas opens."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

import embgeom
from embgeom import InputError, OutputError
from tests.helpers.loading import data
from tests.helpers.wordnet import write as write_wordnet

MODEL = "example:small"


def wordnet():
    try:
        return data("words", "oewn")
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    for package in ("umap", "pyarrow"):
        pytest.importorskip(package, reason=f"{package} is not installed", exc_type=ImportError)
    folder = tmp_path_factory.mktemp("work")
    made = embgeom.atlas(MODEL, only="words", k=6, dimension_k=40, folder=folder, wordnet=wordnet())
    assert (folder / "knn" / "knn.safetensors").is_file()
    return made


def test_a_row_for_each_token(made):
    model = embgeom.load(MODEL)
    assert [model.tokens[row] for row in made.rows] == made.model.tokens
    x = model.matrix[made.rows]
    near = embgeom.knn(x, 6, center=True)
    np.testing.assert_array_equal(made.neighbors.indices, near.indices)
    expected = embgeom.intrinsic_dimension(x, k=40, center=True)
    np.testing.assert_array_equal(made.dimension.n_components, expected.n_components)
    assert made.coordinates.shape == (len(made.rows), 2) and np.isfinite(made.coordinates).all()
    assert set(made.token_class) == {"text"} and (made.position == "leading space").all()
    columns = made.columns()
    assert columns["text"][5].startswith(" ") and columns["norm"][5] == model.norms[made.rows[5]]
    assert columns["neighbors"][5]["ids"] == near.indices[5].tolist()


def test_the_coherence_of_words(made):
    found = embgeom.comparison.coherence(embgeom.load(MODEL), data("words", "oewn"))
    column = [statistic.name for statistic in found.statistics].index("lexicographer_file")
    expected = dict(zip(found.rows.tolist(), (found.values - found.base)[:, column].tolist(), strict=True))
    wanted = [expected.get(row, np.nan) for row in made.rows.tolist()]
    np.testing.assert_allclose(made.coherence, wanted, rtol=1e-6)
    assert 0.05 < np.nanmean(made.coherence) < 1 and "coherence" in made.columns()


def test_the_layout_keeps_neighbors_together(made):
    place = made.coordinates
    distance = np.linalg.norm(place[made.neighbors.indices[:, 0]] - place, axis=1)
    strangers = np.linalg.norm(np.roll(place, 100, axis=0) - place, axis=1)
    assert np.median(distance) < 0.3 * np.median(strangers)


def test_the_table_is_as_the_viewer_reads_it(made, tmp_path):
    import pyarrow.parquet

    made.to_parquet(tmp_path / "atlas.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "atlas.parquet")
    assert table.column_names == list(made.columns()) and len(table) == len(made.rows)
    near = table.column("neighbors")[3].as_py()
    assert near["ids"] == made.neighbors.indices[3].tolist()
    np.testing.assert_array_equal(np.float32(near["distances"]), made.neighbors.distances[3])
    assert table.column("text")[3].as_py() == made.columns()["text"][3]
    with pytest.raises(OutputError, match=r"atlas.csv does not end in .parquet"):
        made.to_parquet(tmp_path / "atlas.csv")


def test_it_is_kept_and_drawn(made, tmp_path):
    made.save(tmp_path / "atlas.safetensors")
    loaded = embgeom.Atlas.load(tmp_path / "atlas.safetensors")
    assert loaded.summary() == made.summary()
    np.testing.assert_array_equal(loaded.coordinates, made.coordinates)
    assert json.loads(json.dumps(made.to_dict()))["options"]["seed"] == 0
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    made.plot(tmp_path / "atlas.png")


def test_the_command_goes_on_where_it_was(made, tmp_path, capsys):
    from embgeom.cli.main import main

    def call(*arguments):
        status = main(["atlas", MODEL, "--only", "words", "-k", "6", "--dimension-k", "40", "-o", *arguments])
        return status, *capsys.readouterr()

    table = str(tmp_path / "atlas.parquet")
    status, out, err = call(table, "--folder", str(tmp_path / "work"))
    assert status == 0
    assert out.endswith(
        f"to open it: embedding-atlas {table} --text text --x x --y y --neighbors neighbors\n"
    )
    first = (tmp_path / "atlas.parquet").read_bytes()
    status, again, err = call(table, "--folder", str(tmp_path / "work"))
    assert (status, again) == (0, out) and (tmp_path / "atlas.parquet").read_bytes() == first
    assert "read from" in err
    status, out, err = call(str(tmp_path / "atlas.csv"))
    assert (status, out) == (2, "") and "does not end in .parquet" in err


def test_what_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", types.ModuleType("umap"))
    with pytest.raises(InputError, match="1 tokens of example:small count; a layout needs at least 4"):
        embgeom.atlas(MODEL, only=[" king"])
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(InputError, match=r'an atlas needs umap: pip install "embgeom\[atlas\]"'):
        embgeom.atlas(MODEL)


@pytest.mark.parametrize("center", [False, True])
def test_coherence_is_of_the_neighbors_of_the_table(tmp_path, monkeypatch, center):
    module = sys.modules["embgeom.comparison.atlas"]
    monkeypatch.setattr(module, "need", lambda *args, **options: None)
    monkeypatch.setattr(module, "_layout", lambda umap, x, *others: np.zeros((len(x), 2), np.float32))
    model, folder = embgeom.load(MODEL), write_wordnet(tmp_path / "wordnet")
    found = embgeom.comparison.coherence(model, folder, center=center)
    assert (found.values != embgeom.comparison.coherence(model, folder, center=not center).values).any()
    # No dimensions of words are measured that the table does not have.
    module = sys.modules["embgeom.comparison.coherence"]
    widths, measure = [], module.intrinsic_dimension
    monkeypatch.setattr(
        module,
        "intrinsic_dimension",
        lambda x, near, **more: widths.append(near.k) or measure(x, near, **more),
    )
    table = embgeom.atlas(model, only=found.texts, k=3, dimension_k=5, center=center, wordnet=folder)
    place = [each.name for each in found.statistics].index("lexicographer_file")
    wanted = (found.values - found.base)[:, place]
    at = np.searchsorted(table.rows, found.rows)
    np.testing.assert_allclose(table.coherence[at], wanted, rtol=1e-6)
    assert widths == [5]

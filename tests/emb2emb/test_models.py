"""What a map knows of its two models: how deep they are, and whose vectors it takes."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import embgeom
from embgeom import Emb2Emb, Embeddings, EmbgeomWarning, InputError, SteeringVector, matching_layer
from embgeom.embeddings.provenance import ModelInfo, Provenance
from tests.helpers.emb2emb import related


def mapping(source=None, target=None, names=("one", "two")):
    """Return a map between models of which this is known: fields of their provenance."""
    sides = [
        replace(
            Embeddings.from_array(matrix, [f"t{i}" for i in range(len(matrix))], name=name, which="output"),
            provenance=Provenance(**{"source": name, "tensor": "lm_head.weight"} | (known or {})),
        )
        for matrix, name, known in zip(related(), names, (source, target), strict=True)
    ]
    return Emb2Emb.fit(*sides, held_out=0)


def vector(layers, model=None, *aliases):
    directions = {layer: np.full(12, layer + 1.0) for layer in layers}
    return SteeringVector(directions, model or "one", model_info=ModelInfo(model, aliases=aliases))


def of_depths(source, target):
    return mapping({"num_layers": source}, {"num_layers": target})


def test_loading_tells_the_number_of_layers(tmp_path):
    small, large = (embgeom.load(folder, "output") for folder in embgeom.examples.pair())
    assert (small.provenance.num_layers, large.provenance.num_layers) == (4, 6)
    assert large.provenance.to_dict()["num_layers"] == large.to_dict()["provenance"]["num_layers"] == 6
    assert Embeddings.from_array(np.eye(2), ["a", "b"]).provenance.num_layers is None
    np.save(tmp_path / "matrix.npy", np.eye(2, dtype=np.float32))
    assert embgeom.load(tmp_path / "matrix.npy", vocabulary=["a", "b"]).provenance.num_layers is None
    assert Emb2Emb.fit(small, large, held_out=0).provenance["target"]["provenance"]["num_layers"] == 6


@pytest.mark.parametrize(
    ("config", "num_layers"),
    [
        ({"num_hidden_layers": 3}, 3),
        ({"n_layer": 4}, 4),
        ({"n_layers": 5}, 5),
        ({"num_layers": 6}, 6),
        ({"text_config": {"num_hidden_layers": 7}, "vision_config": {"num_hidden_layers": 2}}, 7),
        ({"vision_config": {"num_hidden_layers": 2}}, None),
        ({"num_layers": 6, "num_decoder_layers": 6, "is_encoder_decoder": True}, None),
        ({"num_hidden_layers": "3"}, None),
        ({"num_hidden_layers": -1}, None),
        ({}, None),
    ],
)
def test_the_number_of_layers_in_a_config(config, num_layers):
    from embgeom.loading.config import ModelConfig

    assert ModelConfig.parse(config).num_layers == num_layers


def test_layers_go_to_those_that_lie_equally_deep():
    transferred = of_depths(4, 6).transfer(vector(range(4)), norm="raw")
    assert transferred.provenance["layers"] == {str(b): matching_layer(b, 4, 6) for b in range(4)}
    assert transferred.layers == (1, 2, 4, 5)


def test_of_layers_that_go_to_one_the_nearest_counts():
    found = of_depths(6, 4).transfer(vector(range(6)), norm="raw").provenance["layers"]
    # Behind layers 0 to 5 of 6 a share of 1/6 to 1 is passed, behind those of 4: 1/4, 1/2, 3/4, 1. Layers 0
    # and 1 are equally far from 1/4, and 3 and 4 from 3/4: the deeper one counts.
    assert found == {"1": 0, "2": 1, "4": 2, "5": 3}
    assert of_depths(6, 4).transfer(vector([0, 3]), norm="raw").provenance["layers"] == {"0": 0, "3": 2}
    shallow = of_depths(12, 2).transfer(vector(range(12)), norm="raw")
    assert shallow.provenance["layers"] == {"5": 0, "11": 1}
    # The direction is the one of the layer that counts.
    np.testing.assert_array_equal(
        shallow.directions[0], of_depths(12, 2).transfer(vector(range(12)).directions[5])
    )


@pytest.mark.parametrize(("source", "target"), [(5, 5), (None, 9), (5, None), (None, None)])
def test_layers_stay_where_depths_are_equal_or_unknown(source, target):
    assert of_depths(source, target).transfer(vector([0, 2, 4]), norm="raw").layers == (0, 2, 4)


def test_layers_that_a_model_lacks():
    with pytest.raises(InputError, match="layer 4, but the source has 4 layers"):
        of_depths(4, 6).transfer(vector([1, 4]), norm="raw")
    with pytest.raises(InputError, match="source has 4 layers"):
        of_depths(4, None).transfer(vector([9]), layers=2, norm="raw")
    for layers in (6, {3: 6}):
        with pytest.raises(InputError, match=r"layer 3 of the vector goes to layer 6.*target .* 6 layers"):
            of_depths(4, 6).transfer(vector([3]), layers=layers, norm="raw")
    with pytest.raises(InputError, match="target has 6 layers"):
        of_depths(None, 6).transfer(vector([3, 7]), norm="raw")
    assert of_depths(4, 6).transfer(vector([3]), layers=0, norm="raw").layers == (0,)


def test_depths_are_kept_in_the_file(tmp_path):
    made = of_depths(4, 6)
    made.save(tmp_path / "map.safetensors")
    again = Emb2Emb.load(tmp_path / "map.safetensors")
    assert (again.source.num_layers, again.target.num_layers) == (4, 6)
    assert again.transfer(vector([3]), norm="raw").layers == (5,)
    unknown = replace(again, source=replace(again.source, num_layers=None))
    unknown.save(tmp_path / "map.safetensors")
    assert Emb2Emb.load(tmp_path / "map.safetensors").transfer(vector([3]), norm="raw").layers == (3,)


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("other", {}, "one"),
        ("org/Llama-3-8B", {"source": "org/Llama-2-7b"}, "Llama-2-7b"),
        ("example:small", {}, "example:large"),
        ("other", {"source": "array", "tensor": None}, "one"),
    ],
)
@pytest.mark.parametrize(
    "made", [lambda v: v, lambda v: 2 * v, lambda v: v - 0.5 * v], ids=["v", "2v", "sum"]
)
def test_a_vector_of_another_model_is_reported(model, source, name, made):
    emb2emb = mapping(source, names=(name, "two"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        emb2emb.transfer(made(vector([1], model)), norm="raw")
    (warning,) = caught
    assert warning.category is EmbgeomWarning and warning.filename == __file__
    assert repr(model) in str(warning.message) and repr(name) in str(warning.message)


@pytest.mark.parametrize(
    ("model", "source", "name"),
    [
        ("/models/Tiny/", {"source": "owner/tiny"}, "tiny"),
        ("/lib/examples/small", {}, "small"),
        ("/lib/examples/small", {"source": "example:small"}, "example:small"),
        ("owner/one", {}, "one"),
        ("/hub/models--owner--Tiny-1B/snapshots/0a1b", {"source": "owner/tiny-1b"}, "owner/tiny-1b"),
        ("./one", {"source": "one/odd.safetensors", "file": Path("one/odd.safetensors")}, "odd"),
        ("C:\\models\\one", {}, "one"),
        # Of these the model is not known.
        (None, {}, "one"),
        (".", {}, "one"),
        ("other", {"source": "array", "tensor": None}, "array"),
        ("other", {"source": "a/rows.npy", "tensor": None, "file": Path("a/rows.npy")}, "rows"),
    ],
)
def test_nothing_is_reported_of_one_model_or_unknown_ones(model, source, name, monkeypatch):
    monkeypatch.setattr(Provenance, "sha256", None)  # there are no such files
    # Warnings are errors here.
    mapping(source, names=(name, "two")).transfer(vector([1], model), norm="raw")


def test_nothing_is_reported_of_arrays_and_what_was_transferred_before():
    Emb2Emb.fit(*related(), held_out=0).transfer(vector([1], "other"), norm="raw")
    first = mapping(names=("zero", "one"))
    back = Emb2Emb.fit(related()[1], related()[0], held_out=0)
    moved = first.transfer(vector([1], "zero"), norm="raw")
    assert moved.model_info == first.target and moved.model_info.name == moved.model == "one"
    assert back.transfer(moved, norm="raw").hidden_size == 12
    wrong = Emb2Emb.fit(*reversed(related()), held_out=0)
    with pytest.warns(EmbgeomWarning, match="the vector is of 'one', but the map takes vectors of 'zero'"):
        replace(wrong, source=replace(first.source, hidden_size=20)).transfer(moved, norm="raw")
    json.dumps(first.provenance)


def test_the_bundled_pair_by_all_of_its_names():
    folders = embgeom.examples.pair()
    for names in (folders, ("example:small", "example:large")):
        sides = [embgeom.load(name, "output") for name in names]
        made = Emb2Emb.fit(*sides, held_out=0)
        for source in (folders.small, "example:small"):
            made.transfer(SteeringVector.from_words(source, [" happy"], layers=3), norm="raw")
        with pytest.warns(EmbgeomWarning, match="'example:small'.*takes vectors of .*large"):
            Emb2Emb.fit(sides[1], sides[1], held_out=0).transfer(
                SteeringVector({1: np.ones(192)}, model_info=ModelInfo("example:small")), norm="raw"
            )


def at(norms, name="/data/one/hf", side="output_norms"):
    return ModelInfo(name, **{side: norms})


def test_two_folders_of_one_name_are_told_apart_by_their_rows():
    one, other = (1.0, 2.0, 3.0), (1.0, 2.0, 3.9)
    assert at(one).differs_from(at(other, "/data/two/hf"))
    # Copies of one model are one, whatever they are called, and so are its rows and others that were added.
    assert not at(one).differs_from(at((1.0, 2.003, 3.0, 9.0), "org/model"))
    # Names decide between what is neither: a quantized or fine-tuned copy of the same name, and of another.
    near = (1.0, 2.1, 3.0)
    assert not at(one).differs_from(at(near, "/data/two/hf")) and at(one).differs_from(at(near, "org/tuned"))
    # Where all rows have one length, norms tell nothing, and names decide.
    alike = (1.0, 1.001, 1.0)
    assert at(alike, "org/a").differs_from(at(alike, "org/b")) and not at(alike).differs_from(at(alike))
    # An embedding and an unembedding are not compared with each other.
    assert not at(one).differs_from(at(other, "/data/two/hf", "input_norms"))


def test_the_rows_of_models_that_are_loaded():
    from embgeom.steering import load_language_model

    pytest.importorskip("transformers", reason="transformers is not installed")
    small, large = embgeom.examples.pair()
    for folder, name in ((small, "example:small"), (large, "example:large")):
        model, tokenizer = load_language_model(folder)
        info = SteeringVector.train(
            model, tokenizer, [("Tom was glad.", "Tom was sad.")], layers=1
        ).model_info
        assert len(info.input_norms) == len(info.output_norms) == 12
        for which in ("input", "output"):
            matrix = embgeom.load(name, which)
            known = replace(matrix.model_info, name="hf", aliases=())
            # Rows that were selected are still of their model.
            chosen = replace(matrix.select(range(100)).model_info, name="hf", aliases=())
            for each in (known, chosen):
                assert not replace(info, name="hf").differs_from(each)
                assert not info.differs_from(each)
    other = replace(embgeom.load("example:small", "output").model_info, name="hf", aliases=())
    assert replace(info, name="hf").differs_from(other)


def test_a_vector_of_another_folder_of_the_same_name(tmp_path):
    vector = SteeringVector({1: np.ones(12)}, model_info=ModelInfo("/a/hf", output_norms=(1.0, 2.0)))
    vector.save(tmp_path / "v.safetensors")
    there = mapping({"source": "/b/hf", "row_norms": (5.0, 6.0)}, names=("hf", "two"))
    with pytest.warns(EmbgeomWarning, match="equal hidden sizes do not make them one model"):
        there.transfer(SteeringVector.load(tmp_path / "v.safetensors"), layers=1, norm="raw")
    same = mapping({"source": "/b/hf", "row_norms": (1.0, 2.0)}, names=("hf", "two"))
    same.transfer(SteeringVector.load(tmp_path / "v.safetensors"), layers=1, norm="raw")

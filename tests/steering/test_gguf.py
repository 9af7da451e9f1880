"""Steering vectors as the control vectors of llama.cpp: what is written, and what is read or refused."""

import json
import struct

import numpy as np
import pytest

from embgeom import InputError, LoadError, SteeringVector

gguf = pytest.importorskip("gguf", reason="gguf is not installed")

ROW = np.ones(4, dtype=np.float32)
# Values that bfloat16 and float16 hold exactly, a subnormal of float16 among them.
EXACT = [1.0, -0.5, 3.0, 2.0**-24, -(2.0**10), 0.0]


def vector(layers=(1, 4), **more):
    rows = np.random.default_rng(0).standard_normal((len(layers), 5)).astype(np.float32)
    return SteeringVector(dict(zip(layers, rows, strict=True)), **more)


def test_gguf_as_its_own_library_reads_it(tmp_path):
    written = vector((1, 2, 9), model="llama", provenance={"pairs": 12})
    written.save(tmp_path / "v.gguf")
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    notes = {key: field.contents() for key, field in reader.fields.items()}
    assert notes["general.architecture"] == "controlvector"
    assert notes["controlvector.model_hint"] == "llama"
    assert notes["controlvector.layer_count"] == 3
    assert reader.fields["controlvector.layer_count"].types == [gguf.GGUFValueType.UINT32]
    assert json.loads(notes["embgeom.provenance"]) == {"pairs": 12}
    assert notes["embgeom.layers"] == "added to the output of layer i, counted from 0"
    assert [tensor.name for tensor in reader.tensors] == ["direction.1", "direction.2", "direction.9"]
    for tensor, layer in zip(reader.tensors, written.layers, strict=True):
        assert tensor.tensor_type == gguf.GGMLQuantizationType.F32
        assert tensor.shape.tolist() == [5]
        np.testing.assert_array_equal(tensor.data, written.directions[layer])


def test_a_direction_for_layer_0_does_not_fit_gguf(tmp_path):
    with pytest.raises(InputError, match=r"layer 0.*vector\.select_layers\(\[3\]\)"):
        vector((0, 3)).save(tmp_path / "v.gguf")
    with pytest.raises(InputError, match=r"layer 0.*\.safetensors"):
        vector((0,)).save(tmp_path / "v.gguf")
    assert list(tmp_path.iterdir()) == []
    vector((0, 3)).select_layers([3]).save(tmp_path / "v.gguf")


def write_gguf(path, tensors, architecture="controlvector", hint="mistral", endianess=None, raw_dtype=None):
    """Write a control vector with the keys, and in the order, that repeng writes."""
    more = {} if endianess is None else {"endianess": endianess}
    writer = gguf.GGUFWriter(path, architecture, **more)
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(tensors))
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor, raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_gguf_of_repeng_is_read(tmp_path):
    # repeng names a direction by its layer, counted from 0, and its layers come in descending order.
    directions = {layer: np.random.default_rng(layer).standard_normal(8).astype("f4") for layer in (3, 2, 1)}
    write_gguf(tmp_path / "v.gguf", {f"direction.{layer}": row for layer, row in directions.items()})
    read = SteeringVector.load(tmp_path / "v.gguf")
    assert (read.layers, read.model) == ((1, 2, 3), "mistral")
    assert read.provenance == {"imported_from": "v.gguf"}
    for layer, row in directions.items():
        np.testing.assert_array_equal(read.directions[layer], row)


@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
@pytest.mark.parametrize("stored", ["F16", "BF16"])
def test_gguf_of_half_precision_is_read_exactly(stored, order, tmp_path):
    row = np.array(EXACT, dtype=np.float32)
    if stored == "F16":
        write_gguf(tmp_path / "v.gguf", {"direction.2": row.astype("f2")}, endianess=gguf.GGUFEndian[order])
    else:
        halves = (row.view("u4") >> 16).astype("<u2" if order == "LITTLE" else ">u2")
        bf16 = gguf.GGMLQuantizationType.BF16
        # The writer swaps the bytes of what it is given for big-endian files, where an item is one byte.
        data = {"direction.2": halves.view("u1")}
        write_gguf(tmp_path / "v.gguf", data, endianess=gguf.GGUFEndian[order], raw_dtype=bf16)
    np.testing.assert_array_equal(SteeringVector.load(tmp_path / "v.gguf").directions[2], row)


@pytest.mark.parametrize(
    ("tensors", "more", "message"),
    [
        ({"direction.0": ROW}, {}, "layers from 1 on"),
        ({"direction.-1": ROW}, {}, "layers from 1 on"),
        ({"direction.1": ROW, "output.weight": ROW}, {}, "output.weight"),
        ({"direction.1": np.ones((2, 4), dtype="f4")}, {}, "2 dimensions"),
        ({"direction.1": ROW, "direction.2": np.ones(5, dtype="f4")}, {}, "differ in length"),
        ({"direction.1": ROW, "direction.01": ROW}, {}, "two directions for layer 1"),
        ({"direction.1": np.ones(4)}, {}, "stored as F64"),
        ({"direction.1": np.ones(4, dtype="i1")}, {}, "stored as I8"),
        ({"direction.1": np.full(4, np.nan, dtype="f4")}, {}, "NaN"),
        ({"direction.1": ROW}, {"architecture": "llama"}, "architecture 'llama'.*not that of the model"),
        ({}, {}, "no steering vector"),
    ],
)
def test_gguf_that_does_not_fit_is_refused(tensors, more, message, tmp_path):
    write_gguf(tmp_path / "v.gguf", tensors, **more)
    with pytest.raises(LoadError, match=message):
        SteeringVector.load(tmp_path / "v.gguf")


def test_gguf_counts_that_lie_are_refused_at_once(tmp_path):
    head = struct.pack("<4sIQQ", b"GGUF", 3, 2**62, 2**62)
    (tmp_path / "v.gguf").write_bytes(head + b"\xff" * 64)
    with pytest.raises(LoadError, match="not a complete GGUF file"):
        SteeringVector.load(tmp_path / "v.gguf")

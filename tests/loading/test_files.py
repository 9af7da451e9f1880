"""Each kind of file: stored types, files that lie, PyTorch and NumPy files."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading import load
from embgeom.loading.folder import to_float32
from embgeom.loading.safetensors_file import SafetensorsFile
from tests.helpers.loading import matrix, words, write_folder, write_raw_safetensors, write_safetensors
from tests.helpers.printed import Terminal

X = matrix(20, 4)


def as_bfloat16(x):
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def test_stored_types_convert(tmp_path):
    half, upper = X.astype(np.float16), as_bfloat16(X)
    exact = {"F32": (X, X), "F16": (half, half.astype(np.float32)), "F64": (X.astype(np.float64), X)}
    exact["BF16"] = (upper, (upper.astype(np.uint32) << 16).view(np.float32))
    for stored, (array, expected) in exact.items():
        loaded = load(write_folder(tmp_path / stored, {"wte.weight": array}))
        np.testing.assert_array_equal(loaded.matrix, expected)
        assert loaded.matrix.dtype == np.float32 and loaded.matrix.flags.c_contiguous
        assert loaded.provenance.dtype == stored and not loaded.matrix.flags.writeable


def test_float32_is_a_view_of_the_file(tmp_path):
    loaded = load(write_folder(tmp_path, {"wte.weight": X, "lm_head.weight": X}), "output")
    base = loaded.matrix
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)


def test_unaligned_float32_is_copied(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": X})
    write_safetensors(folder / "model.safetensors", {"pad": np.ones(3, dtype=np.int8), "wte.weight": X})
    loaded = load(folder)
    np.testing.assert_array_equal(loaded.matrix, X)
    assert loaded.matrix.flags.aligned


@settings(deadline=None)
@given(bits=hnp.arrays(np.uint16, (5, 3)))
def test_bfloat16_is_exact_for_every_bit_pattern(bits):
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(to_float32(bits, "BF16", "t").view(np.uint32), expected.view(np.uint32))


def test_conversion_in_many_chunks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr("embgeom.loading.folder._CHUNK_BYTES", 40)
    np.testing.assert_array_equal(to_float32(X.astype(np.float64), "F64", "t", progress=True), X)
    assert "converting t" in terminal.getvalue()


def test_float64_too_large_names_the_row(tmp_path):
    big = X.astype(np.float64)
    big[7, 2] = -1e300
    with pytest.raises(LoadError, match=r"wte.weight: row 7, column 2 is -1e\+300, too large for float32"):
        load(write_folder(tmp_path, {"wte.weight": big}))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_names_row_and_token(tmp_path, bad):
    x = X.copy()
    x[11, 1] = bad
    with pytest.raises(LoadError, match=r"row 11, token '▁w11', holds NaN or infinity"):
        load(write_folder(tmp_path, {"wte.weight": x}))


def test_quantized(tmp_path):
    with pytest.raises(LoadError, match=r"stored as I8.*quantized"):
        load(write_folder(tmp_path, {"wte.weight": X.astype(np.int8)}))


@pytest.mark.parametrize("shape", [(20,), (20, 0), (2, 10, 4)])
def test_not_a_matrix(tmp_path, shape):
    with pytest.raises(LoadError, match=r"has shape \[.*\(tokens, hidden_size\)"):
        load(write_folder(tmp_path, {"wte.weight": np.ones(shape, dtype=np.float32)}))


def entry(**changes):
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            {"w": entry(data_offsets=[0, 4000])},
            "has its end at byte 4000 of the data, of which the file holds 32",
        ),
        ({"w": entry(shape=[3, 2])}, "has 16 bytes, but F32 of shape \\[3, 2\\] takes 24"),
        ({"w": entry(data_offsets=[16, 0])}, "data_offsets"),
        ({"w": entry(data_offsets=[0])}, "data_offsets"),
        ({"w": entry(shape=[-2, 2])}, "shape"),
        ({"w": entry(shape=[True, 2])}, "shape"),
        ({"w": entry(shape="2, 2")}, "shape"),
        ({"w": entry(dtype=4)}, "dtype 4"),
        ({"w": [1, 2]}, "entry for w has the dtype None"),
        ({"w": entry(), "v": entry(data_offsets=[8, 24])}, "w and v overlap"),
        ([1], "JSON list, not an object"),
    ],
)
def test_header_that_lies(tmp_path, header, message):
    path = write_raw_safetensors(tmp_path / "m.safetensors", header, bytes(32))
    with pytest.raises(LoadError, match=message):
        SafetensorsFile(path)


@settings(deadline=None)
@given(st.binary(max_size=64))
def test_no_bytes_make_anything_but_a_load_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    for text in (content, len(content).to_bytes(8, "little") + content):
        path.write_bytes(text)
        try:
            SafetensorsFile(path)
        except LoadError as error:
            assert str(path) in str(error)


def test_truncated_anywhere(tmp_path):
    path = write_safetensors(tmp_path / "m.safetensors", {"wte.weight": X})
    whole = path.read_bytes()
    for size in (0, 3, 8, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(LoadError, match=r"m\.safetensors"):
            SafetensorsFile(path)


def torch_folder(folder, tensors, name="pytorch_model.bin", **options):
    torch = pytest.importorskip("torch")
    write_folder(folder, {"wte.weight": X})
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / name, **options)
    return folder


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_torch_types(tmp_path, dtype, legacy):
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(X.copy()).to(getattr(torch, dtype))
    folder = torch_folder(tmp_path, {"wte.weight": tensor}, _use_new_zipfile_serialization=not legacy)
    np.testing.assert_array_equal(load(folder).matrix, tensor.float().numpy())


def test_torch_tied_by_memory_wrapped_and_sharded(tmp_path):
    torch = pytest.importorskip("torch")
    shared = torch.from_numpy(X.copy())
    both = {"state_dict": {"transformer.wte.weight": shared, "lm_head.weight": shared}}
    assert load(torch_folder(tmp_path / "a", both), "output").provenance.tied
    file = torch_folder(tmp_path / "b", shared, name="x.pt") / "x.pt"
    np.testing.assert_array_equal(load(file).matrix, X)
    folder = torch_folder(tmp_path / "c", {"wte.weight": shared}, name="pytorch_model-00001-of-00001.bin")
    index = {"weight_map": {"wte.weight": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    np.testing.assert_array_equal(load(folder).matrix, X)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"PK\x03\x04 not a zip", b"\x80\x02cos\nsystem\n(S'true'\ntR."]
)
def test_torch_garbage(tmp_path, content):
    folder = torch_folder(tmp_path, {})
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(LoadError, match=r"pytorch_model\.bin cannot be read"):
        load(folder)
    with pytest.raises(LoadError, match="holds no tensors"):
        load(torch_folder(tmp_path / "empty", {"step": 3}))


def test_torch_absent(tmp_path, monkeypatch):
    folder = torch_folder(tmp_path, {"wte.weight": None})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r'pip install "embgeom\[torch\]"; or take safetensors'):
        load(folder)


def test_npy_with_its_tokens(tmp_path):
    path = tmp_path / "m.npy"
    np.save(path, np.asfortranarray(X))
    with pytest.raises(LoadError, match="vocabulary="):
        load(path)
    (tmp_path / "m.tokens.txt").write_text("\n".join(words(20)) + "\n", encoding="utf-8")
    assert load(path).tokens == words(20) and load(path).name == "m"
    np.testing.assert_array_equal(load(path).matrix, X)
    named = tmp_path / "names.json"
    named.write_text(json.dumps([f"Ġ{i}" for i in range(20)]))
    assert load(path, vocabulary=named).token_bytes[3] == b" 3"
    assert load(path, vocabulary=[f"t{i}" for i in range(20)]).row_of("t4") == 4


def test_npz(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, matrix=X.astype(np.float16), tokens=words(20))
    assert load(path).row_of("w3") == 3 and load(path).provenance.dtype == "F16"
    np.savez(path, rows=X, others=X)
    with pytest.raises(LoadError, match="no array 'matrix', but rows, others"):
        load(path)


@pytest.mark.parametrize(
    "array", [np.float32(3), np.ones(3), np.ones((2, 2), int), np.array([{}], dtype=object)]
)
def test_arrays_that_are_no_matrix(tmp_path, array):
    path = tmp_path / "m.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(LoadError, match=r"m\.npy"):
        load(path, vocabulary=["a", "b", "c"])


def test_what_the_system_does_not_let_us_read(tmp_path, monkeypatch):
    folder = write_folder(tmp_path, {"wte.weight": X})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(LoadError, match=r"model\.safetensors cannot be read: Is a directory"):
        load(folder)

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("os.open", refuse)
        with pytest.raises(LoadError, match=r"config\.json cannot be read: Permission denied; check"):
            load(folder)
    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(LoadError, match=r"Permission denied"):
        load(folder)


@pytest.mark.parametrize("name", ["m.npy", "m.npz", "m.safetensors", "m.pt", "m.gguf"])
def test_garbage_of_any_suffix(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"this is not a model at all")
    with pytest.raises(EmbgeomError, match=name):
        load(path, vocabulary=["a"])


def test_npz_names_its_special_tokens(tmp_path):
    x, tokens = matrix(3, 2), ["<s>", "▁a", "▁b"]
    for special in (["<s>"], [True, False, False]):
        np.savez(tmp_path / "x.npz", matrix=x, tokens=tokens, special=special)
        assert load(tmp_path / "x.npz").special.tolist() == [True, False, False]
    for special in (["<z>"], [True], [1.0, 0.0, 0.0]):
        np.savez(tmp_path / "x.npz", matrix=x, tokens=tokens, special=special)
        with pytest.raises(LoadError, match="special"):
            load(tmp_path / "x.npz")


def test_a_vocabulary_serves_as_tokens(tmp_path):
    np.save(tmp_path / "x.npy", matrix(3, 2))
    (tmp_path / "vocab.json").write_text('{"\\u0120b": 1, "a": 0, "c": 2}', encoding="utf-8")
    loaded = load(tmp_path / "x.npy", vocabulary=tmp_path / "vocab.json")
    assert loaded.tokens == ["a", "Ġb", "c"] and loaded.token_bytes[1] == b" b"


def test_a_missing_file_is_not_looked_for_on_the_hub():
    with pytest.raises(LoadError, match="no such file"):
        load("missing.npz")


def test_safetensors_says_each_thing_once(tmp_path):
    x = matrix(3, 2)
    path = write_safetensors(tmp_path / "model.safetensors", {"wte.weight": x})
    with path.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(LoadError, match="byte 24 of its 28 bytes of data belongs to no tensor"):
        load(path, vocabulary=["a", "b", "c"])
    entry = '"wte.weight":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]}'
    header = f"{{{entry},{entry}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + x.tobytes())
    with pytest.raises(LoadError, match="twice"):
        load(path, vocabulary=["a", "b", "c"])


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no /dev/zero on this platform")
def test_only_regular_files_of_a_reasonable_size_are_read_as_text(tmp_path, monkeypatch):
    # A device never ends, and a pipe that nobody writes to never begins.
    np.save(tmp_path / "x.npy", matrix(3, 2))
    os.mkfifo(tmp_path / "pipe.txt")
    for tokens in ("/dev/zero", tmp_path / "pipe.txt", tmp_path):
        with pytest.raises(LoadError, match=r"is not a regular file|Is a directory"):
            load(tmp_path / "x.npy", vocabulary=tokens)
    (tmp_path / "t.txt").write_text("\n".join("abc"))
    monkeypatch.setattr("embgeom.loading.folder._MOST_BYTES", 5)
    assert load(tmp_path / "x.npy", vocabulary=tmp_path / "t.txt").tokens == ["a", "b", "c"]
    (tmp_path / "t.txt").write_text("\n".join("abcd"))
    with pytest.raises(LoadError, match="holds more than"):
        load(tmp_path / "x.npy", vocabulary=tmp_path / "t.txt")
    with pytest.raises(LoadError, match=r"NUL|null byte"):
        load(tmp_path / "x.npy", vocabulary="a\0b.txt")

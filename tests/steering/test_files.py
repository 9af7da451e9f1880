"""Steering vectors as files: round trips, files of other tools, and files that are refused."""

import contextlib
import json
import os
import pickle
import stat
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embgeom import InputError, LoadError, OutputError, SteeringVector
from embgeom.errors import EmbgeomWarning

torch = pytest.importorskip("torch", reason="torch is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

SUFFIXES = (".safetensors", ".pt", ".gguf")
CONVENTION = "added to the output of layer i, counted from 0"
# Values that bfloat16 holds exactly, subnormals of float16 among them.
EXACT = [1.0, -0.5, 3.0, 2.0**-24, -(2.0**10), 0.0]


def vector(layers=(1, 4), width=5, **more):
    rows = np.random.default_rng(0).standard_normal((len(layers), width)).astype(np.float32)
    return SteeringVector(dict(zip(layers, rows, strict=True)), **more)


def assert_same(read, written):
    assert read.layers == written.layers
    for layer in written.layers:
        assert read.directions[layer].dtype == np.float32
        np.testing.assert_array_equal(read.directions[layer], written.directions[layer])
        assert np.array_equal(np.signbit(read.directions[layer]), np.signbit(written.directions[layer]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def vectors(draw):
    width = draw(st.integers(1, 6))
    numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
    floats = st.lists(numbers, min_size=width, max_size=width)
    directions = draw(st.dictionaries(st.integers(1, 200), floats, min_size=1, max_size=4))
    provenance = draw(st.dictionaries(st.text(), json_values, max_size=3))
    return SteeringVector(
        {layer: np.array(row, dtype=np.float32) for layer, row in directions.items()},
        model=draw(st.text(st.characters(codec="utf-8"), max_size=20)),
        provenance=provenance,
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(written=vectors())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(suffix, written, tmp_path_factory):
    path = tmp_path_factory.mktemp("vector") / f"v{suffix}"
    written.save(path)
    read = SteeringVector.load(path)
    assert_same(read, written)
    assert read.model == written.model
    assert read.provenance == written.provenance
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_are_the_same_every_time_and_replace_old_ones(suffix, tmp_path):
    written = vector(model="toy", provenance={"method": "mean"})
    path, other = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    path.write_bytes(b"old")
    written.save(path)
    written.save(str(other))
    assert path.read_bytes() == other.read_bytes()


def test_safetensors_as_its_own_library_reads_it(tmp_path):
    from safetensors import safe_open

    written = vector((0, 7), model="toy", provenance={"pairs": 12})
    written.save(tmp_path / "v.safetensors")
    with safe_open(tmp_path / "v.safetensors", "numpy") as file:
        assert set(file.keys()) == {"direction.0", "direction.7"}
        for layer in written.layers:
            np.testing.assert_array_equal(file.get_tensor(f"direction.{layer}"), written.directions[layer])
        notes = json.loads(file.metadata()["embgeom"])
    assert (notes["format_version"], notes["model"], notes["layers"]) == ("1", "toy", CONVENTION)
    assert json.loads(notes["provenance"]) == {"pairs": 12}


def test_pt_is_plain(tmp_path):
    written = vector((0, 7), model="toy", provenance={"pairs": 12})
    written.save(tmp_path / "v.pt")
    content = torch.load(tmp_path / "v.pt", weights_only=True)
    assert content["layers"] == CONVENTION and json.loads(content["provenance"]) == {"pairs": 12}
    assert {layer: tuple(t.shape) for layer, t in content["directions"].items()} == {0: (5,), 7: (5,)}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_cut_short_anywhere_is_refused(suffix, tmp_path):
    path = tmp_path / f"v{suffix}"
    # GGUF pads tensors to 32 bytes, and nothing is lost with the padding.
    vector(width=8, model="toy").save(path)
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 37), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(LoadError):
            SteeringVector.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_is_read_or_refused(suffix, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("vector") / f"v{suffix}"
    vector(model="toy").save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(LoadError), warnings.catch_warnings():
        # A key may have become one that embgeom does not know, of which it warns.
        warnings.simplefilter("ignore", EmbgeomWarning)
        SteeringVector.load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\0" * 4096])
def test_what_is_no_such_file_is_refused(suffix, content, tmp_path):
    (tmp_path / f"v{suffix}").write_bytes(content)
    with pytest.raises(LoadError):
        SteeringVector.load(tmp_path / f"v{suffix}")


def by_name(name):
    return {f"{name}{layer}": torch.full((1, 4), float(layer)) for layer in (0, 5)}


@pytest.mark.parametrize(
    "content",
    [
        {0: torch.zeros(4), 5: torch.full((4,), 5.0)},
        by_name(""),
        by_name("layer_"),
        by_name("layers."),
        by_name("direction."),
        {"directions": by_name("")},
        {"layer_activations": {0: torch.zeros(4), 5: torch.full((4,), 5.0)}, "layer_type": "decoder_block"},
    ],
    ids=["numbers", "strings", "layer_", "layers.", "direction.", "directions", "steering-vectors"],
)
def test_layouts_of_other_tools_are_read(content, tmp_path):
    torch.save(content, tmp_path / "v.pt")
    read = SteeringVector.load(tmp_path / "v.pt")
    assert read.layers == (0, 5) and read.directions[5].tolist() == [5.0] * 4
    with pytest.raises(LoadError, match="leave out layer=3"):
        SteeringVector.load(tmp_path / "v.pt", layer=3)


def test_a_tensor_alone_needs_its_layer(tmp_path):
    torch.save(torch.tensor([1.0, 2.0], requires_grad=True), tmp_path / "v.pt")
    safetensors_torch.save_file({"vector": torch.tensor([1.0, 2.0])}, tmp_path / "v.safetensors")
    for path in tmp_path.iterdir():
        assert SteeringVector.load(path, layer=13).directions[13].tolist() == [1.0, 2.0]
        with pytest.raises(LoadError, match="pass layer="):
            SteeringVector.load(path)
        with pytest.raises(InputError, match="layer = -1"):
            SteeringVector.load(path, layer=-1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read_exactly(dtype, tmp_path):
    tensors = {"direction.3": torch.tensor(EXACT, dtype=dtype)}
    torch.save(tensors, tmp_path / "v.pt")
    safetensors_torch.save_file(tensors, tmp_path / "v.safetensors")
    for path in tmp_path.iterdir():
        assert SteeringVector.load(path).directions[3].tolist() == EXACT


class Opened:
    """A pickle that makes a file when it is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_code_in_a_pickle_is_not_run(write, tmp_path):
    write({3: Opened(tmp_path / "harm")}, tmp_path / "v.pt")
    with pytest.raises(LoadError, match="run code") as refused:
        SteeringVector.load(tmp_path / "v.pt")
    assert not (tmp_path / "harm").exists()
    # Torch's own message is about how to run the code, in bold letters of a terminal.
    assert "weights" not in str(refused.value).lower() and "\x1b" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(4)], "holds a list"),
        ({}, "no steering vector"),
        ({"layer": 3, "vector": torch.ones(4)}, "holds 'layer' = 3 beside its tensors"),
        ({3: torch.ones(4, dtype=torch.int64)}, "torch.int64"),
        ({3: torch.ones(4), "bias": torch.ones(4)}, "names no layer"),
        ({"hidden_states.3": torch.ones(4), "hidden_states.4": torch.ones(4)}, "names no layer"),
        ({3: torch.ones(2, 4)}, r"shape \(2, 4\)"),
        ({3: torch.tensor(1.0)}, r"shape \(\)"),
        ({3: torch.ones(4).to_sparse()}, "not a plain tensor"),
        ({3: torch.ones(4, device="meta")}, "not a plain tensor"),
        ({-1: torch.ones(4)}, "counted from 0"),
        ({3: torch.ones(4), "3": torch.ones(4)}, "two directions for layer 3"),
        ({3: torch.tensor([1e300], dtype=torch.float64)}, "infinity"),
        ({"layer_activations": {3: torch.ones(4)}, "layer_type": "mlp"}, "'mlp'"),
        ({"directions": 3}, "as a int"),
    ],
)
def test_pt_that_does_not_fit_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "v.pt")
    with pytest.raises(LoadError, match=message):
        SteeringVector.load(tmp_path / "v.pt")


@pytest.mark.parametrize(
    ("note", "value", "message"),
    [
        ("format_version", "2", "upgrade embgeom"),
        ("layers", "hidden_states[i]", "only those 'added to the output"),
        ("provenance", "{", "not valid JSON"),
        ("provenance", "[]", "JSON list"),
    ],
)
def test_a_header_that_says_something_else_is_refused(note, value, message, tmp_path):
    vector().save(tmp_path / "v.pt")
    content = torch.load(tmp_path / "v.pt", weights_only=True)
    torch.save({**content, note: value}, tmp_path / "v.pt")
    with pytest.raises(LoadError, match=message):
        SteeringVector.load(tmp_path / "v.pt")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"embgeom": "{"}, "not valid JSON"),
        ({"embgeom": "[]"}, None),
        ({"embgeom": '{"format": "embgeom.steering_vector", "format_version": 1}'}, "format version None"),
        ({"embgeom": "[" * 100_000}, "JSON"),
    ],
)
def test_a_header_of_safetensors_that_is_damaged_is_refused(metadata, message, tmp_path):
    path = tmp_path / "v.safetensors"
    safetensors_numpy.save_file({"direction.3": np.ones(4, dtype="f4")}, path, metadata)
    if message is None:
        assert SteeringVector.load(path).provenance == {"imported_from": "v.safetensors"}
        return
    with pytest.raises(LoadError, match=message):
        SteeringVector.load(path)


@pytest.mark.parametrize("name", ["9" * 5000, "direction." + "1" * 400, "layer_\u0663"])
def test_names_that_are_no_layer_are_refused(name, tmp_path):
    torch.save({name: torch.ones(4)}, tmp_path / "v.pt")
    with pytest.raises(LoadError, match="does not say of which layer"):
        SteeringVector.load(tmp_path / "v.pt")


def test_a_surrogate_in_the_provenance_is_kept(tmp_path):
    vector().save(tmp_path / "v.pt")
    content = torch.load(tmp_path / "v.pt", weights_only=True)
    torch.save({**content, "provenance": '{"a": "\ud800"}'}, tmp_path / "v.pt")
    found = SteeringVector.load(tmp_path / "v.pt")
    found.save(tmp_path / "v.safetensors")
    assert found.provenance == SteeringVector.load(tmp_path / "v.safetensors").provenance == {"a": "\ud800"}


def test_safetensors_that_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "v.safetensors"
    safetensors_numpy.save_file({"direction.3": np.ones(4, dtype="i4")}, path)
    with pytest.raises(LoadError, match="I32"):
        SteeringVector.load(path)
    safetensors_numpy.save_file({"direction.3": np.array([0.0, 1e300])}, path)
    with pytest.raises(LoadError, match="too large for float32"):
        SteeringVector.load(path)


def test_paths_that_do_not_work_say_so(tmp_path):
    with pytest.raises(LoadError, match="No such file"):
        SteeringVector.load(tmp_path / "absent.gguf")
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(LoadError, match="directory"):
        SteeringVector.load(tmp_path / "folder.pt")
    for wrong in ("v.txt", "v", "", None, "v\0.pt", "\ud800.pt"):
        with pytest.raises(LoadError, match=r"suffix|not the path"):
            SteeringVector.load(wrong)
        with pytest.raises(OutputError, match=r"suffix|not the path"):
            vector().save(wrong)
    with pytest.raises(OutputError, match=r"name a file in \.safetensors, \.pt, \.npz, \.gguf"):
        vector().save("v.npy")
    with pytest.raises(OutputError, match="no folder"):
        vector().save(tmp_path / "absent" / "v.pt")
    with pytest.raises(OutputError, match="not an ordinary file"):
        vector().save(tmp_path / "folder.pt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write and read everything")
def test_missing_permissions_are_told(tmp_path):
    path = tmp_path / "v.pt"
    vector().save(path)
    path.chmod(0)
    with pytest.raises(LoadError, match="permission"):
        SteeringVector.load(path)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match="denied"):
            vector().save(tmp_path / "w.pt")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_provenance_that_is_no_json_is_refused(suffix, tmp_path):
    for wrong in ({"model": object()}, {"rows": np.arange(3)}, {(1, 2): "key"}):
        with pytest.raises(InputError, match="cannot be written"):
            vector(provenance=wrong).save(tmp_path / f"v{suffix}")
    with pytest.raises(InputError, match="model = 7 is not a str"):
        vector(model=7).save(tmp_path / f"v{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pt", ".gguf"])
def test_a_missing_package_is_named(suffix, tmp_path, monkeypatch):
    vector().save(tmp_path / f"v{suffix}")
    for name in ("torch", "gguf"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    # A control vector is written by the package, and read without it.
    for act in (vector().save, *([] if suffix == ".gguf" else [SteeringVector.load])):
        with pytest.raises(InputError, match=r'pip install "embgeom\[steer\]"'):
            act(tmp_path / f"v{suffix}")

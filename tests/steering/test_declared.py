"""What vector files say beside their directions, and files that are another thing than they seem."""

import os
import threading
import time
import warnings

import numpy as np
import pytest

from embgeom import Emb2Emb, LoadError, OutputError, SteeringVector, load
from embgeom.errors import EmbgeomWarning
from tests.helpers.loading import matrix, words, write_raw_safetensors

torch = pytest.importorskip("torch", reason="torch is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")
from safetensors.numpy import save_file  # noqa: E402

from tests.helpers.gguf import raw, text, vocabulary, write_gguf  # noqa: E402

ROW = matrix(1, 8)[0]


def control_vector(path, **keys):
    known = {"controlvector.model_hint": "llama", "controlvector.layer_count": 1}
    return write_gguf(path, {"direction.1": ROW}, "controlvector", known | keys)


REFUSED = [
    ("controlvector.mode", "project"),
    ("controlvector.operation", "directional_ablation"),
    ("controlvector.ablate", True),
    ("other.method", "orthogonalize"),
    ("tool.intervention", "clamp"),
    ("tool.project_out", "true"),
    ("general.type", "projection"),
    ("tool.use", "project"),
]
WARNED = [
    ("controlvector.scale", 0.5, "0.5"),
    ("repeng.coefficient", -2.0, "-2"),
    ("my.Strength", "1.5", "1.5 \\* vector"),
    ("tool.scales", [1.0, 2.0], "an array"),
    ("controlvector.anything", "new", "does not obey"),
    ("controlvector.hook_point", "resid_pre_norm", "does not obey"),
    ("tool.hook", "mlp.3", "does not obey"),
    ("tool.mode", "amplify", "does not obey"),
    ("tool.sign", -1.0, "-1 \\* vector"),
    ("tool.negate", True, "-1 \\* vector"),
    ("inverted", "yes", "-1 \\* vector"),
]
SILENT = [
    ("general.name", "a projection of joy"),
    ("repeng.method", "pca_diff"),
    ("tool.mode", "add"),
    ("tool.scale", 1.0),
    ("tool.hook", "resid_post"),
    ("tool.projection_dim", 64),
    ("tool.project", "my-project"),
    ("tool.ablate", False),
    ("tool.negate", False),
    ("tool.sign", 1.0),
    ("general.quantization_version", 2),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_gguf_that_names_another_operation_is_refused(key, value, tmp_path):
    with pytest.raises(LoadError, match=f"says {key} = {value!r}, and a steering vector is added"):
        SteeringVector.load(control_vector(tmp_path / "v.gguf", **{key: value}))


@pytest.mark.parametrize(("key", "value", "message"), WARNED)
def test_a_gguf_that_names_a_factor_or_a_place_is_warned_of(key, value, message, tmp_path):
    with pytest.warns(EmbgeomWarning, match=f"says {key} = .*{message}"):
        vector = SteeringVector.load(control_vector(tmp_path / "v.gguf", **{key: value}))
    np.testing.assert_array_equal(vector.directions[1], ROW)


@pytest.mark.parametrize(("key", "value"), SILENT)
def test_other_keys_are_no_reason_to_warn(key, value, tmp_path):
    assert SteeringVector.load(control_vector(tmp_path / "v.gguf", **{key: value})).layers == (1,)


def test_the_other_formats_are_asked_the_same(tmp_path):
    save_file({"direction.1": ROW}, tmp_path / "v.safetensors", {"mode": "ablation"})
    torch.save({"direction.1": torch.tensor(ROW), "mode": "ablation"}, tmp_path / "v.pt")
    np.savez(tmp_path / "v.npz", **{"direction.1": ROW, "mode": "ablation"})
    for path in tmp_path.iterdir():
        with pytest.raises(LoadError, match="says mode = 'ablation'"):
            SteeringVector.load(path)
    save_file({"direction.1": ROW}, tmp_path / "v.safetensors", {"scale": "3"})
    torch.save({"directions": {1: torch.tensor(ROW)}, "scale": 3}, tmp_path / "v.pt")
    np.savez(tmp_path / "v.npz", **{"direction.1": ROW, "scale": 3.0})
    for path in tmp_path.iterdir():
        with pytest.warns(EmbgeomWarning, match=r"says scale = .*3 \* vector"):
            SteeringVector.load(path)


def test_what_embgeom_writes_is_read_without_a_word(tmp_path):
    vector = SteeringVector({1: ROW}, "toy", {"method": "projection", "scale": 2})
    for suffix in (".safetensors", ".pt", ".gguf"):
        vector.save(tmp_path / f"v{suffix}")
        assert SteeringVector.load(tmp_path / f"v{suffix}").provenance == vector.provenance


def test_numbers_beside_tensors(tmp_path):
    torch.save({"3": torch.tensor(ROW), "coefficient": 5.0}, tmp_path / "c.pt")
    with pytest.warns(EmbgeomWarning, match=r"coefficient = 5.0, which is not applied.*5 \* vector"):
        assert SteeringVector.load(tmp_path / "c.pt").layers == (3,)
    torch.save({"vector": torch.tensor(ROW), "layer": 3}, tmp_path / "c.pt")
    with pytest.raises(LoadError, match="holds 'layer' = 3 beside its tensors"):
        SteeringVector.load(tmp_path / "c.pt", layer=3)


def saved(folder, array):
    """A lone array in each format that has no layer of its own."""
    torch.save(torch.tensor(array), folder / "direction.pt")
    np.save(folder / "direction.npy", array)
    np.savez(folder / "direction.npz", direction=array)
    save_file({"direction": array}, folder / "direction.safetensors")
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


def test_rows_of_all_hidden_states_say_how_they_may_be_counted(tmp_path):
    for path in saved(tmp_path, matrix(5, 8)):
        with pytest.raises(
            LoadError, match=r"\(5, 8\).*layers \+ 1 rows.*row 0 .* embeddings.*row i for layer i - 1"
        ):
            SteeringVector.load(path)
        with pytest.raises(LoadError, match=r"take row 3 for layer 2\. Of one row for each layer take row 2"):
            SteeringVector.load(path, layer=2)


@pytest.mark.parametrize("shape", [(8,), (1, 8), (1, 1, 8)])
def test_a_lone_direction_is_read_by_its_layer(shape, tmp_path):
    for path in saved(tmp_path, ROW.reshape(shape)):
        np.testing.assert_array_equal(SteeringVector.load(path, layer=2).directions[2], ROW)
        with pytest.raises(LoadError, match="does not say of which layer; pass layer="):
            SteeringVector.load(path)


def test_metadata_beside_a_direction_mean_the_input_of_their_layer(tmp_path):
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 2}')
    for path in saved(tmp_path, ROW):
        assert SteeringVector.load(path).layers == SteeringVector.load(path, layer=1).layers == (1,)
        with pytest.warns(EmbgeomWarning, match="read for layer 2.*pass layer=1"):
            SteeringVector.load(path, layer=2)
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 0}')
    with pytest.raises(LoadError, match="no layer's"):
        SteeringVector.load(tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"layer": 2}')
    with pytest.raises(
        LoadError, match=r"not whether its input or its output.*\*input\*, the output of layer 1"
    ):
        SteeringVector.load(tmp_path / "direction.pt")
    for nothing in ("{", "[]", '{"pos": 1, "layer": true}', "[" * 9999, "x" * 99999):
        (tmp_path / "direction_metadata.json").write_text(nothing)
        with pytest.raises(LoadError, match="pass layer="):
            SteeringVector.load(tmp_path / "direction.pt")


def test_arrays_by_the_names_of_their_layers(tmp_path):
    np.savez_compressed(
        tmp_path / "v.npz", **{"3": ROW.astype(np.float64), "layer_5": ROW.astype(np.float16)}
    )
    vector = SteeringVector.load(tmp_path / "v.npz")
    np.testing.assert_array_equal(vector.directions[3], ROW)
    np.testing.assert_array_equal(vector.directions[5], ROW.astype(np.float16))
    assert vector.provenance == {"imported_from": "v.npz"}
    for array, message in (
        (np.arange(8), "int64"),
        (np.array(["a"]), "<U1"),
        (np.array([None]), "it holds object, not plain numbers"),
    ):
        np.savez(tmp_path / "w.npz", **{"3": array})
        with pytest.raises(LoadError, match=message):
            SteeringVector.load(tmp_path / "w.npz")
    (tmp_path / "w.npy").write_bytes((tmp_path / "v.npz").read_bytes()[:100])
    with pytest.raises(LoadError):
        SteeringVector.load(tmp_path / "w.npy")


def test_scalars_are_no_directions(tmp_path):
    entry = {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}
    write_raw_safetensors(tmp_path / "v.safetensors", {"direction.1": entry}, b"\0\0")
    write_gguf(tmp_path / "v.gguf", {"direction.1": np.ones((1, 8))}, "controlvector")
    torch.save({1: torch.tensor(1.0)}, tmp_path / "v.pt")
    np.savez(tmp_path / "v.npz", **{"1": 1.0})
    np.save(tmp_path / "v.npy", np.float32(1.0))
    for path in tmp_path.iterdir():
        with pytest.raises(LoadError):
            SteeringVector.load(path)


def test_tensors_larger_than_their_file_are_refused_before_they_are_made(tmp_path):
    torch.save({1: torch.zeros(1).expand(1 << 40)}, tmp_path / "v.pt")
    torch.save({layer: torch.zeros(1).expand(1 << 22) for layer in range(40)}, tmp_path / "w.pt")
    np.savez_compressed(tmp_path / "v.npz", **{"1": np.zeros(1 << 26, dtype=np.float32)})
    np.savez_compressed(tmp_path / "w.npz", **{"1": np.zeros(1 << 27, dtype=np.float32)})
    np.save(tmp_path / "v.npy", np.zeros(1 << 26, dtype=np.float16))
    for path in tmp_path.iterdir():
        with pytest.raises(LoadError, match=r"numbers, .*of shape|unpacks to"):
            SteeringVector.load(path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    for suffix in (".safetensors", ".pt", ".gguf", ".npy", ".npz"):
        path = tmp_path / f"pipe{suffix}"
        os.mkfifo(path)
        with pytest.raises(LoadError, match="not a regular file"):
            SteeringVector.load(path)
        (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
        with pytest.raises(LoadError, match="not a regular file"):
            SteeringVector.load(tmp_path / f"device{suffix}")
    with pytest.raises(LoadError, match="not a regular file"):
        Emb2Emb.load(tmp_path / "pipe.safetensors")


def test_a_model_named_by_mistake_is_refused_by_its_first_key(tmp_path):
    tokens = [f"t{i}" for i in range(100_000)]
    keys = vocabulary(tokens, types=[1] * len(tokens)) | {
        "tokenizer.ggml.merges": [f"a b{t}" for t in tokens]
    }
    path = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": matrix(40, 8)}, "llama", keys)
    started = time.monotonic()
    with pytest.raises(LoadError, match=r"architecture 'llama'.*not that of the model"):
        SteeringVector.load(path)
    assert time.monotonic() - started < 0.5
    # What comes after that key is not looked at.
    broken = raw(text("general.architecture") + b"\x08\0\0\0" + text("llama") + b"\xff" * 64, counts=(0, 4))
    path.write_bytes(broken)
    with pytest.raises(LoadError, match="architecture 'llama'"):
        SteeringVector.load(path)
    path.write_bytes(raw(counts=(0, 0)))
    with pytest.raises(LoadError, match="architecture ''"):
        SteeringVector.load(path)


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors", ".npy"])
def test_a_file_system_that_maps_nothing(suffix, tmp_path, monkeypatch):
    import mmap

    class Refuses(np.memmap):
        def __new__(cls, *arguments, **options):
            raise OSError(19, "No such device")

    path = tmp_path / f"v{suffix}"
    np.save(path, ROW) if suffix == ".npy" else SteeringVector({1: ROW}).save(path)
    monkeypatch.setattr(np, "memmap", Refuses)
    monkeypatch.setattr(mmap, "mmap", Refuses)
    vector = SteeringVector.load(path, layer=1 if suffix == ".npy" else None)
    np.testing.assert_array_equal(vector.directions[1], ROW)
    wide = matrix(40, 1024)
    model = write_gguf(tmp_path / "m.gguf", {"token_embd.weight": wide}, "llama", vocabulary(words(40)))
    np.testing.assert_array_equal(load(model).matrix, wide)


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors", ".pt"])
def test_a_vector_that_is_replaced_meanwhile_is_the_old_or_the_new_one(suffix, tmp_path):
    """Two vectors take turns under one name; no reading may mix their layers."""
    states = [SteeringVector({b: np.full(64, 10.0 * s + b) for b in (1, 2, 3)}) for s in (1, 2)]
    for number, state in enumerate(states):
        state.save(tmp_path / f"s{number}{suffix}")
    contents = [(tmp_path / f"s{number}{suffix}").read_bytes() for number in range(2)]
    target, stop = tmp_path / f"v{suffix}", threading.Event()
    target.write_bytes(contents[0])

    def replace():
        turn = 0
        while not stop.is_set():
            turn += 1
            (tmp_path / "next").write_bytes(contents[turn % 2])
            (tmp_path / "next").replace(target)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(100):
            found = SteeringVector.load(target).directions
            assert {found[layer][0] // 10 for layer in found} in ({1.0}, {2.0})
    finally:
        stop.set()
        thread.join()


def test_warnings_name_the_line_of_the_caller(tmp_path):
    path = control_vector(tmp_path / "v.gguf", **{"controlvector.scale": 0.5})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        SteeringVector.load(path)
    assert [w.filename for w in told] == [__file__]


@pytest.mark.parametrize("suffix", [".gguf", ".safetensors", ".pt"])
def test_the_longest_name_that_a_file_can_have(suffix, tmp_path):
    path, vector = tmp_path / ("n" * (255 - len(suffix)) + suffix), SteeringVector({1: ROW})
    vector.save(path)
    np.testing.assert_array_equal(SteeringVector.load(path).directions[1], ROW)
    for act in (vector.save, SteeringVector.load):
        with pytest.raises((OutputError, LoadError), match="too long"):
            act(tmp_path / f"n{path.name}")

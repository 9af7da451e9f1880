"""Reading one tensor of a local file: file systems that map nothing, files replaced or written to."""

import hashlib
import mmap
import os
import sys
import threading
import time

import numpy as np
import pytest

from embgeom.errors import LoadError
from embgeom.loading import load
from embgeom.loading.checkpoint.torch_file import TorchFile
from embgeom.loading.folder import LocalFile
from embgeom.loading.safetensors_file import SafetensorsFile
from tests.helpers.loading import (
    matrix,
    tokenizer,
    words,
    write_folder,
    write_raw_safetensors,
    write_safetensors,
)
from tests.helpers.printed import Terminal

X = matrix(40, 8)


def refuse(*_, **__):
    raise OSError(19, "No such device")


class RefusingMap(np.memmap):
    def __new__(cls, *_, **__):
        refuse()


@pytest.fixture(params=["np.memmap", "mmap.mmap"])
def no_maps(request, monkeypatch):
    """A file system that maps no files, as some network, FUSE and container ones."""
    if request.param == "np.memmap":
        monkeypatch.setattr(np, "memmap", RefusingMap)
    else:
        monkeypatch.setattr(mmap, "mmap", refuse)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_where_nothing_can_be_mapped_the_bytes_are_read(tmp_path, no_maps, dtype):
    folder = write_folder(tmp_path, {"other": X, "wte.weight": X.astype(dtype), "more": X})
    np.testing.assert_array_equal(load(folder).matrix, X.astype(dtype).astype(np.float32))


def test_reading_shows_progress_and_maps_do_not(tmp_path, no_maps, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    folder = write_folder(tmp_path, {"wte.weight": X})
    load(folder, progress=True)
    assert "reading model.safetensors" in (shown := terminal.getvalue())
    load(folder)
    assert terminal.getvalue() == shown


def test_a_checkpoint_of_torch_is_read_where_it_cannot_be_mapped(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    torch.save({"wte.weight": torch.from_numpy(X)}, tmp_path / "x.pt")

    def no_map(*_, **__):
        raise RuntimeError("unable to mmap 1480 bytes from file <x.pt>: No such device (19)")

    monkeypatch.setattr(torch.UntypedStorage, "from_file", no_map)
    np.testing.assert_array_equal(load(tmp_path / "x.pt", vocabulary=words(40)).matrix, X)


def test_header_and_tensor_are_of_the_file_that_was_opened(tmp_path):
    path = write_safetensors(tmp_path / "model.safetensors", {"a": X[:3], "b": X})
    file = SafetensorsFile(path)
    write_safetensors(tmp_path / "new", {"b": -X, "a": -X[:3]})
    (tmp_path / "new").replace(path)
    np.testing.assert_array_equal(file.read("a"), X[:3])
    mapped = file.read("b")
    path.unlink()
    del file
    np.testing.assert_array_equal(mapped, X)


def test_a_file_that_is_replaced_all_the_time_gives_one_state_or_an_error(tmp_path):
    """Every load gives the matrix of one of the files that stood there, and that file's SHA-256."""
    tokens = tokenizer(words(40))
    first, second = {"wte.weight": X, "z": X + 1}, {"z": X + 2, "wte.weight": X + 3}
    folder = write_folder(tmp_path / "m", first, tokens=tokens)
    states = []
    for tensors in (first, second):
        write_safetensors(tmp_path / "state", tensors)
        states.append((tmp_path / "state").read_bytes())
    right = {
        hashlib.sha256(s).hexdigest(): t["wte.weight"] for s, t in zip(states, (first, second), strict=True)
    }
    stop = threading.Event()

    def replace():
        turn = 0
        while not stop.is_set():
            (tmp_path / "next").write_bytes(states[turn % 2])
            (tmp_path / "next").replace(folder / "model.safetensors")
            turn += 1

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        digests = []
        for _ in range(150):
            loaded = load(folder)
            assert any(np.array_equal(loaded.matrix, x) for x in right.values())
            try:
                digest = loaded.provenance.sha256
            except LoadError:
                continue
            digests.append(digest)
            np.testing.assert_array_equal(loaded.matrix, right[digest])
    finally:
        stop.set()
        thread.join()


def test_what_is_written_to_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = write_safetensors(tmp_path / "model.safetensors", {"wte.weight": X.astype(np.float16)})
    file = SafetensorsFile(path)
    time.sleep(0.02)  # the clock of a file system ticks a few times in a hundredth of a second
    with path.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"abcd")
    with pytest.raises(LoadError, match="was written to while it was read"):
        file.read("wte.weight")
    with pytest.raises(LoadError, match="ends before byte"):
        LocalFile(path).read(0, 1 << 20)


def test_a_torch_file_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    path, other = tmp_path / "x.pt", tmp_path / "y.pt"
    torch.save({"wte.weight": torch.from_numpy(X)}, path)
    torch.save({"wte.weight": torch.from_numpy(-X)}, other)
    read = torch.load

    def replace_then_read(*args, **options):
        other.replace(path)
        return read(*args, **options)

    monkeypatch.setattr(torch, "load", replace_then_read)
    with pytest.raises(LoadError, match="was replaced while it was read"):
        TorchFile(path)


def test_a_changed_file_has_no_hash_and_loses_no_result(tmp_path):
    folder = write_folder(tmp_path, {"wte.weight": X})
    loaded = load(folder)
    write_safetensors(tmp_path / "new", {"wte.weight": -X})
    (tmp_path / "new").replace(folder / "model.safetensors")
    with pytest.raises(LoadError, match="is not the file any more that was loaded"):
        _ = loaded.provenance.sha256
    described = loaded.to_dict()["provenance"]
    assert described["sha256"] is None and "not the file any more" in described["notes"][-1]
    (folder / "model.safetensors").unlink()
    assert load(write_folder(tmp_path, {"wte.weight": X})).provenance.sha256
    np.testing.assert_array_equal(loaded.matrix, X)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_only_regular_files_are_read(tmp_path, name):
    if name.endswith(".bin"):
        pytest.importorskip("torch")
    folder = write_folder(tmp_path, {"wte.weight": X})
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / name)
    with pytest.raises(LoadError, match="is not a regular file"):
        load(folder)
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(LoadError, match="is not a regular file"):
        load(folder)


@pytest.mark.parametrize("shape", [[0, 10**30], [0, 1 << 62], [1] * 70, [1 << 40, 0, 1 << 40]])
def test_shapes_that_no_array_can_have(tmp_path, shape):
    end = 0 if 0 in shape else 4
    header = {"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}
    path = write_raw_safetensors(tmp_path / "m.safetensors", header, bytes(end))
    with pytest.raises(LoadError, match="entry for x has the shape"):
        SafetensorsFile(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scalars_and_empty_tensors(tmp_path, dtype):
    tensors = {"one": np.array(2.5, dtype), "none": np.zeros((0, 3), dtype)}
    file = SafetensorsFile(write_safetensors(tmp_path / "m.safetensors", tensors))
    assert file.read("one").shape == () and file.read("one") == 2.5
    assert file.read("none").shape == (0, 3)


def test_a_flipped_bit_in_a_pytorch_file_is_found_by_its_checksum(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    path = tmp_path / "model.pt"
    torch.save({"wte.weight": torch.tensor(matrix(40, 8)), "other": torch.tensor(matrix(40, 8, 1))}, path)
    raw = bytearray(path.read_bytes())
    at = raw.index(matrix(40, 8).tobytes())
    raw[at + 77] ^= 1
    path.write_bytes(raw)
    with pytest.raises(LoadError, match=r"wte.weight in .* do not have the checksum"):
        load(path, vocabulary=words(40))
    np.testing.assert_array_equal(load(path, tensor="other", vocabulary=words(40)).matrix, matrix(40, 8, 1))

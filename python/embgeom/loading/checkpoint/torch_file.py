"""The tensors of a PyTorch checkpoint (.bin, .pt, .pth), read without running any code it may hold."""

from __future__ import annotations

import pickle
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom.errors import LoadError, first_line
from embgeom.loading.folder import LocalFile, check_dtype, to_float32

_STORED = {"torch.float32": "F32", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.float64": "F64"}
# How files of the format since torch 1.6 begin.
_ZIP = b"PK\x03\x04"
# Training frameworks put the model beside the optimizer, under one of these.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")


class TorchFile:
    """An open PyTorch checkpoint, used like a `SafetensorsFile`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LocalFile(path)
        self.state = self._file.state
        self._tensors = _tensors(load_torch(self._file, mapped=_is_zip(self._file)), path)
        # torch opens a path several times; the file at its end must be the one at its beginning.
        if LocalFile(path).state != self.state:
            raise LoadError(f"{path} was replaced while it was read; load it again")
        self.names: tuple[str, ...] = tuple(self._tensors)
        first: dict[tuple[Any, ...], str] = {}
        memory = {n: (t.data_ptr(), t.shape, t.stride(), t.dtype) for n, t in self._tensors.items()}
        self.aliases: dict[str, str] = {
            name: held for name, where in memory.items() if (held := first.setdefault(where, name)) != name
        }

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        stored = str(self._tensors[name].dtype)
        return _STORED.get(stored, stored)

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        import torch

        tensor, stored, where = self._tensors[name].detach(), self.dtype(name), f"{name} in {self.path}"
        check_dtype(stored, where)
        check_sum(tensor, where, self._file)
        try:
            raw = tensor.view(torch.int16).numpy().view(np.uint16) if stored == "BF16" else tensor.numpy()
        except (RuntimeError, TypeError) as error:
            # A tensor may have no data (of device "meta") or a layout that NumPy has not.
            raise LoadError(f"{where} is not a plain array: {first_line(error)}") from error
        return to_float32(raw, stored, name, progress=progress)


def check_sum(tensor: Any, where: str, file: LocalFile) -> None:
    """Compare the bytes of a tensor's storage with the checksums in its file, which torch does not do."""
    import torch

    # One without bytes, of the device "meta", is refused where its numbers are taken; files of the format
    # before torch 1.6 have no checksums.
    if tensor.device.type == "meta" or not _is_zip(file):
        return
    try:
        with file.stream() as stream, ZipFile(stream) as archive:
            records = {(record.file_size, record.CRC) for record in archive.infolist()}
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise LoadError(f"{file.path} is not a sound zip file ({error}); fetch it again") from error
    data = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
    if (data.nbytes, zlib.crc32(data)) not in records:
        raise LoadError(
            f"{where}: its bytes do not have the checksum that the file gives; the file is damaged, fetch it "
            "again (one saved without checksums, by torch.serialization.set_crc32_options(False), has to be "
            "saved with them)"
        )


def _is_zip(file: LocalFile) -> bool:
    return file.size >= len(_ZIP) and file.read(0, len(_ZIP)) == _ZIP


def load_torch(file: LocalFile, *, mapped: bool) -> Any:
    """Return what a PyTorch file holds; one of the format since torch 1.6, a zip file, can be mapped."""
    torch = need("torch", f"{file.path}, a PyTorch file,", extra="torch", or_else="; or take safetensors")
    try:
        with file.stream() as stream, warnings.catch_warnings():
            # Of files by other picklers torch says that it may not read them; then an error says so.
            warnings.simplefilter("ignore")
            try:
                where = file.path if mapped else stream
                return torch.load(where, map_location="cpu", weights_only=True, mmap=mapped)
            except RuntimeError as error:
                # Some network, FUSE and container file systems cannot map a file, but all can read it.
                if not mapped or "mmap" not in str(error):
                    raise
                return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises what its unpickler, its zip reader or the system raises, and documents none of it.
        # What its unpickler says is how to run the code in the file, and holds commands to a terminal.
        is_refusal = isinstance(error, pickle.UnpicklingError)
        what = "" if is_refusal else f": {first_line(error)}"
        raise LoadError(
            f"{file.path} cannot be read as a PyTorch file of plain tensors ({type(error).__name__}{what}); "
            "fetch it again. Objects that run code when they are loaded are never "
            "read: if you trust the file, load it with the library that wrote it and save its tensors alone"
        ) from error


def _tensors(held: Any, path: Path) -> dict[str, Any]:
    import torch

    if isinstance(held, torch.Tensor):
        return {"tensor": held}
    for wrapper in _WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping):
        raise LoadError(f"{path} holds a {type(held).__name__}, not a table of tensors")
    tensors = {
        str(k): v for k, v in held.items() if isinstance(v, torch.Tensor) and v.layout == torch.strided
    }
    if not tensors:
        raise LoadError(f"{path} holds no tensors, but {', '.join(map(str, list(held)[:5])) or 'nothing'}")
    return tensors

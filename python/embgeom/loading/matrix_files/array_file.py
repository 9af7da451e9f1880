"""Files of NumPy (.npy, .npz): their arrays, and a matrix with its tokens beside it or inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import FileState, Provenance
from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading.assemble import LoadRequest, assemble
from embgeom.loading.folder import LocalFile, check_dtype, check_matrix, is_file, to_float32, unreadable
from embgeom.loading.tokenizers.reading import listed_tokens, token_table
from embgeom.loading.tokenizers.table import TokenTable

ARRAY_SUFFIXES = (".npy", ".npz")
_STORED = {"float32": "F32", "float16": "F16", "float64": "F64"}
_TOKENS = ("tokens", "vocabulary")
_PIECE = 1 << 24
_ALONE = "array"


def load_array(path: Path, request: LoadRequest) -> Embeddings:
    matrix, stored, inside, state = read_array(path, request.tensor, progress=request.progress)
    table = request.tokens(lambda: inside or token_table(_tokens_beside(path)))
    provenance = Provenance(source=str(path), file=path, state=state, tensor=request.tensor, dtype=stored)
    return assemble(matrix, table, path.stem, provenance, request)


def read_array(
    path: Path, tensor: str | None = None, *, progress: bool = False
) -> tuple[npt.NDArray[np.float32], str, TokenTable | None, FileState]:
    """Return a matrix (V, d), its stored type, the tokens in a .npz, and the state of the file.

    A .npz holds ``matrix``, or one array of any name, and may hold ``tokens`` (or ``vocabulary``), V strings,
    and ``special``, those of them that are special: as strings, or as V booleans.
    """
    file = ArrayFile(path)
    if tensor is not None and not file.packed:
        raise InputError(
            f"tensor={tensor!r} has no meaning for {path}: a .npy holds one array without a name"
        )
    matrix = file.read(_matrix_name(file, tensor) if file.packed else _ALONE, progress=progress)
    table = _tokens_inside(file) if file.packed else None
    stored = _STORED.get(str(matrix.dtype.newbyteorder("=")), str(matrix.dtype))
    where = f"{tensor} in {path}" if tensor else str(path)
    check_dtype(stored, where)
    check_matrix(matrix.shape, where)
    result = to_float32(matrix, stored, path.name, progress=progress)
    file.check_unchanged()
    return result, stored, table, file.state


class ArrayFile:
    """An open .npy or .npz file; the one array of a .npy is named ``"array"``.

    All arrays are read through one descriptor, so a file that replaces this one meanwhile is never mixed in.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = LocalFile(path)
        self.state, self.check_unchanged = self._file.state, self._file.check_unchanged
        self.packed = self._file.read(0, min(2, self._file.size)) == b"PK"
        self._members = {_ALONE: ""}
        self.bytes = self._file.size
        if self.packed:
            with self._opened() as stream, ZipFile(stream) as archive:
                held = archive.infolist()
            # The archive lists the unpacked size of each array.
            self.bytes = sum(member.file_size for member in held)
            self._members = {member.filename.removesuffix(".npy"): member.filename for member in held}
            if len(self._members) != len(held):
                raise LoadError(f"{path} holds two arrays of one name; save it again")
        self.names = tuple(self._members)

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[Any]:
        """Return one array in its stored type; that of a .npy is mapped if possible."""
        with self._opened() as stream:
            if self.packed:
                with ZipFile(stream) as archive, archive.open(self._members[name]) as member:
                    return _read(member, archive.getinfo(self._members[name]).file_size)
            shape, fortran, dtype = _header(stream, self.bytes)
            shape = shape[::-1] if fortran else shape
            array = self._file.array(stream.tell(), dtype, shape, progress=progress)
            return array.T if fortran else array

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        try:
            with self._file.stream() as stream:
                yield stream
        except OSError as error:
            raise unreadable(self.path, error) from error
        except EmbgeomError:
            raise
        except Exception as error:
            # A damaged file makes NumPy and zipfile raise ValueError, EOFError, BadZipFile, zlib.error, ...
            raise LoadError(
                f"{self.path} cannot be read as NumPy arrays ({type(error).__name__}: {error!s:.200}); save "
                "it again with np.save or np.savez"
            ) from error


def _header(stream: IO[bytes], held: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format, which is for records")
    shape, fortran, dtype = readers[version](stream)
    # Pickled objects may run code, and neither numbers nor a list of strings need them.
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise ValueError(f"it holds {dtype}, not plain numbers or strings")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != held - stream.tell():
        raise ValueError(f"its header says {dtype} {list(shape)}, and {held - stream.tell()} bytes follow it")
    return shape, fortran, dtype


def _read(stream: IO[bytes], held: int) -> npt.NDArray[Any]:
    """Read a .npy of `held` bytes in pieces, straight to where they belong."""
    shape, fortran, dtype = _header(stream, held)
    flat = np.empty(prod(shape) * dtype.itemsize, dtype=np.uint8)
    done = 0
    while done < len(flat):
        piece = stream.read(min(_PIECE, len(flat) - done))
        if not piece:
            raise EOFError(f"it ends after {done} of {len(flat)} bytes")
        flat[done : done + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        done += len(piece)
    return flat.view(dtype).reshape(shape, order="F" if fortran else "C")


def _matrix_name(file: ArrayFile, tensor: str | None) -> str:
    wanted = "matrix" if tensor is None else tensor
    others = set(file.names) - {*_TOKENS, "special"}
    if tensor is None and len(others) == 1:
        (wanted,) = others
    if wanted not in file.names:
        raise LoadError(
            f"{file.path} holds no array {wanted!r}, but {', '.join(file.names) or 'nothing'}; pick one with "
            "tensor=NAME (--tensor NAME), or save it as matrix="
        )
    return wanted


def _tokens_inside(file: ArrayFile) -> TokenTable | None:
    names = [name for name in _TOKENS if name in file.names]
    if not names:
        return None
    if len(names) > 1:
        raise LoadError(f"{file.path} holds tokens and vocabulary, which are the same: keep one of them")
    table = listed_tokens(_strings(file, names[0]), file.path)
    special = file.read("special") if "special" in file.names else np.empty(0)
    if special.size == 0:
        return table
    if special.dtype == np.bool_ and special.shape == (len(table.tokens),):
        return replace(table, special=frozenset(np.flatnonzero(special).tolist()))
    marked = set(_strings(file, "special"))
    if unknown := marked - set(table.tokens.values()):
        raise LoadError(f"{file.path}: {min(unknown)!r} is special, but none of the tokens")
    return replace(table, special=frozenset(row for row, token in table.tokens.items() if token in marked))


def _strings(file: ArrayFile, name: str) -> list[str]:
    array = file.read(name)
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise LoadError(f"{file.path}: {name} is {array.dtype} {list(array.shape)}, not a list of strings")
    if array.dtype.kind == "S":
        try:
            return [text.decode("utf-8") for text in array.tolist()]
        except UnicodeDecodeError as error:
            raise LoadError(f"{file.path}: {name} is not UTF-8 ({error}); save it again") from error
    # NumPy makes strings of any code points, and printing them fails.
    points = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)) if array.nbytes else array
    if array.nbytes and points.max() > sys.maxunicode:
        raise LoadError(f"{file.path}: {name} holds the code point {points.max():#x}, not a character")
    return [str(text) for text in array.tolist()]


def _tokens_beside(matrix: Path) -> Path:
    names = [f"{matrix.stem}{end}" for end in (".tokens.txt", ".tokens.json", ".txt", ".json")]
    names += ["tokens.txt", "tokens.json", "tokenizer.json"]
    if (found := next((path for name in names if is_file(path := matrix.with_name(name))), None)) is None:
        raise LoadError(
            f"{matrix} has no tokens beside it ({', '.join(names)}); pass vocabulary= (--vocabulary), a list "
            "or a file"
        )
    return found

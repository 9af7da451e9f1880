"""A matrix saved by NumPy (.npy, .npz), with its tokens beside it or inside."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any, Literal
from zipfile import ZipFile

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.provenance import FileState
from embgeom.errors import EmbgeomError, InputError, LoadError
from embgeom.loading.convert import check_dtype, check_matrix, to_float32
from embgeom.loading.folder import LocalFile, is_file, unreadable
from embgeom.loading.tokenizers.given import listed_tokens
from embgeom.loading.tokenizers.table import TokenTable

ARRAY_SUFFIXES = (".npy", ".npz")
_STORED = {"float32": "F32", "float16": "F16", "float64": "F64"}

_PIECE = 1 << 24


def read_array(
    path: Path, tensor: str | None = None, *, progress: bool = False
) -> tuple[npt.NDArray[np.float32], str, TokenTable | None, FileState]:
    """Read the matrix of a .npy or .npz file: the matrix, its stored type, and the tokens a .npz holds."""
    # One descriptor for all of it: a file that is replaced meanwhile cannot mix with its successor.
    file = LocalFile(path)
    try:
        with file.stream() as stream:
            packed = stream.read(2) == b"PK"
            stream.seek(0)
            if packed:
                with ZipFile(stream) as archive:
                    matrix = _matrix_inside(archive, tensor, path)
                    table = _table_inside(archive, path)
            else:
                if tensor is not None:
                    raise InputError(
                        f"tensor={tensor!r} has no meaning for {path}: a .npy holds one array without a name"
                    )
                matrix, table = _mapped(file, stream, progress), None
    except OSError as error:
        raise unreadable(path, error) from error
    except EmbgeomError:
        raise
    except Exception as error:
        # A damaged file makes NumPy and zipfile raise ValueError, EOFError, BadZipFile, zlib.error, ...
        raise LoadError(
            f"{path} cannot be read as a NumPy array: {error}; save it again with np.save"
        ) from error
    stored = _STORED.get(str(matrix.dtype.newbyteorder("=")), str(matrix.dtype))
    where = f"{tensor} in {path}" if tensor else str(path)
    check_dtype(stored, where)
    check_matrix(matrix.shape, where)
    result = to_float32(matrix, stored, path.name, progress=progress)
    file.check_unchanged()
    return result, stored, table, file.state


def _header(stream: IO[bytes], held: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy: the shape, whether in Fortran order, and the type of `held` bytes in all."""
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version} of the format, which is for records")
    shape, fortran, dtype = readers[version](stream)
    # Pickled objects may run code, and neither a matrix nor a list of strings needs them.
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise ValueError(f"it holds {dtype}, no plain numbers or strings")
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != held - stream.tell():
        raise ValueError(f"its header says {dtype} {list(shape)}, and {held - stream.tell()} bytes follow it")
    return shape, fortran, dtype


def _mapped(file: LocalFile, stream: IO[bytes], progress: bool) -> npt.NDArray[Any]:
    """Return the array of a .npy as a view of the file, or read where the file cannot be mapped."""
    shape, fortran, dtype = _header(stream, file.size)
    if 0 in shape:
        return np.empty(shape, dtype)
    array = file.array(stream.tell(), dtype, shape[::-1] if fortran else shape, progress=progress)
    return array.T if fortran else array


def _read(
    stream: IO[bytes], shape: tuple[int, ...], order: Literal["C", "F"], dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    """Read an array in pieces, straight to where it belongs."""
    flat = np.empty(prod(shape) * dtype.itemsize, dtype=np.uint8)
    done = 0
    while done < len(flat):
        piece = stream.read(min(_PIECE, len(flat) - done))
        if not piece:
            raise EOFError(f"it ends after {done} of {len(flat)} bytes")
        flat[done : done + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        done += len(piece)
    return flat.view(dtype).reshape(shape, order=order)


def _names(archive: ZipFile) -> dict[str, str]:
    """Return the arrays of a .npz: name -> member."""
    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
    if len(names) != len(archive.namelist()):
        raise LoadError(f"{archive.filename or 'the .npz'} holds two arrays of one name; save it again")
    return names


def _member(archive: ZipFile, name: str) -> npt.NDArray[Any]:
    member = _names(archive)[name]
    with archive.open(member) as stream:
        shape, fortran, dtype = _header(stream, archive.getinfo(member).file_size)
        return _read(stream, shape, "F" if fortran else "C", dtype)


def _matrix_inside(archive: ZipFile, tensor: str | None, path: Path) -> npt.NDArray[Any]:
    names, wanted = _names(archive), "matrix" if tensor is None else tensor
    others = names.keys() - {"tokens", "vocabulary", "special"}
    if tensor is None and len(others) == 1:
        (wanted,) = others
    if wanted not in names:
        way_out = "pick one with tensor=NAME (--tensor NAME), or save it as matrix="
        raise LoadError(f"{path} holds no array {wanted!r}, but {', '.join(names) or 'nothing'}; {way_out}")
    return _member(archive, wanted)


def _table_inside(archive: ZipFile, path: Path) -> TokenTable | None:
    names = [name for name in ("tokens", "vocabulary") if name in _names(archive)]
    if len(names) != 1:
        if names:
            raise LoadError(f"{path} holds tokens and vocabulary, which are the same: keep one of them")
        return None
    table = listed_tokens(_strings(_member(archive, names[0]), names[0], path), path)
    if "special" not in _names(archive):
        return table
    special = _member(archive, "special")
    if special.size == 0:
        return table
    if special.dtype == np.bool_ and special.shape == (len(table.tokens),):
        return replace(table, special=frozenset(np.flatnonzero(special).tolist()))
    marked = set(_strings(special, "special", path))
    if unknown := marked - set(table.tokens.values()):
        raise LoadError(f"{path}: {min(unknown)!r} is special, but none of the tokens")
    return replace(table, special=frozenset(row for row, token in table.tokens.items() if token in marked))


def _strings(array: npt.NDArray[Any], name: str, path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise LoadError(f"{path}: {name} is {array.dtype} {list(array.shape)}, not a list of strings")
    if array.dtype.kind == "S":
        return [text.decode("utf-8") for text in array.tolist()]
    # NumPy makes strings of any code points, and whoever prints them fails.
    points = array.view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder)) if array.nbytes else array
    if array.nbytes and points.max() > sys.maxunicode:
        raise LoadError(f"{path}: {name} holds the code point {points.max():#x}, which is no character")
    return [str(text) for text in array.tolist()]


def find_tokens(matrix: Path) -> Path:
    """Return the file beside a .npy that holds its tokens; the names are tried in order."""
    names = [f"{matrix.stem}{end}" for end in (".tokens.txt", ".tokens.json", ".txt", ".json")]
    names += ["tokens.txt", "tokens.json", "tokenizer.json"]
    for name in names:
        if is_file(path := matrix.with_name(name)):
            return path
    raise LoadError(
        f"{matrix} has no tokens beside it ({', '.join(names)}); pass vocabulary= (--vocabulary), a list or "
        "a file"
    )

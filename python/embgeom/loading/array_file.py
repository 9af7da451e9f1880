"""A matrix saved by NumPy (.npy, .npz), with its tokens beside it or inside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embgeom.errors import LoadError
from embgeom.loading.convert import check_dtype, check_matrix, to_float32
from embgeom.loading.folder import parse_json, read_bytes, read_lines, unreadable
from embgeom.loading.tokens import TokenTable, read_tokenizer_json
from embgeom.spelling import Spelling

ARRAY_SUFFIXES = (".npy", ".npz")
_STORED = {"float32": "F32", "float16": "F16", "float64": "F64"}

Tokens = str | Path | Sequence[str]


def read_array(path: Path, *, progress: bool = False) -> tuple[NDArray[np.float32], str, list[str] | None]:
    """Read the matrix of a .npy or .npz file: the matrix, its stored type, and the tokens a .npz holds.

    Raises
    ------
    LoadError
        If the file cannot be read, or the matrix is not of floating point.
    """
    tokens: list[str] | None = None
    try:
        # Pickled objects may run code, and neither a matrix nor a list of strings needs them.
        content: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content as arrays:
                matrix = _member(arrays, "matrix", path)
                tokens = _strings(arrays["tokens"], path) if "tokens" in arrays.files else None
        else:
            matrix = np.asarray(content)
    except OSError as error:
        raise unreadable(path, error) from error
    except LoadError:
        raise
    except Exception as error:
        # A damaged file makes NumPy raise ValueError, EOFError, BadZipFile, SyntaxError, ...
        raise LoadError(
            f"{path} cannot be read as a NumPy array: {error}; save it again with np.save"
        ) from error
    stored = _STORED.get(str(matrix.dtype.newbyteorder("=")), str(matrix.dtype))
    check_dtype(stored, str(path))
    check_matrix(matrix.shape, str(path))
    return to_float32(matrix, stored, path.name, progress=progress), stored, tokens


def _member(arrays: Any, name: str, path: Path) -> NDArray[Any]:
    if name not in arrays.files:
        raise LoadError(f"{path} holds no array {name!r}, but {', '.join(arrays.files)}; save it as {name}=")
    return np.asarray(arrays[name])


def _strings(array: NDArray[Any], path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise LoadError(f"{path}: tokens is {array.dtype} {list(array.shape)}, not a list of strings")
    return [str(t) for t in np.char.decode(array, "utf-8")] if array.dtype.kind == "S" else array.tolist()


def token_table(tokens: Tokens) -> TokenTable:
    """Return the tokens that a user passes: a list, or the path of a .txt, a .json list or a tokenizer.json.

    A list and the lines of a .txt are taken in the order of the rows; how they write text is guessed from
    their marks.
    """
    if isinstance(tokens, (str, Path)):
        path = Path(tokens).expanduser()
        if path.suffix != ".json":
            return _plain(read_lines(path), path)
        content = parse_json(read_bytes(path), str(path))
        if isinstance(content, dict):
            return read_tokenizer_json(path)
        return _plain(content, path)
    return _plain(tokens, None)


def find_tokens(matrix: Path) -> Path:
    """Return the file beside a .npy that holds its tokens; the names are tried in order."""
    names = [f"{matrix.stem}{end}" for end in (".tokens.txt", ".tokens.json", ".txt", ".json")]
    names += ["tokens.txt", "tokens.json", "tokenizer.json"]
    for name in names:
        if (path := matrix.with_name(name)).is_file():
            return path
    raise LoadError(f"{matrix} has no tokens beside it ({', '.join(names)}); pass tokens=, a list or a file")


def _plain(tokens: Any, path: Path | None) -> TokenTable:
    if not isinstance(tokens, Sequence) or not all(isinstance(t, str) for t in tokens):
        raise LoadError(f"{path or 'tokens='} is not a list of strings, one for each row")
    return TokenTable(path, dict(enumerate(tokens)), Spelling.guess(tokens))

"""A matrix saved by NumPy (.npy, .npz), with its tokens beside it or inside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.convert import check_dtype, check_matrix, to_float32
from embgeom.loading.folder import parse_json, read_bytes, read_lines, unreadable
from embgeom.loading.tokenizers import read_file
from embgeom.loading.tokens import TokenTable, read_tokenizer_json, vocabulary_table
from embgeom.loading.vocabulary_files import uncounted
from embgeom.spelling import Spelling

ARRAY_SUFFIXES = (".npy", ".npz")
_STORED = {"float32": "F32", "float16": "F16", "float64": "F64"}

Tokens = str | Path | Sequence[str]


def read_array(
    path: Path, *, progress: bool = False
) -> tuple[npt.NDArray[np.float32], str, TokenTable | None]:
    """Read the matrix of a .npy or .npz file: the matrix, its stored type, and the tokens a .npz holds.

    A .npz holds ``matrix`` (V, d), and may hold ``tokens``, V strings, and ``special``, those of them that
    are special: as strings, or as V booleans.

    Parameters
    ----------
    path : Path
        The file.
    progress : bool
        Whether to show a progress bar of the conversion.

    Returns
    -------
    matrix : ndarray of float32, shape (V, d)
        The matrix: of a .npy a view of the file where it is stored so, else a copy.
    stored : str
        The type in which the file stores it, as safetensors names it: ``"F32"``, ...
    table : TokenTable or None
        The tokens, where a .npz holds them.

    Raises
    ------
    LoadError
        If the file cannot be read, or the matrix is not of floating point.
    """
    table: TokenTable | None = None
    try:
        # Pickled objects may run code, and neither a matrix nor a list of strings needs them.
        content: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content as arrays:
                matrix = _member(arrays, "matrix", path)
                table = _table_inside(arrays, path) if "tokens" in arrays.files else None
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
    return to_float32(matrix, stored, path.name, progress=progress), stored, table


def _member(arrays: Any, name: str, path: Path) -> npt.NDArray[Any]:
    if name not in arrays.files:
        raise LoadError(f"{path} holds no array {name!r}, but {', '.join(arrays.files)}; save it as {name}=")
    return np.asarray(arrays[name])


def _table_inside(arrays: Any, path: Path) -> TokenTable:
    table = _plain(_strings(arrays["tokens"], "tokens", path), path)
    if "special" not in arrays.files:
        return table
    special = np.asarray(arrays["special"])
    if special.dtype == np.bool_ and special.shape == (len(table.tokens),):
        return replace(table, special=frozenset(np.flatnonzero(special).tolist()))
    names = set(_strings(special, "special", path))
    if unknown := names - set(table.tokens.values()):
        raise LoadError(f"{path}: {min(unknown)!r} is special, but none of the tokens")
    return replace(table, special=frozenset(row for row, token in table.tokens.items() if token in names))


def _strings(array: npt.NDArray[Any], name: str, path: Path) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise LoadError(f"{path}: {name} is {array.dtype} {list(array.shape)}, not a list of strings")
    return [str(t) for t in np.char.decode(array, "utf-8")] if array.dtype.kind == "S" else array.tolist()


def token_table(tokens: Tokens) -> TokenTable:
    """Return the tokens that a user passes: a list, or the path of a file of tokens.

    A list and the lines of a .txt are taken in the order of the rows; how they write text is guessed from
    their marks.

    Parameters
    ----------
    tokens : sequence of str, or str or Path
        The tokens, or a file: a .txt, a .json list, a vocab.json, a tokenizer.json, a tekken.json, a tiktoken
        table or a SentencePiece model.

    Returns
    -------
    TokenTable
        The tokens by row.

    Raises
    ------
    LoadError
        If the file cannot be read, or holds no tokens.
    """
    if isinstance(tokens, (str, Path)):
        path = Path(tokens).expanduser()
        if path.suffix != ".json":
            return read_file(path) or _plain(uncounted(read_lines(path), str(path)), path)
        content = parse_json(read_bytes(path), str(path))
        if isinstance(content, dict):
            # A tokenizer.json describes its model; a vocab.json is nothing but token -> row.
            if "model" in content or "vocab" in content:
                return read_file(path) or read_tokenizer_json(path)
            return _by_row(content, path)
        return _plain(content, path)
    return _plain(tokens, None)


def _by_row(vocabulary: dict[str, Any], path: Path) -> TokenTable:
    table = vocabulary_table(vocabulary, path)
    return replace(table, spelling=Spelling.guess(list(table.tokens.values())))


def find_tokens(matrix: Path) -> Path:
    """Return the file beside a .npy that holds its tokens; the names are tried in order.

    Parameters
    ----------
    matrix : Path
        The file of the matrix.

    Returns
    -------
    Path
        The first file that exists.

    Raises
    ------
    LoadError
        If there is none.
    """
    names = [f"{matrix.stem}{end}" for end in (".tokens.txt", ".tokens.json", ".txt", ".json")]
    names += ["tokens.txt", "tokens.json", "tokenizer.json"]
    for name in names:
        if (path := matrix.with_name(name)).is_file():
            return path
    raise LoadError(
        f"{matrix} has no tokens beside it ({', '.join(names)}); pass tokens= (--tokens), a list or a file"
    )


def _plain(tokens: Any, path: Path | None) -> TokenTable:
    if not isinstance(tokens, Sequence) or not all(isinstance(t, str) for t in tokens):
        raise LoadError(f"{path or 'tokens='} is not a list of strings, one for each row")
    return TokenTable(path, dict(enumerate(tokens)), Spelling.guess(tokens))

"""The KeyedVectors and Word2Vec files of gensim, which are pickles, read without running any code in them.

A pickle names the classes of its objects, and calls them. Here each name becomes a class of this module
that only keeps what it is given, so nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile, is_file, unreadable
from embgeom.loading.matrix_files.array_file import read_array

_KEYED_VECTORS = frozenset(
    {"KeyedVectors", "Word2VecKeyedVectors", "WordEmbeddingsKeyedVectors", "EuclideanKeyedVectors"}
)
_FLOAT = re.compile(r"[<>=|]?f[248]")


def is_pickle(start: bytes) -> bool:
    """Return whether a file begins as a pickle of protocol 2 or later does."""
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def read_keyed_vectors(file: LocalFile) -> tuple[npt.NDArray[np.float32], list[bytes]]:
    """Read the vectors and the words, in UTF-8, of a file that gensim saved."""
    path, prefix = file.path, str(file.path)
    held = _root(file)
    state = _state(held)
    if "wv" in state:
        held, prefix = state["wv"], f"{path}.wv"
        state = _state(held)
    name = held.name if _is_of(held, "gensim") else type(held).__name__
    if not _is_of(held, "gensim") or name not in _KEYED_VECTORS:
        raise _refused(path, f"it holds {name}, whose vectors are not simply its rows")
    words = state.get("index_to_key", state.get("index2word"))
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _refused(path, "it holds no list of words")
    if isinstance(vectors := state.get("vectors"), _Object):
        matrix = _matrix(vectors, path)
    else:
        beside = Path(f"{prefix}.vectors.npy")
        if not is_file(beside):
            raise LoadError(
                f"{path} keeps its vectors in {beside.name}, which is not beside it; fetch that, too"
            )
        matrix = read_array(beside)[0]
    if len(matrix) != len(words):
        raise LoadError(f"{path} holds {len(words)} words for {len(matrix)} vectors; save it again")
    return matrix, [word.encode("utf-8", "surrogatepass") for word in words]


class _Object:
    """The stand-in for an object of a pickle: it keeps its arguments and its state."""

    library = name = ""
    given: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *given: Any, **_: Any) -> _Object:
        made = super().__new__(cls)
        made.given = given
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def _ignore(self, *_: Any) -> None:
        pass

    __setitem__ = append = extend = add = _ignore


class _Reader(pickle._Unpickler):
    """Read a pickle of gensim; the unpickler in C would take memory for any length that a file claims."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a new stand-in class for a name each time, as the file may change its attributes."""
        if (module, name) == ("_codecs", "encode"):
            # Protocol 2 writes bytes as a string of Latin-1.
            return lambda text="", *_: text.encode("latin-1") if isinstance(text, str) else b""
        if module in ("copyreg", "copy_reg") and name == "_reconstructor":
            return lambda kind, *_: kind()
        return type(name, (_Object,), {"library": module.partition(".")[0], "name": name})


def _root(file: LocalFile) -> Any:
    path = file.path
    try:
        with file.stream() as stream:
            held = _Reader(stream).load()
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        # A damaged pickle fails wherever the damage lies: KeyError, IndexError, struct.error, ...
        raise LoadError(
            f"{path} cannot be read as a pickle of gensim ({type(error).__name__}: {error!s:.120}); save it "
            "again with save_word2vec_format"
        ) from error
    if not _is_of(held, "gensim"):
        raise _refused(path, f"it holds a {type(held).__name__}")
    return held


def _is_of(held: Any, library: str) -> bool:
    return isinstance(held, _Object) and held.library == library


def _state(held: Any) -> dict[str, Any]:
    state = held.state if isinstance(held, _Object) else None
    return state if isinstance(state, dict) else {}


def _matrix(array: _Object, path: Path) -> npt.NDArray[np.float32]:
    shape = dtype = data = order = None
    if array.name == "_frombuffer" and len(array.given) >= 4:
        data, dtype, shape, order = array.given[:4]
    elif isinstance(array.state, tuple) and len(array.state) == 5:
        _, shape, dtype, fortran, data = array.state
        order = "F" if fortran is True else "C"
    code = ""
    if isinstance(dtype, _Object) and dtype.given and isinstance(dtype.state, tuple) and dtype.state[1:]:
        code = f"{dtype.state[1]}{dtype.given[0]}"
    sizes = shape if isinstance(shape, tuple) and all(type(n) is int and n > 0 for n in shape) else ()
    if not _is_of(array, "numpy") or not _FLOAT.fullmatch(code) or len(sizes) != 2:
        raise _refused(path, "its vectors are not a matrix of floating-point numbers")
    item = np.dtype(code)
    if not isinstance(data, bytes | bytearray) or len(data) != sizes[0] * sizes[1] * item.itemsize:
        raise LoadError(f"{path}: its vectors do not have the bytes of a matrix {list(sizes)}; save it again")
    values = np.frombuffer(data, dtype=item).reshape(sizes, order="F" if order == "F" else "C")
    with np.errstate(over="ignore", under="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def _refused(path: Path, why: str) -> LoadError:
    return LoadError(
        f"{path} is a pickle, of which embgeom reads only gensim's KeyedVectors, and {why}; load it with "
        "gensim and save it with save_word2vec_format"
    )

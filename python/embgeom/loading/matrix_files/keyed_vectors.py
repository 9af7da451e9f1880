"""The KeyedVectors and Word2Vec files of gensim, which are pickles, read without running any code in them.

A pickle names the classes of its objects, and calls them. Here every name stands for a record of this module
that only keeps what it is given: gensim's classes keep their attributes, NumPy's arrays their bytes. Any
other name is refused, so that nothing of what a file asks for is ever imported or called.
"""

from __future__ import annotations

import pickle
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile, is_file, unreadable
from embgeom.loading.matrix_files.array_file import read_array

_GENSIM = re.compile(r"gensim(\.\w+)*")
_KEYED_VECTORS = frozenset(
    {"KeyedVectors", "Word2VecKeyedVectors", "WordEmbeddingsKeyedVectors", "EuclideanKeyedVectors"}
)
_ITEM = re.compile(r"([<>=|]?)([fiub][1248])")


def is_pickle(start: bytes) -> bool:
    """Return whether a file begins as a pickle of protocol 2 or later does."""
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def read_keyed_vectors(file: LocalFile) -> tuple[npt.NDArray[np.float32], list[bytes]]:
    """Read the vectors and the words of a file that gensim saved."""
    path = file.path
    held, prefix = _root(file), str(path)
    if "wv" in held.state:
        held, prefix = held.state["wv"], f"{path}.wv"
    name = getattr(held, "name", type(held).__name__)
    if not isinstance(held, _Record) or name not in _KEYED_VECTORS:
        raise _refused(path, f"it holds {name}, whose vectors are not simply its rows")
    words = held.state.get("index_to_key", held.state.get("index2word"))
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise _refused(path, "it holds no list of words")
    vectors = held.state.get("vectors")
    if isinstance(vectors, _Array):
        matrix = vectors.read(path)
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


def _root(file: LocalFile) -> _Record:
    path = file.path
    try:
        with file.stream() as stream:
            held = _Reader(stream).load()
    except LoadError:
        raise
    except OSError as error:
        raise unreadable(path, error) from error
    except Exception as error:
        # A damaged pickle fails wherever the damage lies: KeyError, IndexError, struct.error, ...
        raise LoadError(
            f"{path} cannot be read as a pickle of gensim ({type(error).__name__}: {error!s:.120}); save it "
            "again with save_word2vec_format"
        ) from error
    if not isinstance(held, _Record):
        raise _refused(path, f"it holds a {type(held).__name__}")
    return held


def _refused(path: Path, why: str) -> LoadError:
    return LoadError(
        f"{path} is a pickle, of which embgeom reads only gensim's KeyedVectors, and {why}; load it with "
        "gensim and save it with save_word2vec_format"
    )


class _Record:
    """An object of gensim: its class's name and its attributes."""

    name = ""

    def __new__(cls, *_: Any) -> _Record:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Dtype:
    """The dtype of an array: its code, and its byte order once that is told."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code if isinstance(code, str) else ""
        self.order = ""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.order = state[1]


class _Array:
    """An array of NumPy: its bytes, and what it takes to read them."""

    def __init__(self, *_: Any) -> None:
        self.content: Any = None

    def __setstate__(self, state: Any) -> None:
        self.content = state

    def read(self, path: Path) -> npt.NDArray[np.float32]:
        """Return the matrix, or raise `LoadError` if it is none of floating point."""
        content = self.content if isinstance(self.content, tuple) and len(self.content) == 5 else (None,) * 5
        _, shape, dtype, fortran, data = content
        matched = _ITEM.fullmatch(dtype.order + dtype.code) if isinstance(dtype, _Dtype) else None
        sizes = shape if isinstance(shape, tuple) and all(type(n) is int and n > 0 for n in shape) else ()
        item = np.dtype(matched[0]) if matched and matched[2] in ("f2", "f4", "f8") else None
        if item is None or len(sizes) != 2 or not isinstance(data, bytes):
            raise _refused(path, "its vectors are no matrix of floating point")
        if len(data) != sizes[0] * sizes[1] * item.itemsize:
            raise LoadError(
                f"{path}: its vectors have {len(data)} bytes, which is not {sizes}; save it again"
            )
        values = np.frombuffer(data, dtype=item).reshape(sizes, order="F" if fortran is True else "C")
        with np.errstate(over="ignore", under="ignore"):
            return np.array(values, dtype=np.float32, order="C")


class _Ignored:
    """A value that is not needed, whatever class it asks for."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _take(self, *_: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _take


def _latin1(text: Any = "", *_: Any) -> bytes:
    """Return the bytes that protocol 2 writes as a string of Latin-1."""
    return text.encode("latin-1") if isinstance(text, str) else b""


class _Reader(pickle._Unpickler):
    """Read a pickle of gensim; the unpickler in C would take memory for any length that a file claims."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name: a new one each time, as a file may change it at will."""
        if _GENSIM.fullmatch(module):
            return type(name, (_Record,), {"name": name})
        if module in ("copyreg", "copy_reg") and name == "_reconstructor":
            return lambda record, *_: record()
        if (module, name) == ("_codecs", "encode"):
            return partial(_latin1)
        if module.partition(".")[0] == "numpy" and name == "_frombuffer":
            return partial(_from_buffer)
        of_numpy = {"_reconstruct": _Array, "ndarray": _Array, "dtype": _Dtype}
        stand_in = of_numpy.get(name) if module.partition(".")[0] == "numpy" else None
        return type(name, (stand_in or _Ignored,), {})


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> _Array:
    """Return the array that protocol 5 writes as its bytes, type and shape."""
    array = _Array()
    array.content = (
        1,
        shape,
        dtype,
        order == "F",
        bytes(data) if isinstance(data, (bytes, bytearray)) else None,
    )
    return array

"""Word vectors: word2vec's text and binary form, GloVe's and fastText's text, gensim's KeyedVectors.

The content of a file tells what it is: ``.bin`` is a suffix of PyTorch, too, and ``.txt`` one of plain lists
of tokens. A text is read in pieces of a few megabytes, so that nothing but the matrix and the words is held,
and every number is float32 of what Python's ``float`` makes of it.
"""

from __future__ import annotations

import gzip
import pickle
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix
from embgeom._common.progress import byte_bar
from embgeom.embeddings.embeddings import Embeddings
from embgeom.embeddings.provenance import FileState, Provenance
from embgeom.embeddings.token_format import TokenFormat
from embgeom.errors import LoadError
from embgeom.loading.assemble import LoadRequest, assemble
from embgeom.loading.folder import LocalFile, is_file, unreadable
from embgeom.loading.matrix_files.array_file import read_array
from embgeom.loading.tokenizers.table import TokenTable

_KEYED_VECTORS = frozenset(
    {"KeyedVectors", "Word2VecKeyedVectors", "WordEmbeddingsKeyedVectors", "EuclideanKeyedVectors"}
)
_FLOAT = re.compile(r"[<>=|]?f[248]")
_SUFFIXES = frozenset({".vec", ".txt", ".kv", ".wordvectors", ".w2v", ".gz", ".zip"})
# Suffixes that other kinds of files share.
_SHARED = frozenset({".bin", ".model"})
_HEADER = re.compile(rb"\s*(\d{1,12})[ \t]+(\d{1,7})\s*")
# How many bytes are worth reading at once.
CHUNK = 1 << 22
_FASTTEXT = (793_712_314).to_bytes(4, "little")
_BOM = b"\xef\xbb\xbf"
_START_BYTES = 1 << 20
# A longer line is not a word with its vector.
_LONGEST_LINE = 1 << 22
_LONGEST_WORD = 1 << 12
# How many lines decide the width of a file without a header.
_SAMPLE = 64
_SPECIAL = ("</s>", "<unk>")

# Called with the number of bytes that were read.
Advance = Callable[[int], object]


@dataclass(frozen=True)
class _Start:
    """What the beginning of a file shows: its words, its columns, and whether its numbers are binary."""

    words: int | None
    width: int
    binary: bool


def load_words(path: Path, request: LoadRequest) -> Embeddings:
    matrix, stored, found, state = read_word_vectors(path, progress=request.progress)
    # Words that the user gives are whole words, too, if nothing else is said of them.
    said = replace(request, token_format=request.token_format or found.token_format)
    table = said.tokens(lambda: found)
    provenance = Provenance(source=str(path), file=path, state=state, dtype=stored, notes=table.notes)
    return assemble(matrix, table, Path(path.name.removesuffix(".gz")).stem, provenance, request)


def holds_word_vectors(path: Path) -> bool:
    """Return whether a file holds word vectors: by its suffix, or if that is shared, by its content."""
    if path.suffix in _SUFFIXES:
        return True
    if path.suffix not in _SHARED:
        return False
    with _opened(LocalFile(path)) as stream:
        start = stream.read(64)
    line = start.split(b"\n", 1)[0]
    return (
        start[:4] == _FASTTEXT
        or (b"\n" in start and _HEADER.fullmatch(line) is not None)
        or (path.suffix == ".model" and is_pickle(start))
    )


def read_word_vectors(
    path: Path, *, progress: bool = False
) -> tuple[Float32Matrix, str, TokenTable, FileState]:
    file = LocalFile(path)
    with _opened(file) as stream:
        start = stream.read(_START_BYTES)
    if path.suffix == ".zip" or start[:4] == b"PK\x03\x04":
        raise LoadError(f"{path} is a zip archive; unpack it, and load the .txt or .vec that it holds")
    if start[:4] == _FASTTEXT:
        raise LoadError(
            f"{path} is a model of fastText, which makes its vectors of pieces of words; load the .vec file "
            "that fastText writes beside it"
        )
    if is_pickle(start):
        stored, (matrix, words) = "F32", read_keyed_vectors(file)
    else:
        found = _look(path, start)
        stored, read = ("F32", _read_binary) if found.binary else ("text", _read_text)
        total = None if path.suffix == ".gz" else file.size
        with byte_bar(f"reading {path.name}", total, progress) as bar:
            matrix, words = read(file, found, bar.update)
    file.check_unchanged()
    return matrix, stored, _table(path, words), file.state


def _table(path: Path, words: list[bytes]) -> TokenTable:
    tokens: dict[int, str] = {}
    raw: dict[int, bytes] = {}
    for row, word in enumerate(words):
        try:
            tokens[row] = word.decode("utf-8")
        except UnicodeDecodeError:
            tokens[row] = word.decode("utf-8", "backslashreplace")
            raw[row] = b" " + word
    twice = sum(count - 1 for count in Counter(words).values())
    numbered = sum(b" " in word and _are_numbers(word.split()[-1:]) for word in words)
    counts = ((twice, "words are duplicates"), (len(raw), "words are not UTF-8"),
              (numbered, "words hold a space and end with a number"))  # fmt: skip
    notes = [f"{count} {what}" for count, what in counts if count]
    special = frozenset(row for row, word in tokens.items() if word in _SPECIAL)
    return TokenTable(path, tokens, TokenFormat.words(), special=special, raw=raw, notes=tuple(notes))


def _look(path: Path, start: bytes) -> _Start:
    lines = start.removeprefix(_BOM).split(b"\n")
    # The last line may be cut off; binary numbers may hold no line break at all.
    whole = lines[:-1] if len(start) == _START_BYTES and len(lines) > 2 else lines
    whole = [line for line in whole if line.strip()][:_SAMPLE] or [b""]
    if (header := _HEADER.fullmatch(whole[0])) is not None and len(whole) > 1:
        words, width = int(header[1]), int(header[2])
        fields = whole[1].split()
        if words and 0 < width <= _width(whole[1]) and _are_numbers(fields[-width:]):
            _check_width(path, whole[1:], width)
            return _Start(words, width, binary=False)
        if words and width and not (_is_text(start) and _are_numbers(fields[1:])):
            return _Start(words, width, binary=True)
        raise LoadError(
            f"{path} says in its first line, {whole[0]!r:.40}, that it holds {words} words of {width} "
            f"numbers, but its second line holds {len(fields) - 1}; fetch it again, or correct the first line"
        )
    width = min(map(_width, whole))
    if width < 2 or not all(_are_numbers(line.split()[-width:]) for line in whole):
        raise LoadError(f"{path} is not a file of word vectors: {_what(whole, start)}")
    _check_width(path, whole, width)
    return _Start(None, width, binary=False)


def _width(line: bytes) -> int:
    """Return how many numbers follow the word of a line, which may be empty."""
    fields = line.split()
    return len(fields) - 1 + (line[:1] in b" \t" and _are_numbers(fields[:1]))


def _check_width(path: Path, lines: list[bytes], width: int) -> None:
    """Refuse a width by which the words of half the lines end with a number: it is too small."""
    extra = [line for line in lines if _width(line) > width and _are_numbers([line.split()[-width - 1]])]
    if 2 * len(extra) >= len(lines):
        raise LoadError(
            f"{path}: by its first line or its shortest, a line holds {width} numbers, but {extra[0][:40]!r} "
            f"holds {_width(extra[0])}; fetch it again, or correct the first line"
        )


def _what(lines: list[bytes], start: bytes) -> str:
    shown = f"its first line is {lines[0][:40]!r}"
    if lines[0].startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; fetch the file itself"
    if not _is_text(start):
        return f"it is binary, and has no line of two numbers at its beginning ({shown})"
    if all(len(line.split()) == 1 for line in lines):
        passed = "a list of tokens is passed as vocabulary= (--vocabulary) with a matrix"
        return f"{shown}, without numbers; {passed}"
    return f"{shown}, not a word and its numbers"


def _are_numbers(fields: list[bytes]) -> bool:
    try:
        return bool([float(field) for field in fields])
    except ValueError:
        return False


def _is_text(start: bytes) -> bool:
    return b"\0" not in start and sum(b < 9 for b in start[:4096]) == 0


def _read_text(file: LocalFile, start: _Start, advance: Advance) -> tuple[Float32Matrix, list[bytes]]:
    count = start.words
    if count is None:
        # Counting lines first is cheap compared to parsing numbers, and avoids a second copy of them.
        count = sum(map(len, _lines(file)))
    else:
        _check_count(file, start, count)
    matrix = np.empty((count, start.width), dtype=np.float32)
    words: list[bytes] = []
    for number, piece in enumerate(_lines(file, advance)):
        lines = piece[1:] if number == 0 and start.words is not None else piece
        if len(words) + len(lines) > count:
            raise _miscounted(file.path, start, f"at least {len(words) + len(lines)}")
        rows = matrix[len(words) : len(words) + len(lines)]
        _parse(file.path, lines, rows, words, header=start.words is not None)
    if len(words) != (start.words or count):
        raise _miscounted(file.path, start, str(len(words)))
    return matrix, words


def _lines(file: LocalFile, advance: Advance = lambda _: None) -> Iterator[list[bytes]]:
    """Yield the lines of a file that are not blank, without their ends, in pieces of a few megabytes."""
    rest, first = b"", True
    with _opened(file) as stream:
        while chunk := stream.read(CHUNK):
            advance(len(chunk))
            if first:
                chunk, first = chunk.removeprefix(_BOM), False
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > _LONGEST_LINE:
                raise LoadError(
                    f"{file.path} has a line of more than {_LONGEST_LINE} bytes; it holds no word vectors"
                )
            if lines := [line for line in lines if line.strip()]:
                yield lines
        if rest.strip():
            yield [rest]


def _parse(path: Path, lines: list[bytes], rows: Float32Matrix, words: list[bytes], *, header: bool) -> None:
    """Append the words of `lines` to `words`, and write their numbers into `rows`."""
    width = rows.shape[1]
    numbers: list[bytes] = []
    for line in lines:
        stripped = line.rstrip(b" \t\r")
        word, _, rest = stripped.partition(b" ")
        # GloVe has tokens that hold spaces, such as ". . ."; other writers put tabs.
        if rest.count(b" ") != width - 1 or not word or b"  " in rest or b"\t" in stripped:
            fields = stripped.rsplit(None, width)
            word = fields[0] if len(fields) == width + 1 else b""
            # An empty word leaves a line that begins with its space.
            if len(fields) != width + 1 and not (len(fields) == width and stripped[:1] in b" \t"):
                at = len(words) + 1 + header
                raise LoadError(
                    f"{path}: line {at} ({line[:40]!r}) holds {len(fields) - 1} numbers, not {width}; the "
                    "file is cut short or damaged, fetch it again"
                )
            rest = b" ".join(fields[-width:])
        words.append(word)
        numbers.append(rest)
    try:
        # What is not a number ends the list.
        values = np.fromstring(b" ".join(numbers), dtype=np.float64, sep=" ")
        with np.errstate(over="ignore", under="ignore"):
            rows[...] = values.reshape(rows.shape)
    except (ValueError, DeprecationWarning):
        # Search for the wrong line only now.
        first = len(words) - len(lines)
        bad = next((i for i, n in enumerate(numbers) if not _are_numbers(n.split())), 0)
        raise LoadError(
            f"{path}: line {first + bad + 1 + header} ({lines[bad][:40]!r}) holds something that is not "
            "a number; the file is damaged, fetch it again"
        ) from None


def _check_count(file: LocalFile, start: _Start, count: int) -> None:
    if count * start.width * (4 if start.binary else 2) > _unpacked_size(file):
        raise _miscounted(file.path, start, "fewer")


def _miscounted(path: Path, start: _Start, held: str) -> LoadError:
    return LoadError(
        f"{path} says in its first line that it holds {start.words} words, but it holds {held}; it is cut "
        "short or damaged, fetch it again, or correct the first line"
    )


def _read_binary(file: LocalFile, start: _Start, advance: Advance) -> tuple[Float32Matrix, list[bytes]]:
    """Read word2vec's binary form: each word, a space, and its numbers as little-endian float32."""
    count = start.words or 0
    _check_count(file, start, count)
    size = 4 * start.width
    words: list[bytes] = []
    with _opened(file) as stream:
        stream.readline(_LONGEST_WORD)
        buffer, at = b"", 0
        matrix = np.empty((count, start.width), dtype=np.float32)
        while len(words) < count:
            end = buffer.find(b" ", at, at + _LONGEST_WORD)
            if end < 0 or len(buffer) < end + 1 + size:
                if end < 0 and len(buffer) - at > _LONGEST_WORD:
                    raise LoadError(
                        f"{file.path}: word {len(words) + 1} has no end; the file is damaged, fetch it again"
                    )
                chunk = stream.read(CHUNK + size)
                if not chunk:
                    raise _miscounted(file.path, start, str(len(words)))
                advance(len(chunk))
                buffer, at = buffer[at:] + chunk, 0
                continue
            # word2vec itself ends each vector with a line break, gensim does not.
            words.append(buffer[at:end].lstrip(b"\n"))
            matrix[len(words) - 1] = np.frombuffer(buffer, dtype="<f4", count=start.width, offset=end + 1)
            at = end + 1 + size
        if (buffer[at:] + stream.read(64)).strip():
            raise _miscounted(file.path, start, "more")
    return matrix, words


@contextmanager
def _opened(file: LocalFile) -> Iterator[IO[bytes]]:
    """Open a file from its beginning, decompressing gzip; one reader at a time."""
    try:
        with file.stream() as stored:
            packed = stored.read(2) == b"\x1f\x8b"
            stored.seek(0)
            if packed:
                with gzip.open(stored) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield stored
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LoadError(f"{file.path} is cut short or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise unreadable(file.path, error) from error


def _unpacked_size(file: LocalFile) -> int:
    """Return how many bytes a file holds; a compressed one has to be read for that."""
    with _opened(file) as stream:
        if not isinstance(stream, gzip.GzipFile):
            return file.size
        return sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))


def is_pickle(start: bytes) -> bool:
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


# A pickle names the classes of its objects, and calls them. Here each name becomes a class of this module
# that only keeps what it is given, so nothing that a file of gensim names is ever imported or called.
def read_keyed_vectors(file: LocalFile) -> tuple[npt.NDArray[np.float32], list[bytes]]:
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

"""A cache of results, in files: what was computed from the same numbers before is read instead.

A result is found again by the SHA-256 of the matrices it was computed from, as float32 with their shapes,
by every parameter that it depends on, by the build, the instructions in use and the BLAS with its kernels.
Results of the first k of more neighbors, and of some of all rows, are cut from the larger ones. Files are
written atomically and hold a checksum of all they say, so that nothing damaged is ever returned.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float32Matrix
from embgeom._common.record import Arrays, array_digest, digest, plain, rebuilt
from embgeom._common.temporary import sweep
from embgeom._common.writing import cache_root, save_tensors, write_file
from embgeom.errors import EmbgeomWarning, InputError, OutputError, first_line
from embgeom.geometry.knn import Neighbors
from embgeom.geometry.lle import LLE
from embgeom.geometry.rows import tokens_of
from embgeom.runs.requests import KINDS, MATRICES, Request, requested, requested_part

SIZE_VARIABLE = "EMBGEOM_CACHE_GIB"
_DEFAULT_GIB = 4.0
# A result that takes more than this share of the limit would push out too many others.
_LARGEST_SHARE = 0.25
# Whatever else lies in the folder is neither read, counted nor removed.
_NAME = re.compile(r"[0-9a-f]{40}\.[0-9]{1,9}\.(all|[0-9a-f]{16})\.safetensors")
_HEADER = "embgeom"

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True)
class Entry:
    """A result that is kept: of which models, what it is, its bytes, and when it was last used (seconds)."""

    path: Path
    models: str
    shape: str
    what: str
    size: int
    used: float


class ResultCache:
    """The folder of the cache: results are found there, kept there, and those unused for longest removed."""

    def __init__(self, folder: str | PathLike[str] | None = None, limit: float | None = None) -> None:
        self.folder = _checked(folder)
        self.limit = _limit() if limit is None else limit
        self.served: list[str] = []
        self._writable = True

    def find(self, request: Request) -> Any:
        """Return the result of a request, or None."""
        for path in self._candidates(request):
            try:
                result = _read(path, request)
            except OSError:
                continue  # Another process has removed it, or does not let this one read it.
            except _damage() as error:
                warnings.warn(
                    f"{path} is damaged ({first_line(error)}); its result is computed again",
                    EmbgeomWarning,
                    stacklevel=2,
                )
                self.remove([path])
            else:
                with suppress(OSError):  # A cache that can only be read serves as well.
                    os.utime(path)
                return _cut(result, request)
        return None

    def keep(self, request: Request, result: Any, models: Sequence[str] = ()) -> None:
        """Keep a result; where that fails, warn once."""
        arrays: Arrays = {}
        has_tokens = request.function in KINDS and getattr(result, "tokens", None) is not None
        kept = replace(result, tokens=None) if has_tokens else result
        about = {
            "key": request.key,
            "models": list(models),
            "shapes": request.shapes,
            "file": request.file,
            "k": request.k,
            "what": _what(request, result),
            "result": plain(kept, arrays, "result"),
        }
        header = json.dumps({**about, "sha256": _checksum(about, arrays)})
        # The file quotes the header once more, and has a few numbers for each array.
        size = sum(array.nbytes for array in arrays.values()) + 2 * len(header) + 4096
        if size > self.limit * _LARGEST_SHARE or not self._writable:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._make_room(size)
            write_file(
                self.folder / request.file, lambda partial: save_tensors(arrays, partial, {_HEADER: header})
            )
        except (OSError, OutputError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._writable = False
        warnings.warn(
            f"results are not kept in {self.folder}: {first_line(error)}; make room, name another folder "
            "by EMBGEOM_CACHE, or turn the cache off",
            EmbgeomWarning,
            stacklevel=3,
        )

    def entries(self) -> list[Entry]:
        """Return what is kept, most recently used first; damaged files are left out."""
        found = []
        for path in self._files():
            with suppress(*_damage(), OSError):
                stat = path.stat()
                about = _about(path)
                shapes = " and ".join(f"{n} x {d}" for n, d in about["shapes"])
                models = " and ".join(about["models"]) or "unnamed"
                found.append(Entry(path, models, shapes, about["what"], stat.st_size, stat.st_mtime))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def usage(self) -> tuple[int, int]:
        """Return how many files are kept and how many bytes they take, damaged ones included."""
        sizes = [size for _, size, _ in self._by_age()]
        return len(sizes), sum(sizes)

    def remove(self, paths: Iterable[Path]) -> None:
        """Remove files, which other processes may have removed already."""
        for path in paths:
            with suppress(OSError):
                path.unlink()

    def clear(self) -> None:
        """Remove everything that is kept, damaged files and those that killed writers have left included."""
        self.remove(self._files())
        sweep(self.folder)

    def _files(self, group: str = "") -> list[Path]:
        """Return the ordinary files of the cache: a pipe would keep its reader waiting."""
        found: list[Path] = []
        with suppress(OSError):
            for path in self.folder.iterdir():
                if path.name.startswith(group) and _NAME.fullmatch(path.name) and path.is_file():
                    found.append(path)
        return found

    def _candidates(self, request: Request) -> list[Path]:
        """Return the files that hold the result, or more than it; small ones first."""
        found = []
        for path in self._files(request.group):
            _, k, which, _ = path.name.split(".")
            if int(k) >= request.k and which in ("all", request.which):
                found.append((int(k), which == "all", path))
        return [path for *_, path in sorted(found)]

    def _by_age(self) -> list[tuple[float, int, Path]]:
        files = []
        for path in self._files():
            with suppress(OSError):
                stat = path.stat()
                files.append((stat.st_mtime, stat.st_size, path))
        return sorted(files)

    def _make_room(self, size: int) -> None:
        files = self._by_age()
        total = size + sum(size for _, size, _ in files)
        for _, freed, path in files:
            if total <= self.limit:
                return
            self.remove([path])
            total -= freed


class Cached:
    """Calls functions of geometry, or reads what they returned before.

    `matrices` are pairs of a name, which the cache lists, and a matrix that does not change from call to
    call; `digest` is that of a single one, if it is known. `served` names what was read, `computed` what was
    not there.
    """

    def __init__(
        self,
        cache: ResultCache | None,
        matrices: Sequence[tuple[str, Float32Matrix]] = (),
        digest: str | None = None,
    ) -> None:
        self._cache = cache
        self._known = [] if cache is None else [(name, x, digest or array_digest(x)) for name, x in matrices]
        self.in_use = cache is not None
        self.served: list[str] = []
        self.computed: list[str] = []

    def __call__(self, function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> _R:
        """Return what the function does, from the cache if it is there; otherwise it is kept there."""
        if self._cache is None:
            return function(*arguments, **options)
        return self.once(
            *self._request(function, arguments, options), lambda: function(*arguments, **options)
        )

    def once(self, request: Request, used: list[str], compute: Callable[[], _R]) -> _R:
        """Return the result of a request, computed unless it is there; `used` are the names of its models."""
        if self._cache is None:
            return compute()
        found: _R | None = self._found(request, used)
        if found is None:
            found = compute()
            self._cache.keep(request, found, used)
            self.computed.append(_named(request, used))
            if request.function not in KINDS:
                # What is read later has these types: a float where an integer stood for one.
                arrays: Arrays = {}
                found = rebuilt(request.kind, plain(found, arrays), arrays)
        return found

    @property
    def all_served(self) -> list[str]:
        """What was read from this cache, also for others who call functions through it."""
        return [] if self._cache is None else self._cache.served

    def find(self, function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> _R | None:
        """Return what the function would return if it is in the cache, or None."""
        if self._cache is None:
            return None
        found: _R | None = self._found(*self._request(function, arguments, options))
        return found

    def keep(self, result: _R, function: Callable[_P, _R], *arguments: _P.args, **options: _P.kwargs) -> None:
        """Keep a result that the function would return."""
        if self._cache is not None:
            request, used = self._request(function, arguments, options)
            self._cache.keep(request, result, used)

    def _request(self, function: Any, arguments: Any, options: Any) -> tuple[Request, list[str]]:
        used: list[str] = []
        request = requested(function, arguments, options, lambda x: self._digest(x, used))
        given = [*arguments, *(options[each] for each in MATRICES if each in options)]
        return request, used or [value.name for value in given if tokens_of(value) is not None]

    def _digest(self, x: npt.NDArray[Any], used: list[str]) -> str:
        for name, known, digest_of_known in self._known:
            if x is known:
                used.append(name)
                return digest_of_known
        return array_digest(x)

    def _found(self, request: Request, used: list[str]) -> Any:
        found = self._cache.find(request) if self._cache is not None else None
        if found is not None and self._cache is not None:
            self.served.append(_named(request, used))
            self._cache.served.append(self.served[-1])
        return found


class _PartsFolder(ResultCache):
    """A folder of parts: what cannot be kept there would be lost, so nothing is computed on."""

    def _failed(self, error: Exception) -> None:
        raise OutputError(
            f"{self.folder} does not take a part: {first_line(error)}; make room or let it be written, and "
            "the same call goes on from the parts that are there"
        )


class Parts(Cached):
    """The parts of a long analysis, in a folder of its own, from which nothing is removed to make room.

    It keeps results of any function that says their type: arguments are arrays, dataclasses, plain values and
    lists of them; `threads`, `progress`, `parts` and `known` decide on nothing.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        super().__init__(_PartsFolder(folder, limit=math.inf))

    def know(self, matrices: Iterable[tuple[str, Float32Matrix, str]]) -> None:
        """Name the matrices of the calls to come, with their digests, and let go of those of calls before."""
        self._known = list(matrices)

    @contextmanager
    def in_calls(self) -> Iterator[None]:
        """Let functions that use the cache which is in use find and keep their results here."""
        with _used(self._cache):
            yield

    def _request(self, function: Any, arguments: Any, options: Any) -> tuple[Request, list[str]]:
        if function.__name__ in KINDS:
            return super()._request(function, arguments, options)
        used: list[str] = []
        return requested_part(function, arguments, options, lambda x: self._digest(x, used)), used


def _named(request: Request, used: Sequence[str]) -> str:
    return f"{request.function} of {' and '.join(used)}" if used else request.function


_ACTIVE: ContextVar[ResultCache | None] = ContextVar("embgeom_cache", default=None)


@contextmanager
def use_cache(folder: str | PathLike[str] | None = None) -> Iterator[Cached]:
    """Read results that were computed before, and keep new ones, in the calls within a ``with`` statement.

    `compare`, `inspect`, `diff`, `atlas`, `comparison.coherence`, `Emb2Emb.fit` and `run` do so there; what
    they return does not depend on it. The object that the statement gives calls `knn`, `lle`,
    `intrinsic_dimension` or `global_similarity` in the same way.

    Parameters
    ----------
    folder : path, optional
        Where results are kept, which ``embgeom cache --folder`` lists; by default ``embgeom-results`` in the
        folder that ``EMBGEOM_CACHE`` names, or else in Hugging Face's cache of assets.

    Yields
    ------
    callable
        ``cached(function, *arguments, **options)``.

    Raises
    ------
    InputError
        If ``EMBGEOM_CACHE_GIB`` is not a size, or no folder can have the name.

    Warns
    -----
    EmbgeomWarning
        If a file was damaged (its result is computed again), or results cannot be written.

    Notes
    -----
    Results are found by the SHA-256 of the matrices (2 GB/s on a processor with instructions for it), all
    parameters, and the build of the package. The cache takes at most 4 GiB, or what ``EMBGEOM_CACHE_GIB``
    says, and keeps no result of more than a quarter of that; those unused for longest go first.

    Examples
    --------
    >>> import tempfile
    >>> import embgeom
    >>> model = embgeom.load("example:small")
    >>> with tempfile.TemporaryDirectory() as folder, embgeom.use_cache(folder) as cached:
    ...     many = cached(embgeom.knn, model, 50)
    ...     few = cached(embgeom.knn, model, 10)  # read, as they are the first of the 50
    >>> few.k
    10
    """
    cache = ResultCache(folder)
    with _used(cache):
        yield Cached(cache)


@contextmanager
def _used(cache: ResultCache | None) -> Iterator[None]:
    token = _ACTIVE.set(cache)
    try:
        yield
    finally:
        _ACTIVE.reset(token)


def active(*matrices: tuple[str, Float32Matrix], digest: str | None = None) -> Cached:
    """Return what calls functions on these named matrices: through the cache that is in use, if any."""
    return Cached(_ACTIVE.get(), matrices, digest)


def _checked(folder: str | PathLike[str] | None) -> Path:
    """Return the path of the cache's folder, unless no folder can have its name."""
    try:
        path = cache_root() / "embgeom-results" if folder is None else Path(folder).expanduser()
        path.lstat()
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        # Of whatever else stands in the way on the disk, `keep` warns.
        if getattr(error, "errno", errno.ENAMETOOLONG) == errno.ENAMETOOLONG:
            named = os.environ.get("EMBGEOM_CACHE") if folder is None else folder
            reason = getattr(error, "strerror", None) or first_line(error)
            raise InputError(f"{named!r:.80} names no folder for results ({reason}); name another") from None
    return path


def _limit() -> float:
    text = os.environ.get(SIZE_VARIABLE, "").strip()
    try:
        size = float(text) if text else _DEFAULT_GIB
    except ValueError:
        size = math.nan
    if not size >= 0:
        raise InputError(f"{SIZE_VARIABLE} = {text!r} is not a size; give the limit in GiB, such as 4")
    return size * 2**30


def _damage() -> tuple[type[Exception], ...]:
    """Return what is raised for files that do not say what was written."""
    from safetensors import SafetensorError

    return SafetensorError, ValueError, LookupError, TypeError, RecursionError


def _about(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    # safe_open does not tell files that are gone from damaged ones.
    with path.open("rb"), safe_open(path, framework="numpy") as file:
        about: dict[str, Any] = json.loads(file.metadata()[_HEADER])
        return about


def _read(path: Path, request: Request) -> Any:
    """Return the result that a file holds; damage raises an error."""
    from safetensors import safe_open

    about = _about(path)
    with safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about.pop("sha256") != _checksum(about, arrays):
        raise ValueError("its checksum does not fit")
    if about["file"] != path.name or about["key"] != plain(request.key):
        raise ValueError("it holds another result")
    return rebuilt(request.kind, about["result"], arrays)


def _checksum(about: Mapping[str, Any], arrays: Arrays) -> str:
    return digest([plain(about), {name: array_digest(array) for name, array in arrays.items()}])


def _cut(result: Any, request: Request) -> Any:
    """Return the part of a result that was asked for, with its tokens."""
    if request.function not in KINDS or not is_dataclass(result):
        return result
    arrays = {field.name: getattr(result, field.name) for field in fields(result) if field.name != "rows"}
    arrays = {name: value for name, value in arrays.items() if isinstance(value, np.ndarray)}
    changes: dict[str, Any] = {"tokens": request.tokens}
    if request.rows is not None and getattr(result, "rows", None) is None:
        arrays = {name: value[request.rows] for name, value in arrays.items()}
        changes |= {**arrays, "rows": request.rows}
    if isinstance(result, Neighbors) and request.k < result.k:
        changes |= {name: value[:, : request.k].copy() for name, value in arrays.items()}
    return replace(result, **changes)


def _what(request: Request, result: Any) -> str:
    """Say what a result is: the function, its k, other parameters that were chosen, and the first rows."""
    k = result.weights.shape[1] if isinstance(result, LLE) else getattr(result, "k", None)
    parts = [] if k is None else [f"k={k}"]
    parts += [name if value is True else f"{name}={value}" for name, value in request.chosen.items()]
    if (rows := getattr(result, "rows", None)) is not None:
        first = ", ".join(str(row) for row in rows[:3]) + (", ..." if len(rows) > 3 else "")
        parts.append(f"{len(rows)} row{'' if len(rows) == 1 else 's'}: {first}")
    return f"{request.function}({', '.join(parts)})"

"""A safetensors file on the Hugging Face Hub, of which the header and the tensors asked for are fetched.

The cache has a folder for each file of each repository, which holds

    <commit>.head                    what the Hub says of the file at a commit, and the file's first bytes
    <content>/<tensor>.safetensors   one tensor of that content, as a safetensors file
    <content>.safetensors            the whole file, from a server that gives no ranges

Files are fetched in pieces; an interrupted download resumes where it stopped.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import byte_bar
from embgeom._common.temporary import flush_folder
from embgeom._common.writing import cache_root
from embgeom.embeddings.provenance import FileState
from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile, check_dtype
from embgeom.loading.hub.ranges import Answer, Changed, Identity, NoRanges, RangeRequests
from embgeom.loading.safetensors_file import Entry, SafetensorsFile, SafetensorsHeader

_LONGEST_NAME = 200
# How many seconds to wait for another process that fetches the same file while the file does not grow.
_STUCK = 60.0
_POLL = 0.1
# How many bytes should stay free on the disk.
_SPARE = 1 << 24
_WAY_OUT = "make room, or name another folder for what is fetched by cache_dir= or the variable EMBGEOM_CACHE"
# Most headers are shorter, so that one request fetches them.
_HEAD = 1 << 16


class HubSafetensors(SafetensorsHeader):
    """A safetensors file on the Hub; `folder` is its folder in the cache.

    `requests` is called with what is wanted and what is known of the file; it raises if nothing may be
    fetched.
    """

    def __init__(
        self,
        folder: Path,
        commit: str,
        requests: Callable[[str, Identity], RangeRequests],
        *,
        progress: bool = False,
    ) -> None:
        self._folder = folder
        self._requests = requests
        self._progress = progress
        self._head_file = folder / f"{commit}.head"
        # The whole file, if the server supports no ranges.
        self._whole: Path | None = None
        kept = read_head(self._head_file)
        self._identity, self._head = kept or (Identity(commit), b"")
        if kept is None:
            self._fetch_head(_HEAD)
        if (whole := self._place(".safetensors")).is_file():
            self._whole = whole
        self._size = self._whole.stat().st_size if self._whole else self._identity.size or 0
        try:
            super().__init__(folder, self._size, self._bytes)
        except LoadError:
            forget(self._head_file)
            raise

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        entry = self.entries[name]
        check_dtype(entry.dtype, f"{name} in {self.path}")
        kept = self._whole or self._fetch_tensor(name, entry, progress)
        return SafetensorsFile(kept).read(name, progress=progress)

    def whole_file(self) -> Path:
        return self._whole or self._fetch_whole(self._requests("the whole", self._identity))

    def origin(self, name: str) -> dict[str, Any]:
        """Return what a `Provenance` says of the file that a tensor was read from."""
        entry, etag = self.entries[name], self._identity.etag or ""
        digest = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
        return {
            "file": self._whole or self._tensor_path(name),
            "state": FileState(sha256=digest, part=self._whole is None),
            "bytes_fetched": self._size if self._whole else len(self._head) + entry.end - entry.begin,
            "bytes_stored": self._size,
        }

    def _place(self, suffix: str = "") -> Path:
        """Return where parts of this content are kept, whichever commits have it."""
        return self._folder / f"{file_name(self._identity.etag or self._head_file.stem)}{suffix}"

    def _tensor_path(self, name: str) -> Path:
        return self._place() / f"{file_name(name)}.safetensors"

    def _bytes(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to `end` of the header, and keep all up to `end`."""
        if self._whole is None and end > len(self._head):
            self._fetch_head(end)
        return LocalFile(self._whole).read(begin, end) if self._whole else self._head[begin:end]

    def _fetch_head(self, end: int) -> None:
        requests = self._requests("the header", self._identity)
        head = bytearray(self._head)
        try:
            with self._unchanged():
                for piece in requests.stream(len(head), end):
                    head += piece
            self._identity, self._head = requests.identity, bytes(head)
        except NoRanges as error:
            self._identity = requests.identity
            self._fetch_whole(requests, error.answer)
        write_head(self._head_file, self._identity, self._head)

    def _fetch_tensor(self, name: str, entry: Entry, progress: bool) -> Path:
        path, head = self._tensor_path(name), _tensor_head(name, entry, self._identity)
        begin, end = self.data_start + entry.begin, self.data_start + entry.end
        total = len(head) + end - begin
        if path.is_file():
            kept = LocalFile(path)
            if kept.size == total and kept.read(0, len(head)) == head:
                return path
            path.unlink()
        requests = self._requests(name, self._identity)
        try:
            with (
                self._unchanged(),
                appearing(path, total, f"fetching {name}", progress=progress) as partial,
            ):
                if partial is not None:
                    partial.begin_with(head, total)
                    for piece in requests.stream(begin + partial.size - len(head), end):
                        partial.write(piece)
        except NoRanges as error:
            discard(path)
            return self._fetch_whole(requests, error.answer)
        return path

    def _fetch_whole(self, requests: RangeRequests, answer: Answer | None = None) -> Path:
        """Fetch the whole file, from an answer that holds it or by a new request, and return where it is."""
        path = self._place(".safetensors")
        size = answer.end if answer else self._identity.size
        what = f"fetching {self._folder.name}"
        try:
            with self._unchanged(), appearing(path, size, what, progress=self._progress) as partial:
                if partial is not None:
                    for piece in requests.whole(answer):
                        if piece is None:
                            partial.restart()
                        else:
                            partial.write(piece)
        finally:
            if answer is not None:
                answer.close()
        self._whole = path
        self._size = path.stat().st_size
        self._identity = replace(self._identity, size=self._size)
        return path

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Forget the first bytes of a file that changes meanwhile, so that they are fetched again."""
        try:
            yield
        except Changed as error:
            forget(self._head_file)
            raise LoadError(
                f"{self._folder.name} changed on the Hub while it was fetched; load the model again"
            ) from error


def _tensor_head(name: str, entry: Entry, identity: Identity) -> bytes:
    about = {"format": "embgeom", "content": str(identity.etag), "begin": str(entry.begin)}
    tensor = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [0, entry.end - entry.begin]}
    text = json.dumps({"__metadata__": about, name: tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def cache_folder(cache_dir: Path | None, repo_id: str, filename: str) -> Path:
    """Return the folder of the cache for one file of a repository, which need not exist."""
    return cache_root(cache_dir) / "embgeom" / repo_id.replace("/", "--") / file_name(filename)


def file_name(name: str) -> str:
    """Return a file name for any text; a long one ends with its hash."""
    safe = quote(name, safe="", errors="surrogatepass")
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[: _LONGEST_NAME - 33]}-{sha256(safe.encode()).hexdigest()[:32]}"


def read_head(path: Path) -> tuple[Identity, bytes] | None:
    """Return what is known of a file, and its first bytes; None if nothing was kept or it is damaged."""
    try:
        about, _, head = path.read_bytes().partition(b"\n")
        said = json.loads(about)
        etag, size = said["etag"], said["size"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    known = isinstance(etag, str | None) and type(size) is int and size >= 0
    return (Identity(path.stem, etag, size), head) if known else None


def write_head(path: Path, identity: Identity, head: bytes) -> None:
    forget(path)
    with appearing(path, None) as partial:
        if partial is not None:
            partial.restart()
            partial.write(json.dumps(asdict(identity)).encode() + b"\n" + head)


def forget(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def discard(path: Path) -> None:
    """Delete the partial download of a file that will not be completed."""
    forget(_partial(path))


class PartialFile:
    """The first `size` bytes of a file, open for more."""

    def __init__(self, file: io.FileIO, total: int | None, what: str, progress: bool) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.bar = byte_bar(what, total, progress)

    def begin_with(self, head: bytes, total: int) -> None:
        """Keep what is there if it begins with `head` and is no longer than `total`; else start over."""
        if os.pread(self._file.fileno(), len(head), 0) != head or self.size > total:
            self.restart()
            self.write(head)
        else:
            self.bar.update(self.size)

    def restart(self) -> None:
        self._file.truncate(0)
        self.size = 0
        self.bar.reset()

    def write(self, piece: bytes) -> None:
        left = memoryview(piece)
        while left:
            left = left[self._file.write(left) or 0 :]
        self.size += len(piece)
        self.bar.update(len(piece))


@contextmanager
def appearing(
    path: Path, total: int | None, what: str = "", *, progress: bool = False
) -> Iterator[PartialFile | None]:
    """Yield the partial download of the file at `path`, which gets that name at the end of the block.

    After an error, an interruption or a kill it stays there for the next attempt. If several processes want
    the file, one fetches it; the others wait and get None.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _claimed(path) as (file, name):
            if file is None:
                yield None
                return
            partial = PartialFile(file, total, what, progress)
            with partial.bar:
                free, needed = shutil.disk_usage(path.parent).free, max(0, (total or 0) - partial.size)
                if needed + _SPARE > free:
                    raise LoadError(
                        f"{path.parent} has room for {free / 1e9:.1f} GB, and {needed / 1e9:.1f} GB are to "
                        f"be fetched; {_WAY_OUT}"
                    )
                yield partial
            os.fsync(file.fileno())
            name.replace(path)
            flush_folder(path.parent)
    except OSError as error:
        raise LoadError(f"{path} cannot be written: {error.strerror or error}; {_WAY_OUT}") from error


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[io.FileIO | None, Path]]:
    """Yield a file that no other process writes to, and its name; no file if `path` appeared meanwhile."""
    partial = _partial(path)
    deadline, length = time.monotonic() + _STUCK, -1
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    while not path.exists():
        with io.FileIO(os.open(partial, flags, 0o666), "r+") as file:
            locked = _lock(file)
            if locked and _is_at(file, partial):
                # The other process may have completed the file just before this one was made.
                if path.exists():
                    partial.unlink()
                    break
                yield file, partial
                return
            grown = os.fstat(file.fileno()).st_size
        if grown != length:
            deadline, length = time.monotonic() + _STUCK, grown
        if locked is None or time.monotonic() > deadline:
            if grown == 0:
                partial.unlink(missing_ok=True)
            with _own_file(path) as (file, name):
                yield file, name
            return
        if not locked:
            time.sleep(_POLL)
    yield None, partial


@contextmanager
def _own_file(path: Path) -> Iterator[tuple[io.FileIO, Path]]:
    """Yield a new file beside `path`, for when nothing can be locked or the other process is stuck."""
    descriptor, own = tempfile.mkstemp(prefix=".", suffix=".partial", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o644)
        with io.FileIO(descriptor, "r+") as file:
            yield file, Path(own)
    finally:
        Path(own).unlink(missing_ok=True)


def _lock(file: io.FileIO) -> bool | None:
    """Lock a file for this process alone until it is closed; None where the file system has no locks."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Return whether an open file still has a name; once complete, it has another one."""
    with suppress(OSError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False

"""A safetensors file on the Hugging Face Hub, of which the header and the tensors asked for are fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.progress import byte_bar
from embgeom.embeddings.provenance import FileState
from embgeom.errors import LoadError
from embgeom.loading.convert import check_dtype
from embgeom.loading.hub.answers import Answer, Identity, NoRanges
from embgeom.loading.hub.partial_file import appearing, discard
from embgeom.loading.hub.ranges import Changed, RangeRequests
from embgeom.loading.hub.tensor_cache import begins_with, file_name, read_head, tensor_head, write_head
from embgeom.loading.safetensors_file import Entry, SafetensorsFile, SafetensorsHeader

# Most headers are shorter, so that one request fetches them.
_HEAD = 1 << 16


class HubFile:
    """The bytes of a file on the Hub."""

    def __init__(
        self,
        path: Path,
        commit: str,
        requests: Callable[[Identity], RangeRequests] | None,
        missing: Callable[[str], LoadError],
        *,
        progress: bool = False,
    ) -> None:
        self.path = path
        self._requests = requests
        self._missing = missing
        self._progress = progress
        self.whole: Path | None = None
        self._head_file = path / f"{commit}.head"
        kept = read_head(self._head_file)
        self.identity, self._head = kept or (Identity(commit, None, None), b"")
        if kept is None:
            self._fetch_head(_HEAD)
        if self.whole is None and (whole := self._place(".safetensors")).is_file():
            self.whole = whole
        self.size = self.whole.stat().st_size if self.whole else self.identity.size or 0

    @property
    def head_bytes(self) -> int:
        """How many of its first bytes were fetched."""
        return len(self._head)

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to `end`, and keep all bytes up to them."""
        if self.whole is None and end > len(self._head):
            self._fetch_head(end)
        if self.whole is not None:
            with self.whole.open("rb") as stream:
                stream.seek(begin)
                return stream.read(end - begin)
        return self._head[begin:end]

    def tensor(self, name: str, entry: Entry, data_start: int, progress: bool) -> Path:
        """Return a local safetensors file that holds one tensor, fetched unless it was before."""
        if self.whole is not None:
            return self.whole
        path = self.tensor_path(name)
        head = tensor_head(name, entry, self.identity)
        begin, end = data_start + entry.begin, data_start + entry.end
        total = len(head) + end - begin
        if path.is_file():
            if begins_with(path, head, total):
                return path
            path.unlink()
        requests = self._may_request(name)
        try:
            with (
                appearing(path, total) as partial,
                byte_bar(f"fetching {name}", total, progress) as bar,
            ):
                if partial is not None:
                    partial.begin_with(head, total)
                    bar.update(partial.size)
                    for piece in requests.stream(begin + partial.size - len(head), end):
                        partial.write(piece)
                        bar.update(len(piece))
        except NoRanges as error:
            discard(path)
            return self.fetch_whole(requests, error.answer)
        except Changed as error:
            raise self._forget() from error
        return path

    def fetch_whole(self, requests: RangeRequests | None = None, answer: Answer | None = None) -> Path:
        """Fetch the whole file, from an answer that holds it or by a new request, and return where it is."""
        requests = requests or self._may_request("the whole")
        path = self._place(".safetensors")
        size = answer.end if answer else self.identity.size
        try:
            with (
                appearing(path, size) as partial,
                byte_bar(f"fetching {self.path.name}", size, self._progress) as bar,
            ):
                if partial is not None:
                    partial.restart()

                    def write(piece: bytes) -> None:
                        partial.write(piece)
                        bar.update(len(piece))

                    def restart() -> None:
                        partial.restart()
                        bar.reset()

                    requests.whole(answer, write, restart)
        except Changed as error:
            raise self._forget() from error
        finally:
            if answer is not None:
                answer.close()
        self.whole = path
        self.identity = replace(self.identity, size=path.stat().st_size)
        return path

    def tensor_path(self, name: str) -> Path:
        """Return where a tensor is kept."""
        return self._place() / f"{file_name(name)}.safetensors"

    def forget(self) -> None:
        """Throw away the first bytes, so that they are fetched anew."""
        with suppress(OSError):
            self._head_file.unlink()

    def _place(self, suffix: str = "") -> Path:
        """Return where what this content holds is kept, whichever commits it is of."""
        return self.path / f"{file_name(self.identity.etag or self._head_file.stem)}{suffix}"

    def _fetch_head(self, end: int) -> None:
        requests = self._may_request("the header")
        head = bytearray(self._head)
        try:
            for piece in requests.stream(len(head), end):
                head += piece
            self.identity, self._head = requests.identity, bytes(head)
        except NoRanges as error:
            self.identity = requests.identity
            self.fetch_whole(requests, error.answer)
        except Changed as error:
            raise self._forget() from error
        write_head(self._head_file, self.identity, self._head)

    def _may_request(self, what: str) -> RangeRequests:
        if self._requests is None:
            raise self._missing(what)
        return self._requests(self.identity)

    def _forget(self) -> LoadError:
        self.forget()
        return LoadError(f"{self.path.name} changed on the Hub while it was fetched; load the model again")


class HubSafetensors(SafetensorsHeader):
    """A safetensors file on the Hub; of a tensor that is read its bytes alone are fetched."""

    def __init__(self, file: HubFile) -> None:
        self._file = file
        try:
            super().__init__(file)
        except LoadError:
            file.forget()
            raise

    def read(self, name: str, *, progress: bool = False) -> npt.NDArray[np.float32]:
        """Read one tensor as float32, fetched unless it was before."""
        entry = self.entries[name]
        check_dtype(entry.dtype, f"{name} in {self.path}")
        if prod(entry.shape) == 0:
            return np.empty(entry.shape, dtype=np.float32)
        kept = self._file.tensor(name, entry, self.data_start, progress)
        return SafetensorsFile(kept).read(name, progress=progress)

    def whole_file(self) -> Path:
        """Return the local path of the whole file, fetched if need be."""
        return self._file.whole or self._file.fetch_whole()

    def origin(self, name: str) -> dict[str, Any]:
        """Return what a `Provenance` says of the file that a tensor was read from."""
        file, entry = self._file, self.entries[name]
        etag = file.identity.etag or ""
        digest = etag if re.fullmatch(r"[0-9a-f]{64}", etag) else None
        fetched = file.size if file.whole else file.head_bytes + entry.end - entry.begin
        return {
            "file": file.whole or file.tensor_path(name),
            "state": FileState(sha256=digest, part=file.whole is None),
            "bytes_fetched": fetched,
            "bytes_stored": file.size,
        }

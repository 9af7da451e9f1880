"""A safetensors file on the Hugging Face Hub, of which the header and the tensors asked for are fetched."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom.embeddings.provenance import FileState
from embgeom.errors import LoadError
from embgeom.loading.convert import check_dtype
from embgeom.loading.folder import LocalFile
from embgeom.loading.hub.cache import appearing, discard, file_name, forget, read_head, write_head
from embgeom.loading.hub.ranges import Answer, Changed, Identity, NoRanges, RangeRequests
from embgeom.loading.safetensors_file import Entry, SafetensorsFile, SafetensorsHeader

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
        """Return one tensor as float32, fetched unless it was before."""
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
    """Return the header of a safetensors file that holds this one tensor and says where it comes from."""
    about = {"format": "embgeom", "content": str(identity.etag), "begin": str(entry.begin)}
    tensor = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [0, entry.end - entry.begin]}
    text = json.dumps({"__metadata__": about, name: tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text

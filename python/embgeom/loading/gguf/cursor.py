"""Numbers and strings of a GGUF file's header, one after the other, never beyond the end of the file."""

from __future__ import annotations

import struct

from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile

_PIECE = 1 << 18
# The format's limit for a name, and far more than any other text has.
MAX_NAME = 65_535
MAX_TEXT = 1 << 26


class Cursor:
    """Reads a header piece by piece; never beyond the end of the file."""

    def __init__(self, file: LocalFile, order: str, offset: int) -> None:
        self.file, self._start, self._at, self._piece = file, offset, 0, b""
        self._u4, self._u8 = struct.Struct(f"{order}I"), struct.Struct(f"{order}Q")

    @property
    def position(self) -> int:
        """Where in the file the next value is read."""
        return self._start + self._at

    def checked_position(self) -> int:
        """Return the position, which may have been moved beyond the end of the file."""
        if self.position > self.file.size:
            raise cut_short(self.file)
        return self.position

    def check_count(self, count: int, size: int, most: int, what: str) -> None:
        """Refuse a count of things of at least `size` bytes for which the rest of the file has no room."""
        if count > most or count * size > self.file.size - self.position:
            raise corrupt(self.file, f"it would hold {count} {what}, more than it has room for")

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        if self._at + count > len(self._piece):
            self._fill(count)
        taken = self._piece[self._at : self._at + count]
        self._at += count
        return taken

    def skip(self, count: int) -> None:
        """Go over bytes without reading them."""
        self._at += count

    def u4(self) -> int:
        """Return the next unsigned integer of 4 bytes."""
        return int(self._u4.unpack(self.take(4))[0])

    def u8(self) -> int:
        """Return the next unsigned integer of 8 bytes."""
        return int(self._u8.unpack(self.take(8))[0])

    def string(self, most: int) -> str:
        """Return the next string, which may have `most` bytes."""
        length = self.u8()
        self.check_count(length, 1, most, "bytes in one string")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise corrupt(self.file, f"a string in its header is not UTF-8 ({error})") from error

    def strings(self, count: int, key: str) -> list[str]:
        """Return the next strings, the values of `key`."""
        found = []
        for row in range(count):
            length = self.u8()
            self.check_count(length, 1, MAX_TEXT, "bytes in one string")
            try:
                found.append(self.take(length).decode("utf-8"))
            except UnicodeDecodeError as error:
                raise corrupt(self.file, f"{key}[{row}] is not UTF-8 ({error})") from error
        return found

    def skip_strings(self, count: int) -> None:
        """Go over strings."""
        # The fastest way over a vocabulary of hundreds of thousands: nothing is made of the strings.
        at, piece, unpack = self._at, self._piece, self._u8.unpack_from
        for _ in range(count):
            if at + 8 > len(piece):
                self._at = at
                self._fill(8)
                at, piece = self._at, self._piece
            at += 8 + unpack(piece, at)[0]
        self._at = at

    def _fill(self, count: int) -> None:
        position = self.position
        if position + count > self.file.size:
            raise cut_short(self.file)
        length = min(max(count, _PIECE), self.file.size - position)
        self._start, self._at, self._piece = position, 0, self.file.read(position, position + length)


def corrupt(file: LocalFile, why: str) -> LoadError:
    """Return the error for a file that contradicts itself."""
    return LoadError(f"{file.path} is no complete GGUF file: {why}; fetch it again")


def cut_short(file: LocalFile) -> LoadError:
    """Return the error for a file that ends before its header does."""
    return LoadError(f"{file.path} is no complete GGUF file: it ends within its header; fetch it again")

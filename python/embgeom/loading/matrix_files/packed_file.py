"""A file that is read from its beginning to its end, as it is or unpacked from gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from embgeom.errors import LoadError
from embgeom.loading.folder import LocalFile, unreadable

CHUNK = 1 << 22
"""How many bytes are worth reading at once."""


@contextmanager
def opened(file: LocalFile) -> Iterator[IO[bytes]]:
    """Open a file, unpacking it if its content is that of gzip."""
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


def unpacked_size(file: LocalFile) -> int:
    """Return how many bytes a file holds; one that is packed is read for it."""
    with opened(file) as stream:
        if not isinstance(stream, gzip.GzipFile):
            return file.size
        return sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))

"""A file that is read from its beginning to its end, as it is or unpacked from gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from embgeom.errors import LoadError
from embgeom.loading.folder import unreadable

CHUNK = 1 << 22
"""How many bytes are worth reading at once."""


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacking it if its content is that of gzip.

    Parameters
    ----------
    path : Path
        The file.

    Yields
    ------
    binary file
        Its content.

    Raises
    ------
    LoadError
        If it cannot be read, at once or later.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if packed:
                with gzip.open(file) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LoadError(f"{path} is cut short or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise unreadable(path, error) from error


def unpacked_size(path: Path) -> int:
    """Return how many bytes a file holds; one that is packed is read for it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    int
        The bytes.

    Raises
    ------
    LoadError
        If the file cannot be read.
    """
    with opened(path) as stream:
        if not isinstance(stream, gzip.GzipFile):
            return path.stat().st_size
        return sum(len(chunk) for chunk in iter(lambda: stream.read(CHUNK), b""))

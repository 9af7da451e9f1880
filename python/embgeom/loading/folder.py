"""The files of a local model folder, and the reading of its JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from embgeom.errors import LoadError
from embgeom.loading.local_file import LocalFile, unreadable

if TYPE_CHECKING:
    from embgeom.loading.hub.file import HubFile

# No vocabulary and no tokenizer comes near to it.
_MOST_BYTES = 1 << 30


class Source(Protocol):
    """A place that holds a model's files: a local folder or a Hugging Face repository."""

    @property
    def name(self) -> str:
        """What a person calls the model."""

    @property
    def revision(self) -> str | None:
        """The commit the files are of, where there is one."""

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file of the model, fetched if need be; None if there is none."""

    def locate(self, filename: str) -> Path | HubFile | None:
        """Return a file of tensors: its path, or a file on the Hub, of which but the header is fetched."""

    def list_local(self, pattern: str) -> list[Path]:
        """Return the files that match a glob pattern, where listing costs nothing; else none."""


@dataclass(frozen=True)
class Folder:
    """A model folder on this machine."""

    path: Path
    revision: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        """The label, or else the folder's own name."""
        return self.label or self.path.resolve().name

    def find(self, filename: str) -> Path | None:
        """Return the path of a file in the folder, or None."""
        path = self.path / filename
        try:
            path.stat()
        except (FileNotFoundError, ValueError):
            # A ValueError is for a name that no file can have, such as one with a lone surrogate.
            return None
        except OSError as error:
            raise unreadable(path, error) from error
        return path

    def locate(self, filename: str) -> Path | None:
        """Return the path of a file of tensors in the folder, or None."""
        return self.find(filename)

    def list_local(self, pattern: str) -> list[Path]:
        """Return the files of the folder that match a glob pattern, in order of name."""
        return sorted(self.path.glob(pattern))


def is_inside(path: str) -> bool:
    """Return whether a path that a file names, relative to its model, cannot lead out of the model."""
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and "\0" not in path


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    content = parse_json(read_bytes(path), str(path))
    if not isinstance(content, dict):
        raise LoadError(f"{path} holds a JSON {type(content).__name__}, not an object; fetch the file again")
    return content


def parse_json(text: bytes, where: str, *, unique_keys: bool = False) -> Any:
    """Return the value of a JSON text."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            raise ValueError("a key occurs twice")
        return content

    try:
        return json.loads(text, object_pairs_hook=once if unique_keys else None)
    except (ValueError, RecursionError) as error:
        raise LoadError(f"{where} is not valid JSON ({error}); fetch the file again") from error


def is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that the file system has no room for is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_bytes(path: Path) -> bytes:
    """Return the whole of a small file."""
    file = LocalFile(path)
    if file.size > _MOST_BYTES:
        raise LoadError(f"{path} holds more than {_MOST_BYTES >> 20} MiB, which no list or text does")
    return file.read(0, file.size)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file."""
    try:
        # Not splitlines(): a token may hold any of the rarer characters at which that splits.
        text = read_bytes(path).decode("utf-8").replace("\r\n", "\n")
        return text.removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise LoadError(f"{path} is not UTF-8 text ({error})") from error

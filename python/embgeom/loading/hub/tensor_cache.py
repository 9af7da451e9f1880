"""Where embgeom keeps what it fetched of files on the Hugging Face Hub, and in which form.

In the cache, which has a folder for each file of each repository, lie

    <commit>.head                    what the Hub says of the file at a commit, and the file's first bytes
    <content>/<tensor>.safetensors   one tensor of that content, by itself a safetensors file
    <content>.safetensors            the whole file, from a server that gives no ranges
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from embgeom.loading.folder import unreadable
from embgeom.loading.hub.answers import Identity
from embgeom.loading.hub.partial_file import unwritable
from embgeom.loading.safetensors_file import Entry

_LONGEST_NAME = 200


def cache_folder(cache_dir: Path | None, repo_id: str, filename: str) -> Path:
    """Return the folder of the cache for one file of a repository."""
    from huggingface_hub.constants import HF_ASSETS_CACHE

    root = Path(cache_dir or os.environ.get("EMBGEOM_CACHE") or HF_ASSETS_CACHE).expanduser()
    return root / "embgeom" / repo_id.replace("/", "--") / file_name(filename)


def file_name(name: str) -> str:
    """Return a name of a file for any text; a long one ends with its hash."""
    safe = quote(name, safe="", errors="surrogatepass")
    if len(safe) <= _LONGEST_NAME:
        return safe
    return f"{safe[: _LONGEST_NAME - 33]}-{sha256(safe.encode()).hexdigest()[:32]}"


def tensor_head(name: str, entry: Entry, identity: Identity) -> bytes:
    """Return the beginning of a safetensors file that holds this one tensor; it tells which tensor it is."""
    about = {"format": "embgeom", "content": str(identity.etag), "begin": str(entry.begin)}
    tensor = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [0, entry.end - entry.begin]}
    text = json.dumps({"__metadata__": about, name: tensor}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def begins_with(path: Path, head: bytes, total: int) -> bool:
    """Return whether a file begins so, and has that length."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(head)) == head and path.stat().st_size == total
    except OSError as error:
        raise unreadable(path, error) from error


def read_head(path: Path) -> tuple[Identity, bytes] | None:
    """Return what was kept of a file, and its first bytes; None if that is nothing, or damaged."""
    try:
        about, _, head = path.read_bytes().partition(b"\n")
        said = json.loads(about)
        etag, size = said["etag"], said["size"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    known = isinstance(etag, str | None) and type(size) is int and size >= 0
    return (Identity(path.stem, etag, size), head) if known else None


def write_head(path: Path, identity: Identity, head: bytes) -> None:
    """Keep what the Hub says of a file, and its first bytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".head", delete=False) as stream:
            try:
                stream.write(json.dumps(asdict(identity)).encode() + b"\n" + head)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                Path(stream.name).replace(path)
            except BaseException:
                Path(stream.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise unwritable(path, error) from error

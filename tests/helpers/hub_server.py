"""A server in this process that behaves as the Hugging Face Hub does, and as it does on a bad day."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helpers.loading import matrix, tokenizer, words, write_folder, write_shards

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER_COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
Fault = Callable[[BaseHTTPRequestHandler, Path, "Request"], None]
X, HEAD = matrix(30, 4, 1), matrix(30, 4, 2)
BIG = matrix(4000, 600, 3)  # 9.6 MB
_PIECE = 1 << 16


@dataclass
class Request:
    """One request as the server saw it."""

    method: str
    repo: str
    revision: str
    filename: str
    headers: dict[str, str]
    sent: int = 0

    @property
    def range(self) -> tuple[int, int] | None:
        """The bytes asked for, of which the last is included."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2])) if found else None


@dataclass
class Hub:
    """What the server holds, how it answers, and what it was asked."""

    root: Path
    url: str = ""
    commit: str = COMMIT
    ranges: bool = True
    # repository -> status, X-Error-Code
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    # What the next requests for bytes of tensors get instead of an answer, in order; None is an answer.
    faults: list[Fault | None] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    # The storage that large files are sent from; None where the Hub sends them itself.
    storage: Hub | None = None
    # filename -> the content's name, where it is not the SHA-256.
    etags: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)

    def fetched(self, filename: str) -> int:
        """How many bytes of a file were sent."""
        return sum(r.sent for r in self.requests if r.filename == filename)

    def asked(self, method: str, filename: str) -> list[Request]:
        return [r for r in self.requests if (r.method, r.filename) == (method, filename)]

    def etag(self, path: Path) -> str:
        if path.name in self.etags:
            return self.etags[path.name]
        if path.stat().st_size > 1 << 24:
            return hashlib.sha256(str(path).encode()).hexdigest()
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        parts = handler.path.split("?")[0].lstrip("/").split("/", 4)
        if len(parts) != 5:
            # huggingface_hub asks for other things, too.
            _refuse(handler, 404, "")
            return
        owner, name, _, revision, filename = parts
        headers = {key.lower(): value for key, value in handler.headers.items()}
        request = Request(handler.command, f"{owner}/{name}", revision, filename, headers)
        self.requests.append(request)
        path = self.root / request.repo / filename
        status, code = self.failures.get(request.repo, (200, ""))
        if status == 200 and not (self.root / request.repo).is_dir():
            status, code = 401, "RepoNotFound"
        elif status == 200 and revision not in ("main", COMMIT, OTHER_COMMIT):
            status, code = 404, "RevisionNotFound"
        elif status == 200 and not path.is_file():
            status, code = 404, "EntryNotFound"
        if status != 200:
            _refuse(handler, status, code, **self.about(), **self.headers)
            return
        of_tensors = filename.endswith(".safetensors")
        if of_tensors and handler.command == "GET" and self.faults and (fault := self.faults.pop(0)):
            fault(handler, path, request)
            return
        if of_tensors and self.storage is not None:
            linked = {"X-Linked-ETag": f'"{self.etag(path)}"', "X-Linked-Size": str(path.stat().st_size)}
            location = f"{self.storage.url}{handler.path}"
            _send(handler, 302, {**self.about(), **linked, "Location": location, "X-Xet-Hash": "0" * 64})
            return
        self.send(handler, path, request)

    def about(self) -> dict[str, str]:
        return {"X-Repo-Commit": self.commit} if self.commit else {}

    def send(
        self,
        handler: BaseHTTPRequestHandler,
        path: Path,
        request: Request,
        *,
        stop: int | None = None,
        **changed: str | None,
    ) -> None:
        """Send a file or a part of it; of the body only the first `stop` bytes, and some headers changed."""
        size = path.stat().st_size
        begin, last = 0, size - 1
        headers: dict[str, str | None] = {**self.about(), "ETag": f'"{self.etag(path)}"'}
        status = 200
        if self.ranges and request.range:
            begin, last = request.range[0], min(request.range[1], size - 1)
            if begin >= size:
                _send(handler, 416, {"Content-Range": f"bytes */{size}"})
                return
            status, headers["Content-Range"] = 206, f"bytes {begin}-{last}/{size}"
        headers["Content-Length"] = str(last + 1 - begin)
        headers |= self.headers
        headers |= {name.replace("_", "-"): value for name, value in changed.items()}
        handler.send_response(status)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if request.method == "HEAD":
            return
        end = last + 1 if stop is None else min(last + 1, begin + stop)
        with path.open("rb") as stream, suppress(ConnectionError):
            stream.seek(begin)
            while begin < end:
                piece = stream.read(min(_PIECE, end - begin))
                handler.wfile.write(piece)
                begin += len(piece)
                request.sent += len(piece)
        if stop is not None:
            handler.close_connection = True


def _send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in {**headers, "Content-Length": "0"}.items():
        handler.send_header(name, value)
    handler.end_headers()


def _refuse(handler: BaseHTTPRequestHandler, status: int, code: str, **headers: str) -> None:
    _send(handler, status, {**headers, **({"X-Error-Code": code} if code else {})})


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Run the server as long as the block runs; its address is `hub.url`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            hub.answer(self)

        def do_GET(self):
            hub.answer(self)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Faults. One that sends a file sends it from a server without a care.
CARELESS = Hub(Path())


def refusing(status, **headers):
    def fault(handler, _path, _request):
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return fault


def breaking(after, *, reset=False):
    """Send so many bytes, and end or reset the connection."""

    def fault(handler, path, request):
        CARELESS.send(handler, path, request, stop=after)
        if reset:
            linger = (1).to_bytes(4, sys.byteorder) + (0).to_bytes(4, sys.byteorder)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        handler.close_connection = True

    return fault


def lying(**headers):
    def fault(handler, path, request):
        CARELESS.send(handler, path, request, **headers)

    return fault


def stalling(after, seconds):
    """Send so many bytes, and then nothing for long."""

    def fault(handler, path, request):
        CARELESS.send(handler, path, request, stop=after)
        handler.wfile.flush()
        time.sleep(seconds)

    return fault


# Models on the server.


def small(hub, name="owner/m", **tensors):
    return write_folder(hub.root / name, tensors or {"wte.weight": X}, {"vocab_size": 30, "hidden_size": 4})


def big(hub, name="owner/big"):
    """A model whose embedding is 9.6 MB, between others of 2 MB."""
    other = matrix(1000, 500, 5)
    config = {"vocab_size": 4000, "hidden_size": 600}
    return write_folder(
        hub.root / name,
        {"a": other, "wte.weight": BIG, "z": other},
        config,
        tokens=tokenizer(words(4000)),
    )


def kept(cache, suffix):
    return sorted(path for path in (cache / "embgeom").rglob(f"*{suffix}"))


def gigabyte(hub):
    """A repository of 1 GB in two shards, of which nearly all is a hole on the disk."""
    config = {"tie_word_embeddings": False, "vocab_size": 4000}
    folder = write_folder(hub.root / "owner" / "giga", {"lm_head.weight": BIG}, config)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(words(4000))))
    write_shards(folder, [{"model.embed_tokens.weight": X}, {"lm_head.weight": BIG}])
    rest = 500_000_000
    for shard, name, tensor in ((1, "model.embed_tokens.weight", X), (2, "lm_head.weight", BIG)):
        path = folder / f"model-{shard:05}-of-00002.safetensors"
        entries = {"layers": {"dtype": "I8", "shape": [rest], "data_offsets": [0, rest]}}
        ends = [rest, rest + tensor.nbytes]
        entries[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": ends}
        text = json.dumps(entries).encode()
        with path.open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            stream.seek(rest, os.SEEK_CUR)
            stream.write(tensor.tobytes())
    return folder

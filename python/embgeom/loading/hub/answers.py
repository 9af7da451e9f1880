"""What an answer of the Hugging Face Hub, or of a server that it sends to, says of a file and holds of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

_CHUNK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_NUMBER = re.compile(r"[0-9]{1,18}")


class NoRanges(Exception):
    """A server answered a request for a range with something else; `answer` is the whole file, if it is."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer


class Broken(Exception):
    """A request failed in a way that may pass, after `wait` seconds if the server says so."""

    def __init__(self, detail: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.wait = wait


@dataclass(frozen=True)
class Identity:
    """What the Hub says of a file."""

    commit: str | None
    etag: str | None
    size: int | None


@dataclass
class Answer:
    """An answer whose body can be read once: the bytes from `begin` on, to `end` where that is known."""

    response: Any
    identity: Identity
    begin: int = 0
    end: int | None = None

    def close(self) -> None:
        """Close the connection, whatever is still to come."""
        self.response.close()

    def chunks(self) -> Iterator[bytes]:
        """Give the body piece by piece."""
        iterate = getattr(self.response, "iter_raw", None)
        pieces = iter(iterate() if iterate else self.response.iter_content(_CHUNK))
        position = self.begin
        while True:
            try:
                piece = next(pieces, None)
            except Exception as error:
                # What a connection that breaks raises depends on the HTTP library of huggingface_hub.
                raise Broken(detail(error)) from error
            if piece is None:
                break
            position += len(piece)
            if self.end is not None and position > self.end:
                raise NoRanges
            yield piece
        if self.end is not None and position < self.end:
            raise Broken(f"the answer ended after {position - self.begin} bytes")


def range_of(response: Any, begin: int, end: int) -> Answer:
    """Return an answer of status 206 for the bytes from `begin` to `end`, if that is what it holds."""
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if said is None:
        raise NoRanges
    first, last, size = (int(number) for number in said.groups())
    length = number(response.headers.get("Content-Length"))
    linked = number(_first(response, "X-Linked-Size"))
    if first != begin or not begin <= last < min(end, size) or length not in (None, last + 1 - first):
        raise NoRanges
    if linked not in (None, size):
        raise NoRanges
    return Answer(response, identity(response, size), begin, last + 1)


def whole_of(response: Any) -> Answer:
    """Return an answer of status 200, which holds the whole file."""
    size = number(response.headers.get("Content-Length"))
    return Answer(response, identity(response, size), 0, size)


def identity(response: Any, size: int | None) -> Identity:
    """Return what the answers on the way to a file say of it; the Hub's own word comes first."""
    etag = _first(response, "X-Linked-ETag") or response.headers.get("ETag")
    name = etag.strip().removeprefix("W/").strip('"') if etag else None
    return Identity(_first(response, "X-Repo-Commit"), name or None, size)


def asked_wait(headers: Any) -> float | None:
    """Return how many seconds a server asks to wait: Retry-After in seconds or as a date, or RateLimit."""
    after = (headers.get("Retry-After") or "").strip()
    if (seconds := number(after)) is not None:
        return float(seconds)
    try:
        when = parsedate_to_datetime(after)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError):
        pass
    limit = re.search(r"\br\s*=\s*0\b.*\bt\s*=\s*([0-9]{1,9})", headers.get("RateLimit") or "")
    return float(limit[1]) if limit else None


def number(text: str | None) -> int | None:
    """Return the count that a header or variable holds; None where it holds none."""
    return int(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def detail(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _first(response: Any, name: str) -> str | None:
    """Return a header of the first answer that has it, on the way from the Hub to the file."""
    return next(
        (value for answer in (*response.history, response) if (value := answer.headers.get(name))), None
    )

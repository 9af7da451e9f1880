"""Byte ranges of a file on the Hugging Face Hub, with retries after broken connections and rate limits.

Requests go through the session of huggingface_hub, so proxies, certificates and a client that the
user has configured apply; it drops the token when a server redirects to another host.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from embgeom._common.record import versions
from embgeom.errors import LoadError, first_line

# How often a request that brings nothing is repeated, and how long a server may make us wait in total.
TRIES = 5
_PATIENCE = 120.0
# A try that brought this many bytes restarts the count.
_WORTH_A_TRY = 1 << 20
_MAY_PASS = frozenset((408, 425, 429, 500, 502, 503, 504))
# From storage elsewhere these mean that a signed address has expired; the Hub issues a new one.
_TOO_OLD = frozenset((401, 403, 404, 410))
_CHUNK = 1 << 16
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_NUMBER = re.compile(r"[0-9]{1,18}")
_NO_MORE = "the Hub is refusing requests for now; load again"


class NoRanges(Exception):
    """A server answered a request for a range with something else; `answer` is the whole file, if it is."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer


class Changed(Exception):
    """The file on the Hub changed after its first bytes were fetched."""


class _Broken(Exception):
    """A request failed in a way that may pass, perhaps after the `wait` seconds that the server asks for."""

    def __init__(self, detail: str, status: int | None = None, wait: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.wait = wait


Fail = Callable[[Exception, str], LoadError]


@dataclass(frozen=True)
class Identity:
    """What the Hub says of a file: its commit, the name of its content, and its length in bytes.

    The name of a large file's content is its SHA-256.
    """

    commit: str | None = None
    etag: str | None = None
    size: int | None = None


@dataclass
class Answer:
    """An answer whose body can be read once: the bytes from `begin` on, to `end` where that is known."""

    response: Any
    identity: Identity
    begin: int = 0
    end: int | None = None

    def close(self) -> None:
        self.response.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces; raise if it breaks off or is too long."""
        response = self.response
        raw = hasattr(response, "iter_raw")
        pieces = response.iter_raw() if raw else response.raw.stream(_CHUNK)
        position = self.begin
        try:
            for piece in pieces:
                position += len(piece)
                if self.end is not None and position > self.end:
                    raise NoRanges
                yield piece
        except NoRanges:
            raise
        except Exception as error:
            # Which exception a broken connection raises depends on the HTTP library of huggingface_hub.
            raise _Broken(_detail(error)) from error
        if self.end is not None and position < self.end:
            raise _Broken(f"the answer ended after {position - self.begin} bytes")


@dataclass
class RangeRequests:
    """Requests for the bytes of one file; `identity` is what is known of the file, and answers add to it.

    `fail` makes the `LoadError` of what a request failed with and why, where the error itself does not say
    why. That the repository holds no such file is raised as the EntryNotFoundError of huggingface_hub.
    """

    url: str
    token: str | bool | None
    fail: Fail
    identity: Identity
    tries: int = TRIES

    def commit(self) -> str | None:
        from huggingface_hub import get_hf_file_metadata

        patience = _Patience(self.tries, self.fail)
        while True:
            try:
                found: Any = get_hf_file_metadata(self.url, token=self.token, **_sender())
                return str(found.commit_hash) if found.commit_hash else None
            except Exception as error:
                patience.wait(self._broken(error))

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `begin` to `end` or the end of the file, resuming where an answer broke off.

        Raises `NoRanges` if the server sends no reliable ranges, and `Changed` if the file is not the one
        that `identity` describes.
        """
        patience = _Patience(self.tries, self.fail)
        while begin < end:
            try:
                with closing(self._open(begin, end)) as answer:
                    end = min(end, answer.identity.size or end)
                    for piece in answer.chunks():
                        begin += len(piece)
                        patience.gained += len(piece)
                        yield piece
            except _Broken as failure:
                patience.wait(failure)

    def whole(self, answer: Answer | None) -> Iterator[bytes | None]:
        """Yield the whole file, from `answer` if there is one; None marks each new start."""
        patience = _Patience(self.tries, self.fail)
        while True:
            try:
                with closing(answer or self._open(0, None)) as body:
                    yield None
                    yield from body.chunks()
                    return
            except _Broken as failure:
                answer = None
                patience.wait(failure)
            except NoRanges as error:
                raise self.fail(error, "the server sends more bytes than it announces") from error

    def _open(self, begin: int, end: int | None) -> Answer:
        """Return the answer for a range, or for the whole file where `end` is None."""
        with ExitStack() as unless_returned:
            response = self._get({} if end is None else {"Range": f"bytes={begin}-{end - 1}"})
            unless_returned.callback(response.close)
            status, headers = response.status_code, response.headers
            if status == 416:
                raise NoRanges
            if headers.get("Content-Encoding", "identity") != "identity":
                raise self.fail(
                    _Broken("Content-Encoding"), "the server compresses what must not be compressed"
                )
            if status == 206 and end is not None:
                answer = _range_of(response, begin, end)
            elif status == 200:
                size = number(headers.get("Content-Length"))
                answer = Answer(response, _identity(response, size), 0, size)
            else:
                raise self.fail(
                    _Broken(f"HTTP {status}"), "the server answers something else than was asked for"
                )
            self._check_identity(answer.identity)
            unless_returned.pop_all()
        if status == 200 and end is not None:
            raise NoRanges(answer)
        return answer

    def _get(self, headers: dict[str, str]) -> Any:
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

        try:
            session: Any = get_session()
            options = {
                "headers": {
                    **build_hf_headers(token=self.token, **_sender()),
                    **headers,
                    "Accept-Encoding": "identity",
                },
                "timeout": number(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT")) or 10,
            }
            if hasattr(session, "build_request"):
                # A client of httpx, since huggingface_hub 1.0; before it was a session of requests.
                request = session.build_request("GET", self.url, **options)
                response = session.send(request, stream=True, follow_redirects=True)
            else:
                response = session.get(self.url, stream=True, **options)
            if response.status_code != 416:
                hf_raise_for_status(response)
        except Exception as error:
            raise self._broken(error) from error
        return response

    def _broken(self, error: Exception) -> _Broken:
        """Return the failure that an error means, if that may pass; else raise its `LoadError`."""
        from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError

        response = getattr(error, "response", None)
        if response is None:
            if isinstance(error, LocalTokenNotFoundError):
                raise self.fail(error, "") from error
            return _Broken(_detail(error))
        response.close()
        status = response.status_code
        elsewhere = urlsplit(str(response.url)).netloc != urlsplit(self.url).netloc
        if status in _MAY_PASS or (
            status in _TOO_OLD and elsewhere and not response.headers.get("X-Error-Code")
        ):
            return _Broken(f"HTTP {status}", status, _asked_wait(response.headers))
        if isinstance(error, EntryNotFoundError):
            raise error
        raise self.fail(error, "") from error

    def _check_identity(self, found: Identity) -> None:
        """Raise if an answer is for another file than the known one; learn from it what is not known yet."""
        known = {name: value for name, value in asdict(self.identity).items() if value is not None}
        if any(said is not None and said != known.get(name, said) for name, said in asdict(found).items()):
            raise Changed
        self.identity = Identity(**{**asdict(found), **known})


@dataclass
class _Patience:
    """Counts failed requests and waiting time, and decides when to give up."""

    tries: int
    fail: Fail
    failures: int = 0
    waited: float = 0.0
    gained: int = 0

    def wait(self, failure: _Broken) -> None:
        """Sleep before the next try, or give up."""
        self.failures = 1 if self.gained >= _WORTH_A_TRY else self.failures + 1
        self.gained = 0
        pause = min(0.5 * 2 ** (self.failures - 1), 8.0) if failure.wait is None else failure.wait
        if failure.wait is not None and self.waited + pause > _PATIENCE:
            when = datetime.now().astimezone() + timedelta(seconds=pause)
            why = f"{_NO_MORE} after {when:%Y-%m-%d %H:%M:%S %Z}"
            raise self.fail(_Broken(f"{failure}, Retry-After {pause:.0f} s"), why) from failure
        if self.failures >= self.tries:
            why = "the connection to the Hub failed; check the network and HF_ENDPOINT, then load again"
            if failure.status is not None:
                why = "the connection to the Hub failed, which is out of order; load again later"
            if failure.status == 429:
                why = f"{_NO_MORE} in a few minutes"
            raise self.fail(failure, why) from failure
        self.waited += pause
        time.sleep(pause)


def number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text.strip()) else None


def _range_of(response: Any, begin: int, end: int) -> Answer:
    said = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if said is None:
        raise NoRanges
    first, last, size = map(int, said.groups())
    length = number(response.headers.get("Content-Length"))
    linked = number(_first(response, "X-Linked-Size"))
    consistent = length in (None, last + 1 - first) and linked in (None, size)
    if not consistent or first != begin or not begin <= last < min(end, size):
        raise NoRanges
    return Answer(response, _identity(response, size), begin, last + 1)


def _identity(response: Any, size: int | None) -> Identity:
    """Return what the answers along the redirects say of a file; the Hub's own headers come first."""
    etag = _first(response, "X-Linked-ETag") or response.headers.get("ETag") or ""
    name = etag.strip().removeprefix("W/").strip('"')
    return Identity(_first(response, "X-Repo-Commit"), name or None, size)


def _first(response: Any, name: str) -> str | None:
    """Return a header of the first answer along the redirects that has it."""
    return next(
        (value for answer in (*response.history, response) if (value := answer.headers.get(name))), None
    )


def _asked_wait(headers: Any) -> float | None:
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


def _sender() -> dict[str, Any]:
    return {"library_name": "embgeom", "library_version": versions().get("embgeom")}


def _detail(error: Exception) -> str:
    kind, first = type(error).__name__, first_line(error)
    return kind if first == kind else f"{kind}: {first}"

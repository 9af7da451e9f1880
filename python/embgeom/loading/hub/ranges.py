"""Bytes of a file on the Hugging Face Hub, over connections that break and from servers that say wait.

Requests go through the session of huggingface_hub, so that proxies, certificates and a client of the user's
own serve here, too; that session takes the token off when a server sends it to another host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from embgeom.errors import LoadError
from embgeom.loading.hub.answers import (
    Answer,
    Broken,
    Identity,
    NoRanges,
    asked_wait,
    detail,
    identity,
    number,
    range_of,
    whole_of,
)

# How often a request is repeated that brings nothing, and how long a server may let us wait in all.
_TRIES = 5
_PATIENCE = 120.0
# A try that brought so much starts the count anew.
_WORTH_A_TRY = 1 << 20
_MAY_PASS = frozenset((408, 425, 429, 500, 502, 503, 504))


class Changed(Exception):
    """The file is not the one any more of which the first bytes were fetched."""


class GaveUp(Exception):
    """Requests failed too often, or the server wants to be left alone for long; `why` says what to do."""

    def __init__(self, why: str, detail: str) -> None:
        super().__init__(detail)
        self.why = why


class RangeRequests:
    """Requests for the bytes of one file."""

    def __init__(
        self,
        url: str,
        token: str | bool | None,
        fail: Callable[[Exception], LoadError],
        identity: Identity,
        tries: int = _TRIES,
    ) -> None:
        self._url = url
        self._token = token
        self._fail = fail
        self._tries = tries
        self.identity = identity

    def ask(self) -> Identity:
        """Return what the Hub says of the file, without any of its bytes."""
        patience = _Patience(self._tries, self._fail)
        while True:
            try:
                with closing(self._send("HEAD", {}, "HF_HUB_ETAG_TIMEOUT")) as response:
                    # A server elsewhere may refuse this method, but the Hub has told by then.
                    if not self._is_elsewhere(response):
                        self._raise_for_status(response)
                    return identity(response, number(response.headers.get("Content-Length")))
            except Broken as failure:
                patience.wait(failure)

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        """Give the bytes from `begin` to `end` or the end of the file; go on where an answer broke."""
        patience = _Patience(self._tries, self._fail)
        while begin < end:
            try:
                with closing(self._open(begin, end)) as answer:
                    end = min(end, answer.identity.size or end)
                    for piece in answer.chunks():
                        begin += len(piece)
                        patience.gained(len(piece))
                        yield piece
            except Broken as failure:
                patience.wait(failure)

    def whole(
        self, answer: Answer | None, write: Callable[[bytes], None], restart: Callable[[], None]
    ) -> None:
        """Fetch the whole file; an answer that breaks is begun anew."""
        patience = _Patience(self._tries, self._fail)
        while True:
            try:
                with closing(answer or self._open(0, None)) as body:
                    restart()
                    for piece in body.chunks():
                        write(piece)
                    return
            except Broken as failure:
                answer = None
                patience.wait(failure)
            except NoRanges as error:
                failed = GaveUp("the server answers with more than it says", "a body that is too long")
                raise self._fail(failed) from error

    def _open(self, begin: int, end: int | None) -> Answer:
        """Return the answer for a range, or for the whole file where `end` is None."""
        headers = {} if end is None else {"Range": f"bytes={begin}-{end - 1}"}
        response = self._send("GET", headers, "HF_HUB_DOWNLOAD_TIMEOUT")
        try:
            answer = self._understand(response, begin, end)
            self._check_identity(answer.identity)
        except NoRanges as error:
            if error.answer is None:
                response.close()
            raise
        except BaseException:
            response.close()
            raise
        return answer

    def _understand(self, response: Any, begin: int, end: int | None) -> Answer:
        if response.status_code == 416:
            raise NoRanges
        self._raise_for_status(response)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._fail(GaveUp("the server packs what must not be packed", "Content-Encoding"))
        if response.status_code == 206 and end is not None:
            return range_of(response, begin, end)
        if response.status_code != 200:
            raise self._fail(GaveUp("the server answers with what was not asked for", _status(response)))
        whole = whole_of(response)
        if end is not None:
            self._check_identity(whole.identity)
            raise NoRanges(whole)
        return whole

    def _check_identity(self, found: Identity) -> None:
        """Refuse the answer for another file than the one that is known, and learn from it what is not."""
        known = {name: value for name, value in asdict(self.identity).items() if value is not None}
        if any(said is not None and said != known.get(name, said) for name, said in asdict(found).items()):
            raise Changed
        self.identity = Identity(**{**asdict(found), **known})

    def _send(self, method: str, headers: dict[str, str], timeout: str) -> Any:
        """Send one request, and return the answer with its body still to come."""
        utils: Any = import_module("huggingface_hub.utils")
        session = utils.get_session()
        try:
            headers = {**_own_headers(self._token), **headers, "Accept-Encoding": "identity"}
        except Exception as error:
            # token=True needs a token that is logged in.
            raise self._fail(error) from error
        seconds = number(os.environ.get(timeout)) or 10
        try:
            if hasattr(session, "build_request"):
                # httpx, since huggingface_hub 1.0.
                request = session.build_request(method, self._url, headers=headers, timeout=seconds)
                return session.send(request, stream=True, follow_redirects=True)
            return session.request(
                method, self._url, headers=headers, timeout=seconds, stream=True, allow_redirects=True
            )
        except Exception as error:
            raise Broken(detail(error)) from error

    def _raise_for_status(self, response: Any) -> None:
        """Raise what an answer means that is an error."""
        status = response.status_code
        # Elsewhere a refusal is that of a signed address which is too old: the Hub gives a new one.
        if status in _MAY_PASS or (status in (401, 403, 404, 410) and self._is_elsewhere(response)):
            raise Broken(_status(response), status, asked_wait(response.headers))
        utils: Any = import_module("huggingface_hub.utils")
        try:
            utils.hf_raise_for_status(response)
        except utils.EntryNotFoundError:
            raise
        except Exception as error:
            raise self._fail(error) from error

    def _is_elsewhere(self, response: Any) -> bool:
        """Return whether the Hub sent us to another server, which is no Hub."""
        if response.headers.get("X-Error-Code"):
            return False
        return urlsplit(str(response.url)).netloc != urlsplit(self._url).netloc


class _Patience:
    """How often requests may still fail, and how long the server may still let us wait."""

    def __init__(self, tries: int, fail: Callable[[Exception], LoadError]) -> None:
        self._tries = tries
        self._fail = fail
        self._failures = 0
        self._gained = 0
        self._waited = 0.0

    def gained(self, count: int) -> None:
        self._gained += count

    def wait(self, failure: Broken) -> None:
        """Sleep before the next try, or give up."""
        self._failures = 1 if self._gained >= _WORTH_A_TRY else self._failures + 1
        self._gained = 0
        pause = min(0.5 * 2 ** (self._failures - 1), 8.0) if failure.wait is None else failure.wait
        if failure.wait is not None and self._waited + pause > _PATIENCE:
            when = datetime.now().astimezone() + timedelta(seconds=pause)
            why = f"the Hub takes no more requests for now; load again after {when:%Y-%m-%d %H:%M:%S %Z}"
            raise self._fail(GaveUp(why, f"{failure}, Retry-After {pause:.0f} s")) from failure
        if self._failures >= self._tries:
            raise self._fail(GaveUp(_why_it_failed(failure.status), str(failure))) from failure
        self._waited += pause
        time.sleep(pause)


def _why_it_failed(status: int | None) -> str:
    if status == 429:
        return "the Hub takes no more requests for now; load again in some minutes"
    if status is not None:
        return "the connection to the Hub failed, which is out of order; load again later"
    return "the connection to the Hub failed; check the network and HF_ENDPOINT, then load again"


def _own_headers(token: str | bool | None) -> dict[str, str]:
    """Return the headers that huggingface_hub sends: who asks, and the token."""
    from embgeom import __version__

    utils: Any = import_module("huggingface_hub.utils")
    headers: dict[str, str] = utils.build_hf_headers(
        token=token, library_name="embgeom", library_version=__version__
    )
    return headers


def _status(response: Any) -> str:
    return f"HTTP {response.status_code}"

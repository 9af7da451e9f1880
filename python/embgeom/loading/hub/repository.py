"""The files of a Hugging Face repository, fetched one by one as they are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

from embgeom.errors import InputError, LoadError, first_line
from embgeom.loading.folder import is_inside
from embgeom.loading.hub.ranges import TRIES, Identity, RangeRequests
from embgeom.loading.hub.tensors import HubSafetensors, cache_folder

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# The name of a missing file is not looked up on the Hub.
_FILES = (".npy", ".npz", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# Names that Git accepts; they become part of paths in the cache.
_REVISION = re.compile(r"(?![./])(?!.*(?:\.\.|//|/\.|/$))[^\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]{1,250}")
# Safe as a file name, whatever a server sends.
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_TRUE = frozenset(("1", "on", "true", "yes"))
_SWITCHED_OFF = "downloads are switched off (local_files_only or HF_HUB_OFFLINE)"
# What an error of huggingface_hub, or of the system, means.
_MEANINGS = {
    "GatedRepoError": "the model is gated; accept its terms on its page, then pass token= or run "
    "`hf auth login`",
    "RepositoryNotFoundError": "no such model; if the model is private, pass token=",
    "RevisionNotFoundError": "no such revision; look for its name on the model's page",
    "LocalTokenNotFoundError": "token=True takes the token of `hf auth login`, and there is none",
    "FileMetadataError": "the server is not a Hugging Face Hub; check HF_ENDPOINT and the proxies",
    "PermissionError": "the cache cannot be written; pass cache_dir= or set HF_HOME",
}


def looks_like_repo_id(model: str) -> bool:
    """Return whether `model` can be a Hugging Face id: ``name`` or ``owner/name``."""
    possible = _REPO_ID.fullmatch(model) is not None and ".." not in model and "--" not in model
    return possible and Path(model).suffix not in _FILES


def split_file(name: str) -> tuple[str, str] | None:
    """Return the id and the file of ``owner/name/path/to/file``; None for what is no file on the Hub."""
    owner, _, rest = name.partition("/")
    repo, _, file = rest.partition("/")
    if not file or not is_inside(file) or not looks_like_repo_id(f"{owner}/{repo}"):
        return None
    return f"{owner}/{repo}", file


class HubRepo:
    """A model repository on the Hugging Face Hub, or its copy in the local cache.

    The first file that is found fixes the commit, so that all files are of one state of the repository.
    ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` are honored. `folder` is the folder of
    the repository whose files are found; empty for the repository's own.
    """

    def __init__(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        progress: bool = False,
    ) -> None:
        if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
            raise InputError(f"revision={revision!r:.60} is not the name of a branch, a tag or a commit")
        if not isinstance(cache_dir, str | os.PathLike | None):
            raise InputError(f"cache_dir={cache_dir!r:.60} is not the name of a folder")
        # A token read from a file often ends with a newline, which no request can hold; and libraries
        # put a token that cannot be sent into their error messages.
        self._token = token.strip() if isinstance(token, str) else token
        if isinstance(self._token, str) and not re.fullmatch(r"[!-~]*", self._token):
            raise InputError("token= holds a character that no access token has; copy it again")
        # Two revisions of one model must not have one name in a comparison.
        short = revision[:8] if revision and _COMMIT.fullmatch(revision) else revision
        self.name = f"{repo_id}@{short}" if short else repo_id
        self.folder = ""
        self.revision: str | None = None
        self._id = repo_id
        self._asked = revision
        self._contacted = False
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
        self._progress = progress

    def within(self, folder: str, name: str | None = None) -> HubRepo:
        inner = copy(self)
        inner.folder = folder
        inner.name = name or f"{self.name}/{folder}"
        return inner

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, fetched if need be; None if the repository has no such file."""
        return self._find(self._full(filename))

    def list_local(self, pattern: str) -> list[Path]:
        """Return nothing: a repository is never listed."""
        del pattern
        return []

    def locate(self, filename: str) -> Path | HubSafetensors | None:
        """Return a file of tensors, of which only the header is fetched if possible.

        It is a path if huggingface_hub has cached the file, or its format must be fetched whole.
        """
        from huggingface_hub.errors import EntryNotFoundError

        filename = self._full(filename)
        self._contact()
        if self.revision is None:
            self._find("config.json")
        commit = self.revision or ""
        folder = cache_folder(self._cache_dir, self._id, filename)
        reachable = not self._offline or (folder / f"{commit}.head").is_file()
        by_ranges = _PLAIN.fullmatch(commit) is not None and filename.endswith(".safetensors")
        if not reachable or not by_ranges or self._known(filename) is not None:
            return self._find(filename)

        def requests(what: str, known: Identity) -> RangeRequests:
            if self._offline:
                raise LoadError(
                    f"{what} of {filename} of the Hugging Face model {self.name} is not in the cache, and "
                    f"{_SWITCHED_OFF}"
                )
            return self._requests(filename, commit, known)

        try:
            return HubSafetensors(folder, commit, requests, progress=self._progress)
        except EntryNotFoundError:
            # This records the absence in the cache.
            return self._fetch(filename)

    def _full(self, filename: str) -> str:
        return f"{self.folder}/{filename}" if self.folder else filename

    def _find(self, filename: str) -> Path | None:
        self._contact()
        if (known := self._known(filename)) is not None:
            return Path(known) if isinstance(known, str) else None
        path = self._fetch(filename)
        if self.revision is None:
            # The library has recorded the commit with the file, or with its absence.
            self.revision = self._kept_commit(self._asked or "main")
        return path

    def _contact(self) -> None:
        """Find out once which commit is meant, with bounded waits; without the Hub, the one in the cache."""
        from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError

        if self.revision is not None or self._contacted:
            return
        self._contacted = True
        asked = self._asked or "main"
        kept = self._kept_commit(asked)
        if self._offline or kept == asked:
            self.revision = kept
            return
        # If the cache can serve the model, one retry is enough: it covers a kept-alive connection that the
        # server has closed meanwhile.
        tries = TRIES if kept is None else 2
        try:
            commit = self._requests("config.json", asked, Identity(), tries).commit()
        except EntryNotFoundError as error:
            commit = error.response.headers.get("X-Repo-Commit")
        except LoadError as error:
            if kept is None or isinstance(error.__cause__, RevisionNotFoundError):
                raise
            commit = kept
        # A new commit is recorded by the first download of huggingface_hub, which other libraries rely on.
        self.revision = commit if commit in (kept, asked) else None

    def _requests(self, filename: str, revision: str, known: Identity, tries: int = TRIES) -> RangeRequests:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self._id, filename, revision=revision, endpoint=_endpoint())
        return RangeRequests(
            url, self._token, lambda error, why: self._error(error, filename, why), known, tries
        )

    def _known(self, filename: str) -> Any:
        """Return the cached path of a file at the commit, a mark if it is known to be absent, or None."""
        from huggingface_hub import try_to_load_from_cache

        if self.revision is None:
            return None
        return try_to_load_from_cache(self._id, filename, cache_dir=self._cache_dir, revision=self.revision)

    def _fetch(self, filename: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            with _bars(self._progress):
                path = hf_hub_download(
                    self._id,
                    filename,
                    revision=self.revision or self._asked,
                    cache_dir=self._cache_dir,
                    token=self._token,
                    local_files_only=self._offline,
                    # The library reads the variable once, when it is imported.
                    endpoint=_endpoint(),
                )
        except LocalEntryNotFoundError as error:
            # A file that the cache lacks counts as absent if the cache knows the revision.
            if self._offline and self._kept_commit(self.revision or self._asked or "main") is not None:
                return None
            raise self._error(error, filename) from error
        except EntryNotFoundError:
            return None
        except Exception as error:
            # Which exception a broken connection raises depends on the HTTP library of huggingface_hub.
            raise self._error(error, filename) from error
        return Path(path)

    def _kept_commit(self, revision: str) -> str | None:
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = Path(self._cache_dir or HF_HUB_CACHE) / f"models--{self._id.replace('/', '--')}"
        try:
            if (folder / "snapshots" / revision).is_dir():
                return revision
            return (folder / "refs" / revision).read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            return None

    def _error(self, error: Exception, filename: str, why: str = "") -> LoadError:
        from huggingface_hub.errors import LocalEntryNotFoundError

        if isinstance(error, LocalEntryNotFoundError) and self._offline:
            why = f"{_SWITCHED_OFF} and it is not in the cache"
        elif isinstance(error, LocalEntryNotFoundError):
            why = _why_it_failed(error.__cause__ or error)
        revision = f" at revision {self._asked}" if self._asked else ""
        return LoadError(
            f"{self._id} is not a path on this machine, and {filename} of the Hugging Face model"
            f"{revision} cannot be read: {why or _why_it_failed(error)} ({first_line(error)})"
        )


def _why_it_failed(error: BaseException) -> str:
    kinds = (kind.__name__ for kind in type(error).__mro__)
    if (why := next((_MEANINGS[kind] for kind in kinds if kind in _MEANINGS), None)) is not None:
        return why
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "access is refused; pass a token= that is valid and may read the model"
    if status is not None and status < 500:
        return "the Hub refuses the request; check the id and HF_ENDPOINT"
    return "the connection to the Hub failed; check the network and HF_ENDPOINT"


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


@contextmanager
def _bars(show: bool) -> Iterator[None]:
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if show or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()

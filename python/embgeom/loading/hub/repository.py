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
from embgeom.loading.hub.answers import Identity
from embgeom.loading.hub.errors import hub_utils, why_it_failed
from embgeom.loading.hub.file import HubFile, HubSafetensors
from embgeom.loading.hub.ranges import RangeRequests
from embgeom.loading.hub.tensor_cache import cache_folder

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
# What Git takes as a name; it becomes part of paths in the cache.
_REVISION = re.compile(r"(?![./])(?!.*(?:\.\.|//|/\.|/$))[^\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]{1,250}")
# What may be the name of a file whatever a server says.
_PLAIN = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
_TRUE = frozenset(("1", "on", "true", "yes"))


def looks_like_repo_id(model: str) -> bool:
    """Return whether `model` can be a Hugging Face id: ``name`` or ``owner/name``."""
    # A file that is missing is not worth a minute of asking the Hub for a repository of that name.
    files = (".npy", ".npz", ".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json", ".txt")
    is_file = Path(model).suffix in files
    return _REPO_ID.fullmatch(model) is not None and ".." not in model and "--" not in model and not is_file


class HubRepo:
    """A model repository on the Hugging Face Hub, or its copy in the local cache."""

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
            raise InputError(f"revision={revision!r:.60} is no name of a branch, a tag or a commit")
        if not isinstance(cache_dir, str | os.PathLike | None):
            raise InputError(f"cache_dir={cache_dir!r:.60} is no name of a folder")
        # Two revisions of one model must not have one name in a comparison.
        self.name = f"{repo_id}@{_short(revision)}" if revision else repo_id
        self._id = repo_id
        self._asked = revision
        self._contacted = False
        self.revision: str | None = None
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        # A token that was read from a file often ends with a line break, which no request can hold; and what
        # cannot be sent, libraries put into their messages.
        self._token = token.strip() if isinstance(token, str) else token
        if isinstance(self._token, str) and not re.fullmatch(r"[!-~]*", self._token):
            raise InputError("token= holds a character that no access token has; copy it anew")
        self._offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
        self._progress = progress
        self.folder = ""

    def within(self, folder: str, name: str | None = None) -> HubRepo:
        """Return the same repository, called `name`, with `folder` as the one whose files are found."""
        inner = copy(self)
        inner.folder = folder
        inner.name = name or f"{self.name}/{folder}"
        return inner

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, fetched if need be; None if the repository has none such."""
        return self._find(f"{self.folder}/{filename}" if self.folder else filename)

    def _find(self, filename: str) -> Path | None:
        self._contact()
        if self._known_absent(filename):
            return None
        path = self._fetch(filename)
        if self.revision is None and path is not None and "snapshots" in path.parts:
            self.revision = path.parts[len(path.parts) - path.parts[::-1].index("snapshots")]
        elif self.revision is None:
            # The library has noted the commit with the absence of the file.
            self.revision = self._kept_commit(self._asked or "main")
        return path

    def list_local(self, pattern: str) -> list[Path]:
        """Return nothing: a repository is never listed."""
        del pattern
        return []

    def locate(self, filename: str) -> Path | HubSafetensors | None:
        """Return a file of tensors, of which nothing but the header is fetched where that can be."""
        filename = f"{self.folder}/{filename}" if self.folder else filename
        self._contact()
        if self.revision is None:
            self._find("config.json")
        commit = self.revision or ""
        if not _PLAIN.fullmatch(commit) or not filename.endswith(".safetensors"):
            return self._find(filename)
        if self._known_absent(filename):
            return None
        if isinstance(whole := self._in_cache(filename), str):
            return Path(whole)
        folder = cache_folder(self._cache_dir, self._id, filename)
        if self._offline and not (folder / f"{commit}.head").is_file():
            return self._find(filename)

        def requests(known: Identity) -> RangeRequests:
            url = self._url(filename, commit)
            return RangeRequests(
                url, self._token, lambda e: self._error(why_it_failed(e), filename, e), known
            )

        def missing(what: str) -> LoadError:
            return LoadError(
                f"{what} of {filename} of the Hugging Face model {self.name} is not in the cache, and "
                "downloads are switched off (local_files_only or HF_HUB_OFFLINE)"
            )

        try:
            if not (self._offline or (folder / f"{commit}.head").is_file()):
                requests(Identity(commit, None, None)).ask()
            return HubSafetensors(
                HubFile(folder, commit, None if self._offline else requests, missing, progress=self._progress)
            )
        except hub_utils().EntryNotFoundError:
            # This notes the absence in the cache, so that nobody has to ask again.
            return self._fetch(filename)

    def _contact(self) -> None:
        """Learn which commit is meant, once, with waits that end; without the Hub, the one in the cache."""
        if self.revision is not None or self._contacted:
            return
        self._contacted = True
        asked = self._asked or "main"
        kept = self._kept_commit(asked)
        if self._offline or kept == asked:
            self.revision = kept
            return
        # What the cache can serve needs little patience with a network that is down: a second try is for a
        # connection that was kept open, and that the server has closed meanwhile.
        requests = RangeRequests(
            self._url("config.json", asked),
            self._token,
            lambda e: self._error(why_it_failed(e), "config.json", e),
            Identity(None, None, None),
            **({} if kept is None else {"tries": 2}),
        )
        errors = hub_utils()
        try:
            commit = requests.ask().commit
        except errors.EntryNotFoundError as error:
            commit = error.response.headers.get("X-Repo-Commit")
        except LoadError as error:
            if kept is None or isinstance(error.__cause__, errors.RevisionNotFoundError):
                raise
            commit = kept
        # Of another commit the first download by huggingface_hub takes note, on which others rely, too.
        self.revision = commit if commit in (kept, asked) else None

    def _url(self, filename: str, revision: str) -> str:
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(self._id, filename, revision=revision, endpoint=_endpoint()))

    def _known_absent(self, filename: str) -> bool:
        from huggingface_hub import _CACHED_NO_EXIST

        return self.revision is not None and self._in_cache(filename) is _CACHED_NO_EXIST

    def _in_cache(self, filename: str) -> Any:
        """Return what huggingface_hub knows of a file at the commit: a path, its absence, or nothing."""
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(self._id, filename, cache_dir=self._cache_dir, revision=self.revision)

    def _fetch(self, filename: str) -> Path | None:
        from huggingface_hub import hf_hub_download

        errors = hub_utils()
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
        except errors.LocalEntryNotFoundError as error:
            if not self._offline:
                raise self._error(why_it_failed(error.__cause__ or error), filename, error) from error
            if self._is_cached():
                return None
            why = "downloads are switched off (local_files_only or HF_HUB_OFFLINE) and it is not in the cache"
            raise self._error(why, filename, error) from error
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            # What a failing connection raises depends on the HTTP library that huggingface_hub uses.
            raise self._error(why_it_failed(error), filename, error) from error
        return Path(path)

    def _is_cached(self) -> bool:
        """Return whether the cache knows the revision; then what it lacks counts as absent."""
        return self._kept_commit(self.revision or self._asked or "main") is not None

    def _kept_commit(self, revision: str) -> str | None:
        """Return the commit of a branch or tag, or of itself, that the cache of huggingface_hub knows."""
        from huggingface_hub.constants import HF_HUB_CACHE

        folder = Path(self._cache_dir or HF_HUB_CACHE) / f"models--{self._id.replace('/', '--')}"
        try:
            if (folder / "snapshots" / revision).is_dir():
                return revision
            return (folder / "refs" / revision).read_text(encoding="utf-8").strip() or None
        except (OSError, ValueError):
            return None

    def _error(self, why: str, filename: str, error: Exception) -> LoadError:
        revision = f" at revision {self._asked}" if self._asked else ""
        return LoadError(
            f"{self._id} is no path here, and {filename} of the Hugging Face model{revision} cannot be had: "
            f"{why} ({first_line(error)})"
        )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _short(revision: str) -> str:
    """Return a revision as it is shown: of a commit the first letters."""
    return revision[:8] if _COMMIT.fullmatch(revision) else revision


@contextmanager
def _bars(show: bool) -> Iterator[None]:
    """Let huggingface_hub draw its progress bars or not, and leave the setting as it was."""
    utils = hub_utils()
    if show or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()

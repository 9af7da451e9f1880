"""The files of a Hugging Face repository, fetched one by one as they are asked for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from embgeom.errors import LoadError
from embgeom.loading.answers import Identity
from embgeom.loading.hub_file import HubFile
from embgeom.loading.ranges import GaveUp, RangeRequests
from embgeom.loading.tensor_cache import cache_folder

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = frozenset(("1", "on", "true", "yes"))


def looks_like_repo_id(model: str) -> bool:
    """Return whether `model` can be a Hugging Face id: ``name`` or ``owner/name``."""
    # A file that is missing is not worth a minute of asking the Hub for a repository of that name.
    is_file = Path(model).suffix in (".npy", ".npz", ".safetensors", ".bin", ".pt", ".pth", ".json", ".txt")
    return _REPO_ID.fullmatch(model) is not None and ".." not in model and "--" not in model and not is_file


class HubRepo:
    """A model repository on the Hugging Face Hub, or its copy in the local cache.

    The first file that is found fixes the commit, so that all files are of one state of the repository.
    ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` are honored.

    Parameters
    ----------
    repo_id : str
        ``name`` or ``owner/name``.
    revision : str, optional
        Branch, tag or commit; the main branch by default.
    cache_dir : str or path-like, optional
        The folder of the cache; that of huggingface_hub by default.
    token : str or bool, optional
        The access token; by default the one that is logged in.
    local_files_only : bool
        Whether to use what the cache holds and fetch nothing.
    progress : bool
        Whether to show progress bars of downloads.

    Attributes
    ----------
    name : str
        The id of the repository, with the revision where one was asked for.
    revision : str or None
        The commit the files are of, once one was found.
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
        # Two revisions of one model must not have one name in a comparison.
        self.name = f"{repo_id}@{_short(revision)}" if revision else repo_id
        self._id = repo_id
        self._asked = revision
        self._contacted = False
        self.revision: str | None = None
        self._cache_dir = None if cache_dir is None else Path(cache_dir)
        self._token = token
        self._offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
        self._progress = progress

    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, fetched if need be; None if the repository has none such.

        Parameters
        ----------
        filename : str
            The path of the file inside the repository.

        Returns
        -------
        Path or None
            The file in the local cache.

        Raises
        ------
        LoadError
            If there is no such repository or revision, access is refused, or the network fails.
        """
        self._contact()
        if self._known_absent(filename):
            return None
        path = self._fetch(filename)
        if self.revision is None and not self._offline:
            # The library has noted the commit with the file, or with its absence.
            asked = self._asked or "main"
            self.revision = asked if _COMMIT.fullmatch(asked) else self._kept_commit(asked)
        return path

    def list_local(self, pattern: str) -> list[Path]:
        """Return nothing: a repository is never listed."""
        del pattern
        return []

    def locate(self, filename: str) -> Path | HubFile | None:
        """Return a file of tensors, of which nothing but the header is fetched where that can be.

        Parameters
        ----------
        filename : str
            The path of the file inside the repository.

        Returns
        -------
        Path, HubFile or None
            The file in the local cache of huggingface_hub, if it is there or of a format that must be fetched
            whole; else a file on the Hub; None if the repository has none such.

        Raises
        ------
        LoadError
            If there is no such repository or revision, access is refused, or the network fails.
        """
        self._contact()
        if self.revision is None:
            self.find("config.json")
        commit = self.revision
        if commit is None or not filename.endswith(".safetensors"):
            return self.find(filename)
        if self._known_absent(filename):
            return None
        if isinstance(whole := self._in_cache(filename), str):
            return Path(whole)
        folder = cache_folder(self._cache_dir, self._id, filename)
        if self._offline and not (folder / f"{commit}.head").is_file():
            return self.find(filename)

        def requests(known: Identity) -> RangeRequests:
            url = self._url(filename, commit)
            return RangeRequests(url, self._token, lambda e: self._error(_why(e), filename, e), known)

        def missing(what: str) -> LoadError:
            return LoadError(
                f"{what} of {filename} of the Hugging Face model {self.name} is not in the cache, and "
                "downloads are switched off (local_files_only or HF_HUB_OFFLINE)"
            )

        try:
            if not (self._offline or (folder / f"{commit}.head").is_file()):
                requests(Identity(commit, None, None)).ask()
            return HubFile(
                folder, commit, None if self._offline else requests, missing, progress=self._progress
            )
        except _hub_utils().EntryNotFoundError:
            # This notes the absence in the cache, so that nobody has to ask again.
            return self._fetch(filename)

    def _contact(self) -> None:
        """Learn which commit is meant, once, with waits that end; without the Hub, the one in the cache."""
        if self.revision is not None or self._contacted:
            return
        self._contacted = True
        asked = self._asked or "main"
        kept = asked if _COMMIT.fullmatch(asked) else self._kept_commit(asked)
        if self._offline or (kept == asked and self._kept(asked).is_dir()):
            self.revision = kept
            return
        # What the cache can serve needs no patience with a network that is down.
        requests = RangeRequests(
            self._url("config.json", asked),
            self._token,
            lambda e: self._error(_why(e), "config.json", e),
            Identity(None, None, None),
            **({} if kept is None else {"tries": 1}),
        )
        errors = _hub_utils()
        try:
            commit = requests.ask().commit
        except errors.EntryNotFoundError as error:
            commit = error.response.headers.get("X-Repo-Commit")
        except LoadError as error:
            if kept is None or isinstance(error.__cause__, errors.RevisionNotFoundError):
                raise
            commit = kept
        if commit is not None and not _COMMIT.fullmatch(commit):
            commit = None
        # Of another commit the first download by huggingface_hub takes note, on which others rely, too.
        self.revision = commit if commit == kept else None

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

        errors = _hub_utils()
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
                raise self._error(_why(error.__cause__ or error), filename, error) from error
            if self._is_cached():
                return None
            why = "downloads are switched off (local_files_only or HF_HUB_OFFLINE) and it is not in the cache"
            raise self._error(why, filename, error) from error
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            # What a failing connection raises depends on the HTTP library that huggingface_hub uses.
            raise self._error(_why(error), filename, error) from error
        return Path(path)

    def _is_cached(self) -> bool:
        """Return whether the cache knows the revision; then what it lacks counts as absent."""
        revision = self.revision or self._asked or "main"
        return self._kept_commit(revision) is not None or self._kept(revision).exists()

    def _kept(self, commit: str) -> Path:
        """Return where the cache of huggingface_hub has the files of a commit."""
        return self._folder() / "snapshots" / commit

    def _kept_commit(self, revision: str) -> str | None:
        """Return the commit of a branch or tag that the cache knows."""
        try:
            commit = (self._folder() / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if _COMMIT.fullmatch(commit) else None

    def _folder(self) -> Path:
        from huggingface_hub.constants import HF_HUB_CACHE

        return Path(self._cache_dir or HF_HUB_CACHE) / f"models--{self._id.replace('/', '--')}"

    def _error(self, why: str, filename: str, error: Exception) -> LoadError:
        revision = f" at revision {self._asked}" if self._asked else ""
        detail = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return LoadError(
            f"{self._id} is no path here, and {filename} of the Hugging Face model{revision} cannot be had: "
            f"{why} ({detail})"
        )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _short(revision: str) -> str:
    """Return a revision as it is shown: of a commit the first letters."""
    return revision[:8] if _COMMIT.fullmatch(revision) else revision


def _why(error: Exception) -> str:
    """Say what a request failed with, and what to do about it."""
    if isinstance(error, GaveUp):
        return error.why
    errors = _hub_utils()
    known = (
        (errors.GatedRepoError, "the model is gated; accept its terms on its page, then pass token= or run "
                                "`hf auth login`"),
        (errors.RepositoryNotFoundError, "no such model; if the model is private, pass token="),
        (errors.RevisionNotFoundError, "no such revision; look for its name on the model's page"),
        (errors.LocalTokenNotFoundError, "token=True takes the token of `hf auth login`, and there is none"),
        (errors.FileMetadataError, "the server is no Hugging Face Hub; check HF_ENDPOINT and the proxies"),
        (PermissionError, "the cache cannot be written; pass cache_dir= or set HF_HOME"),
    )  # fmt: skip
    if (why := next((why for kind, why in known if isinstance(error, kind)), None)) is not None:
        return why
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "access is refused; pass a token= that is valid and may read the model"
    if status is not None and status < 500:
        return "the Hub refuses the request; check the id and HF_ENDPOINT"
    return "the connection to the Hub failed; check the network and HF_ENDPOINT"


def _hub_utils() -> Any:
    """Return the module in which every version of huggingface_hub has its errors and switches."""
    return import_module("huggingface_hub.utils")


@contextmanager
def _bars(show: bool) -> Iterator[None]:
    """Let huggingface_hub draw its progress bars or not, and leave the setting as it was."""
    utils = _hub_utils()
    if show or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()

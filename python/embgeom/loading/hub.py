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

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_TRUE = frozenset(("1", "on", "true", "yes"))


def looks_like_repo_id(model: str) -> bool:
    """Return whether `model` can be a Hugging Face id: ``name`` or ``owner/name``."""
    # A file that is missing is not worth a minute of asking the Hub for a repository of that name.
    is_file = Path(model).suffix in (
        ".npy",
        ".npz",
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".gguf",
        ".json",
        ".txt",
    )
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
        The id of the repository.
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
        self.name = repo_id
        self._asked = revision
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
        if self._known_absent(filename):
            return None
        path = self._fetch(filename)
        if path is not None and self.revision is None and "snapshots" in path.parts:
            self.revision = path.parts[len(path.parts) - path.parts[::-1].index("snapshots")]
        return path

    def list_local(self, pattern: str) -> list[Path]:
        """Return nothing: a repository is never listed."""
        del pattern
        return []

    def _known_absent(self, filename: str) -> bool:
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        if self.revision is None:
            return False
        cached = try_to_load_from_cache(
            self.name, filename, cache_dir=self._cache_dir, revision=self.revision
        )
        return cached is _CACHED_NO_EXIST

    def _fetch(self, filename: str) -> Path | None:
        from huggingface_hub import hf_hub_download

        errors = _hub_utils()
        try:
            with _bars(self._progress):
                path = hf_hub_download(
                    self.name,
                    filename,
                    revision=self.revision or self._asked,
                    cache_dir=self._cache_dir,
                    token=self._token,
                    local_files_only=self._offline,
                    # The library reads the variable once, when it is imported.
                    endpoint=os.environ.get("HF_ENDPOINT"),
                )
        except errors.LocalEntryNotFoundError as error:
            if self._offline and self._is_cached():
                return None
            why = "downloads are switched off (local_files_only or HF_HUB_OFFLINE) and it is not in the cache"
            if not self._offline:
                why = (
                    "the Hub cannot be reached and it is not in the cache; check the network and HF_ENDPOINT"
                )
            raise self._error(why, filename, error) from error
        except errors.EntryNotFoundError:
            return None
        except Exception as error:
            # What a failing connection raises depends on the HTTP library that huggingface_hub uses.
            raise self._error(_why(error), filename, error) from error
        return Path(path)

    def _is_cached(self) -> bool:
        """Return whether the cache knows the revision; then what it lacks counts as absent."""
        from huggingface_hub.constants import HF_HUB_CACHE

        revision = self.revision or self._asked or "main"
        folder = Path(self._cache_dir or HF_HUB_CACHE) / f"models--{self.name.replace('/', '--')}"
        return (folder / "refs" / revision).exists() or (folder / "snapshots" / revision).exists()

    def _error(self, why: str, filename: str, error: Exception) -> LoadError:
        revision = f" at revision {self._asked}" if self._asked else ""
        detail = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return LoadError(
            f"{self.name} is no path here, and {filename} of the Hugging Face model{revision} cannot be had: "
            f"{why} ({detail})"
        )


def _why(error: Exception) -> str:
    errors = _hub_utils()
    if isinstance(error, errors.GatedRepoError):
        return "the model is gated; accept its terms on its page, then pass token= or run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such model; if the model is private, pass token="
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such revision; look for its name on the model's page"
    if isinstance(error, PermissionError):
        return "the cache cannot be written; pass cache_dir= or set HF_HOME"
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

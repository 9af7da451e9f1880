"""Where a model's files are: a folder, a bundled example, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
from pathlib import Path

from embgeom import examples
from embgeom.errors import LoadError
from embgeom.loading.folder import Folder, Source, unreadable
from embgeom.loading.hub import HubRepo, looks_like_repo_id


def find_local(model: str | os.PathLike[str]) -> tuple[Path, bool]:
    """Return a model's name as a path, and whether it is a file.

    Parameters
    ----------
    model : str or path-like
        The model as a user names it.

    Returns
    -------
    path : Path
        The path, which need not exist.
    is_file : bool
        Whether it is a file.

    Raises
    ------
    LoadError
        If the name is empty or no path, or the path cannot be read.
    """
    path = _local_path(model)
    return path, _kind(path)[0]


def find_source(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    progress: bool = False,
) -> Source:
    """Return where the files of a model are; of a file, the folder that it lies in.

    Parameters
    ----------
    model : str or path-like
        The model as a user names it; what exists here comes before examples and repositories.
    revision, cache_dir, token, local_files_only, progress
        As in `embgeom.load`.

    Returns
    -------
    Source
        The files.

    Raises
    ------
    LoadError
        If there is no such model.
    """
    path = _local_path(model)
    is_file, is_folder = _kind(path)
    if is_file or is_folder:
        return Folder(path.parent if is_file else path)
    if (example := examples.resolve(str(model))) is not None:
        return Folder(example, label=str(model))
    if looks_like_repo_id(str(model)):
        return HubRepo(
            str(model),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            progress=progress,
        )
    raise LoadError(f"{model}: no such file or folder, and not a Hugging Face id either (owner/name)")


def _local_path(model: str | os.PathLike[str]) -> Path:
    try:
        path = Path(model).expanduser()
    except (TypeError, RuntimeError) as error:
        raise LoadError(f"{model!r} is neither a path nor a Hugging Face id: {error}") from error
    if not os.fspath(model):
        raise LoadError("the model's name is empty; give a folder, a file or a Hugging Face id")
    if "\0" in str(path):
        raise LoadError(f"{str(path)!r} holds a NUL character, which no name of a file can; name another")
    return path


def _kind(path: Path) -> tuple[bool, bool]:
    """Return whether `path` is a file, and whether it is a folder that may be entered."""
    try:
        is_folder = path.is_dir()
        if is_folder:
            next(path.iterdir(), None)
        return path.is_file(), is_folder
    except OSError as error:
        raise unreadable(path, error) from error

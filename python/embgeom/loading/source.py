"""Where a model's files are: a folder, a bundled example, or a repository of the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from embgeom import examples
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import Folder, Source
from embgeom.loading.hub.repository import HubRepo, looks_like_repo_id
from embgeom.loading.local_file import unreadable

# The folder in which the Hugging Face cache keeps a model.
_IN_CACHE = re.compile(r"models--(.+)")


def find_local(
    model: str | os.PathLike[str], *, revision: str | None = None, token: str | bool | None = None
) -> tuple[Path, bool]:
    """Return a model's name as a path, and whether it is a file."""
    path = _local_path(model)
    is_file, is_folder = _kind(path)
    if is_file or is_folder:
        _refuse_hub_options(model, f"is a {'file' if is_file else 'folder'} here", revision, token)
    return path, is_file


def find_folder(
    model: str | os.PathLike[str], *, revision: str | None = None, token: str | bool | None = None
) -> Folder | None:
    """Return the folder on this machine that holds a model; of a file, the folder that it lies in."""
    path, is_file = find_local(model, revision=revision, token=token)
    if is_file:
        return _snapshot(path.parent) or Folder(path.parent)
    if path.is_dir():
        return _snapshot(path) or Folder(path)
    if (example := examples.resolve(str(model))) is not None:
        _refuse_hub_options(model, "comes with the package", revision, token)
        return Folder(example, label=str(model))
    return None


def find_source(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    progress: bool = False,
) -> Source:
    """Return where the files of a model are; of a file, the folder that it lies in."""
    if (folder := find_folder(model, revision=revision, token=token)) is not None:
        return folder
    if looks_like_repo_id(str(model)):
        return HubRepo(
            str(model),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            progress=progress,
        )
    if _local_path(model).exists():
        raise LoadError(f"{model} is not a regular file; name a file or a folder")
    raise LoadError(f"{model}: no such file or folder, and not a Hugging Face id either (owner/name)")


def refuse_options(what: str, **options: Any) -> None:
    """Refuse options that have no meaning for what is loaded; None and False are not given."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise InputError(f"{name}={value!r} has no meaning for {what}: leave it out")


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


def _refuse_hub_options(
    model: str | os.PathLike[str], what: str, revision: str | None, token: str | bool | None
) -> None:
    """Refuse options that say something of a Hugging Face id, and would be lost on a model that is here."""
    for name, given in (("revision", revision), ("token", token)):
        if given:
            way_out = "leave it out"
            if looks_like_repo_id(str(model)):
                way_out += ", or work in another directory if the model on the Hub is meant"
            raise InputError(f"{name} is for a Hugging Face id, and {model} {what}; {way_out}")


def _snapshot(folder: Path) -> Folder | None:
    """Return the snapshot that a folder of the Hugging Face cache stands for; None for any other folder."""
    real = folder.resolve()
    if real.parent.name == "snapshots" and (kept := _IN_CACHE.fullmatch(real.parent.parent.name)):
        return Folder(folder, revision=real.name, label=_id(kept))
    kept = _IN_CACHE.fullmatch(real.name)
    if kept is None or not (folder / "snapshots").is_dir():
        return None
    try:
        commits = sorted(path.name for path in (folder / "snapshots").iterdir() if path.is_dir())
        main = folder / "refs" / "main"
        commit = main.read_text(encoding="utf-8").strip() if main.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{folder} cannot be read as a folder of the Hugging Face cache: {error}") from error
    if commit not in commits:
        if len(commits) != 1:
            raise LoadError(
                f"{folder} is a folder of the Hugging Face cache with {len(commits)} snapshots"
                f"{''.join(f', {commit}' for commit in commits[:5])}; name one of them as "
                f"{folder / 'snapshots'}/COMMIT, or fetch {_id(kept)} again"
            )
        commit = commits[0]
    return Folder(folder / "snapshots" / commit, revision=commit, label=_id(kept))


def _id(folder: re.Match[str]) -> str:
    return folder[1].replace("--", "/")

"""Where a model's files are: a folder, a bundled example, or a repository of the Hugging Face Hub.

And which folder within a model holds its weights: the one asked for, or a sentence embedder's first module.
"""

from __future__ import annotations

import difflib
import os
import re
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypedDict

from embgeom import examples
from embgeom.errors import InputError, LoadError
from embgeom.loading.folder import Folder, is_inside, parse_json, read_bytes, unreadable
from embgeom.loading.hub.repository import HubRepo, looks_like_repo_id

if TYPE_CHECKING:
    from typing_extensions import Unpack

Source = Folder | HubRepo
"""A place that holds a model's files."""

# The folder in which the Hugging Face cache keeps a model.
_IN_CACHE = re.compile(r"models--(.+)")
# Of a folder with more, these are looked through for a name that was perhaps meant.
_MOST_NAMES = 1000
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.[gG][gG][uU][fF]", "*.index.json", "*.npz", "*.npy")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken")
# Diffusers keeps the tokenizer of text_encoder in tokenizer, and that of text_encoder_2 in tokenizer_2.
_ENCODER, _TOKENIZER = "text_encoder", "tokenizer"


class HubOptions(TypedDict, total=False):
    revision: str | None
    cache_dir: str | os.PathLike[str] | None
    token: str | bool | None
    local_files_only: bool


def find_local(model: str | os.PathLike[str], **hub: Unpack[HubOptions]) -> tuple[Path, bool]:
    """Return a model's name as a path, which need not exist, and whether it is a file."""
    try:
        path = Path(model).expanduser()
    except (TypeError, RuntimeError) as error:
        raise LoadError(f"{model!r} is neither a path nor a Hugging Face id: {error}") from error
    if not os.fspath(model):
        raise LoadError("the model's name is empty; give a folder, a file or a Hugging Face id")
    if "\0" in str(path):
        raise LoadError(f"{str(path)!r} holds a NUL character, which no file name can hold; name another")
    try:
        is_folder = path.is_dir()
        if is_folder:
            # Raises if the folder may not be entered.
            next(path.iterdir(), None)
        is_file = path.is_file()
    except OSError as error:
        raise unreadable(path, error) from error
    if is_file or is_folder:
        _refuse_hub_options(model, f"is a {'file' if is_file else 'folder'} here", hub)
    return path, is_file


def find_folder(model: str | os.PathLike[str], **hub: Unpack[HubOptions]) -> Folder | None:
    """Return the local folder that holds a model (or the file of that name); None for any other name.

    A model's folder in the Hugging Face cache stands for the snapshot of its main branch, or its only one.
    """
    path, is_file = find_local(model, **hub)
    if is_file or path.is_dir():
        folder = path.parent if is_file else path
        return _snapshot(folder) or Folder(folder)
    if (example := examples.resolve(str(model))) is not None:
        _refuse_hub_options(model, "comes with the package", hub)
        return Folder(example, label=str(model))
    return None


def find_source(
    model: str | os.PathLike[str], *, progress: bool = False, **hub: Unpack[HubOptions]
) -> Source:
    if (folder := find_folder(model, **hub)) is not None:
        return folder
    if looks_like_repo_id(str(model)):
        return HubRepo(str(model), progress=progress, **hub)
    if find_local(model)[0].exists():
        raise LoadError(f"{model} is not a regular file; name a file or a folder")
    raise LoadError(
        f"{model}: no such file or folder, and not a Hugging Face id (owner/name){_meant(str(model))}"
    )


def _meant(model: str) -> str:
    """Ask for what is there under a similar name: an example, or a file or folder beside it."""
    path, like = Path(model).expanduser(), examples.meant(model)
    if like is None and path.parent.is_dir():
        names = [each.name for each in islice(path.parent.iterdir(), _MOST_NAMES)]
        close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.8)
        like = str(path.with_name(close[0])) if close else None
    return "" if like is None else f"; did you mean {like}?"


def refuse_options(what: str, **options: Any) -> None:
    """Refuse options that have no meaning for what is loaded; None and False are not given."""
    for name, value in options.items():
        if value is not None and value is not False:
            raise InputError(f"{name}={value!r} has no meaning for {what}: leave it out")


def enter(source: Source, subfolder: str | None = None) -> Source:
    """Return the folder within a model that holds its weights.

    That is the requested subfolder, or the first module in the modules.json of a sentence embedder.
    """
    if subfolder:
        return _within(source, _relative(subfolder, "subfolder="))
    # A request costs time, so a repository is asked only for what it is likely to hold.
    rooted = isinstance(source, HubRepo) and source.find("config.json") is not None
    if not rooted and (modules := source.find("modules.json")) is not None:
        path = _first_module(modules)
        return source if path == PurePosixPath() else _within(source, path, label=source.name)
    if isinstance(source, Folder):
        _name_subfolder(source)
    elif not rooted and source.find("model_index.json") is not None:
        raise LoadError(
            f"{source.name} is a pipeline of diffusers; pass subfolder={_ENCODER!r} (--subfolder {_ENCODER}) "
            "or another of its text encoders"
        )
    return source


def tokenizer_beside(source: Source) -> Source | None:
    """Return the folder that holds the tokenizer of a diffusers text encoder; None for any other folder."""
    if isinstance(source, Folder):
        path = source.path
        other = path.with_name(path.name.replace(_ENCODER, _TOKENIZER)) if path.name else path
        return Folder(other) if path.name.startswith(_ENCODER) and other.is_dir() else None
    inner = PurePosixPath(source.folder)
    if not inner.name.startswith(_ENCODER):
        return None
    return source.within(str(inner.with_name(inner.name.replace(_ENCODER, _TOKENIZER))))


def _refuse_hub_options(model: str | os.PathLike[str], what: str, hub: HubOptions) -> None:
    """Refuse options of a Hugging Face id that a local model would ignore."""
    for name in ("revision", "token"):
        if hub.get(name):
            way_out = "leave it out"
            if looks_like_repo_id(str(model)):
                way_out += ", or work in another directory if the model on the Hub is meant"
            raise InputError(f"{name} is for a Hugging Face id, and {model} {what}; {way_out}")


def _snapshot(folder: Path) -> Folder | None:
    """Return the snapshot that a folder of the Hugging Face cache stands for; None for any other folder."""
    real = folder.resolve()
    if real.parent.name == "snapshots" and (kept := _IN_CACHE.fullmatch(real.parent.parent.name)):
        return Folder(folder, revision=real.name, label=kept[1].replace("--", "/"))
    kept = _IN_CACHE.fullmatch(real.name)
    if kept is None or not (folder / "snapshots").is_dir():
        return None
    model = kept[1].replace("--", "/")
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
                f"{folder / 'snapshots'}/COMMIT, or fetch {model} again"
            )
        commit = commits[0]
    return Folder(folder / "snapshots" / commit, revision=commit, label=model)


def _within(source: Source, path: PurePosixPath, label: str | None = None) -> Source:
    if isinstance(source, HubRepo):
        return source.within(str(path), label)
    folder = source.path / path
    try:
        is_folder = folder.is_dir()
    except OSError as error:
        raise unreadable(folder, error) from error
    if not is_folder:
        there = ", ".join(sorted(p.name for p in source.path.iterdir() if p.is_dir())) or "none"
        raise LoadError(f"{source.name} has no subfolder {path} (it has: {there})")
    return Folder(folder, source.revision, label or f"{source.name}/{path}")


def _relative(path: Any, where: str) -> PurePosixPath:
    """Return a path inside the model, or refuse one that may lead out of it."""
    if not isinstance(path, str) or not is_inside(path):
        raise LoadError(f"{where}{path!r:.80} is not a folder inside the model")
    return PurePosixPath(path)


def _first_module(path: Path) -> PurePosixPath:
    modules = parse_json(read_bytes(path), str(path))
    first = modules[0] if isinstance(modules, list) and modules else None
    if not isinstance(first, dict) or not isinstance(first.get("path"), str):
        raise LoadError(f"{path} names no first module with a path; fetch it again")
    return _relative(first["path"], f"{path}: ")


def _name_subfolder(source: Folder) -> None:
    """Refuse a folder without weights where its subfolders hold some."""
    if _holds(source.path, _WEIGHTS):
        return
    found = [path.name for path in sorted(source.path.iterdir()) if path.is_dir() and _is_model(path)]
    if found:
        names = ", ".join(found[:8])
        which = f"its subfolder {names} does" if len(found) == 1 else f"its subfolders {names} do"
        raise LoadError(
            f"{source.name} holds no weights, but {which}; pass subfolder={found[0]!r} "
            f"(--subfolder {found[0]}){'' if len(found) == 1 else ', or another'}"
        )


def _is_model(folder: Path) -> bool:
    tokenizer = tokenizer_beside(Folder(folder))
    places = [folder, tokenizer.path] if isinstance(tokenizer, Folder) else [folder]
    return any(_holds(place, _TOKENIZERS) for place in places) and _holds(folder, _WEIGHTS)


def _holds(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)

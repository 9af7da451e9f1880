"""Which folder of a model holds its weights: the one asked for, or a sentence embedder's first module."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from embgeom.errors import LoadError
from embgeom.loading.folder import Folder, Source, is_inside, parse_json, read_bytes
from embgeom.loading.hub.repository import HubRepo
from embgeom.loading.local_file import unreadable

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.[gG][gG][uU][fF]", "*.index.json", "*.npz", "*.npy")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "tekken.json", "*.model", "*.tiktoken")
# Diffusers keeps the tokenizer of text_encoder in tokenizer, and that of text_encoder_2 in tokenizer_2.
_ENCODER, _TOKENIZER = "text_encoder", "tokenizer"


def enter(source: Source, subfolder: str | None = None) -> Source:
    """Return the folder within a model that holds its weights."""
    if subfolder:
        return _within(source, _relative(subfolder, "subfolder="))
    # A repository is asked for no more than it is likely to hold.
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


def beside(source: Source) -> Source | None:
    """Return the folder that holds the tokenizer of a diffusers text encoder; None for any other folder."""
    if isinstance(source, Folder):
        name = source.path.name
        other = source.path.with_name(name.replace(_ENCODER, _TOKENIZER)) if name else source.path
        return Folder(other) if name.startswith(_ENCODER) and other.is_dir() else None
    folder = PurePosixPath(source.folder) if isinstance(source, HubRepo) else PurePosixPath()
    if not folder.name.startswith(_ENCODER) or not isinstance(source, HubRepo):
        return None
    return source.within(str(folder.with_name(folder.name.replace(_ENCODER, _TOKENIZER))))


def _within(source: Source, path: PurePosixPath, label: str | None = None) -> Source:
    if isinstance(source, HubRepo):
        return source.within(str(path), label)
    if not isinstance(source, Folder):
        raise LoadError(f"{source.name} has no subfolders")
    folder = _readable(source.path / path)
    if not folder.is_dir():
        there = ", ".join(sorted(p.name for p in source.path.iterdir() if p.is_dir())) or "none"
        raise LoadError(f"{source.name} has no subfolder {path} (it has: {there})")
    return Folder(folder, source.revision, label or f"{source.name}/{path}")


def _readable(folder: Path) -> Path:
    """Return a path, or raise `LoadError` where the system cannot even say whether it is there."""
    try:
        folder.is_dir()
    except OSError as error:
        raise unreadable(folder, error) from error
    return folder


def _relative(path: Any, where: str) -> PurePosixPath:
    """Return a path inside the model, or raise `LoadError` if it may lead out of it."""
    if not isinstance(path, str) or not is_inside(path):
        raise LoadError(f"{where}{path!r:.80} is no folder inside the model")
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
    found = [path for path in sorted(source.path.iterdir()) if path.is_dir() and _is_model(path)]
    if found:
        names = ", ".join(path.name for path in found[:8])
        which = f"its subfolder {names} does" if len(found) == 1 else f"its subfolders {names} do"
        raise LoadError(
            f"{source.name} holds no weights, but {which}; pass subfolder={found[0].name!r} "
            f"(--subfolder {found[0].name}){'' if len(found) == 1 else ', or another'}"
        )


def _is_model(folder: Path) -> bool:
    tokenizer = beside(Folder(folder))
    has_tokenizer = _holds(folder, _TOKENIZERS) or (
        isinstance(tokenizer, Folder) and _holds(tokenizer.path, _TOKENIZERS)
    )
    return has_tokenizer and _holds(folder, _WEIGHTS)


def _holds(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)

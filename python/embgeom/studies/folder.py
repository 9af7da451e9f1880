"""The folder of a study: who may use it, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from embgeom._common.native import source_digest
from embgeom._common.record import Arrays, array_digest, digest, plain, write_json
from embgeom._common.result import save_figure
from embgeom._common.tables import write_table
from embgeom._common.temporary import PLACE, sweep
from embgeom._common.writing import check_kept, reported, write_file
from embgeom.errors import InputError, OutputError
from embgeom.runs.folder import locked
from embgeom.studies.figures import drawings
from embgeom.studies.report import write_report
from embgeom.studies.results import Study

PARTS = "parts"
FIGURE_FORMATS = ("svg", "pdf", "png")
# What was written of which study, so that a study that has not changed is not written again.
_WRITTEN, _LOCK, _FIGURES = "written.json", "lock", "figures"


@contextmanager
def study_folder(folder: str | PathLike[str], inputs: Sequence[str | PathLike[str]]) -> Iterator[Path]:
    """Give the folder of a study, made if it is not there, while no other process has it."""
    if not isinstance(folder, str | PathLike):
        raise InputError(f"folder = {folder!r:.60} is not a path; name a folder for the study")
    check_kept({"the folder of the study": folder}, inputs)
    path = Path(folder).expanduser()
    with reported(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; name a folder for the study")
        path.mkdir(parents=True, exist_ok=True)
        held = sorted(file.name for file in path.iterdir() if not PLACE.fullmatch(file.name))
        if held and PARTS not in held and held != [_LOCK]:
            raise OutputError(f"{path} holds {held[0]!r} and no study; name another folder, or a new one")
        with locked(path):
            sweep(path)
            for name in (PARTS, _FIGURES):
                (path / name).mkdir(exist_ok=True)
                sweep(path / name)
            yield path


def shared_before(path: Path) -> list[int]:
    """Return how many tokens were shared in the study that a folder holds; nothing if there is none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        record = json.loads((path / "study.json").read_text(encoding="utf-8"))
        return [int(tokens["n"]) for tokens in record["shared"]]
    return []


def write_study(study: Study, path: Path) -> bool:
    """Write the files of a study, each atomically; return False where all of them were there."""
    arrays: Arrays = {}
    structure = plain(study, arrays)
    held = digest(
        [
            structure,
            {name: array_digest(array) for name, array in arrays.items()},
            source_digest(),
            version("matplotlib"),
        ]
    )
    before = _written(path)
    if before["study"] == held and all(_sha256(path / name) == sha for name, sha in before["files"].items()):
        return False
    # Until the new ones are complete, nothing says that they are.
    (path / PARTS / _WRITTEN).unlink(missing_ok=True)
    files = _write(study, path)
    for name, sha in before["files"].items():
        # A figure of a model that is not there any more; what a user has changed stays.
        if name not in files and _sha256(path / name) == sha:
            (path / name).unlink()
    record = {"study": held, "files": {name: _sha256(path / name) for name in sorted(files)}}
    write_file(path / PARTS / _WRITTEN, partial(write_json, value=record))
    return True


def _write(study: Study, path: Path) -> list[str]:
    """Write all files of a study, and return their names."""
    pairs = study.columns()
    tables = {
        "pairs.csv": pairs,
        "pairs.parquet": pairs,
        "models.csv": study.model_columns(),
        "curves.csv": study.curve_columns(),
        "tokens.parquet": study.token_columns(),
    }
    for name, columns in tables.items():
        write_file(path / name, partial(write_table, columns=columns))
    drawn = drawings(study)
    figures = {
        f"{_FIGURES}/{drawing.name}.{kind}": drawing.figure for drawing in drawn for kind in FIGURE_FORMATS
    }
    for name, figure in figures.items():
        save_figure(figure, path / name)
    write_report(study, path / "report.html", drawn)
    study.save(path / "study.safetensors")
    write_file(path / "study.json", partial(write_json, value=study.to_dict()))
    return [*tables, *figures, "report.html", "study.safetensors", "study.json"]


def _written(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        record = json.loads((path / PARTS / _WRITTEN).read_text(encoding="utf-8"))
        if isinstance(record, dict) and record.keys() >= {"study", "files"}:
            return record
    return {"study": None, "files": {}}


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file; empty if it is not there."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""

"""The folder of a study: who may use it, and its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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
from embgeom.studies.figures import Drawing, drawings
from embgeom.studies.report import write_report
from embgeom.studies.results import Study

PARTS = "parts"
FIGURE_FORMATS = ("svg", "pdf", "png")
# What was written of which study, so that a study that has not changed is not written again.
_WRITTEN, _LOCK, _FIGURES = "written.json", "lock", "figures"
_TABLES = ("pairs.csv", "pairs.parquet", "models.csv", "curves.csv", "tokens.parquet")


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
        if (strange := _strange(path)) is not None:
            raise OutputError(
                f"{path} is not a study folder (it holds {strange!r}); name another folder, or a new one"
            )
        with locked(path):
            sweep(path)
            for name in (PARTS, _FIGURES):
                (path / name).mkdir(exist_ok=True)
                sweep(path / name)
            if not (path / PARTS / _WRITTEN).exists():
                _record(path, None, {})
            yield path


def _strange(path: Path) -> str | None:
    """Return the first name that a folder holds if it is neither a study's nor empty."""
    if (path / PARTS / _WRITTEN).is_file():
        return None
    # A study that ended before it wrote its record has nothing but these.
    begun = [path / name for name in (PARTS, _FIGURES) if (path / name).is_dir()]
    held = sorted({file for folder in (path, *begun) for file in folder.iterdir()} - {*begun, path / _LOCK})
    strange = (file for file in held if not PLACE.fullmatch(file.name))
    return next((str(file.relative_to(path)) for file in strange), None)


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
    drawn = drawings(study)
    begun = dict.fromkeys(_names(drawn))
    # Until the new ones are complete, nothing says that they are; a call after a kill knows them by name.
    _record(path, None, before["files"] | begun)
    _write(study, drawn, path)
    for name, sha in before["files"].items():
        # A figure of a model that is not there any more; what a user has changed stays.
        if name not in begun and sha in (None, _sha256(path / name)):
            (path / name).unlink(missing_ok=True)
    _record(path, held, {name: _sha256(path / name) for name in begun})
    return True


def _names(drawn: Sequence[Drawing]) -> list[str]:
    """Return the names of all files of a study, in the order in which they are written."""
    figures = [f"{_FIGURES}/{drawing.name}.{kind}" for drawing in drawn for kind in FIGURE_FORMATS]
    return [*_TABLES, *figures, "report.html", "study.safetensors", "study.json"]


def _write(study: Study, drawn: Sequence[Drawing], path: Path) -> None:
    """Write all files of a study."""
    pairs = study.columns()
    tables = (pairs, pairs, study.model_columns(), study.curve_columns(), study.token_columns())
    for name, columns in zip(_TABLES, tables, strict=True):
        write_file(path / name, partial(write_table, columns=columns))
    for drawing in drawn:
        for kind in FIGURE_FORMATS:
            save_figure(drawing.figure, path / f"{_FIGURES}/{drawing.name}.{kind}")
    write_report(study, path / "report.html", drawn)
    study.save(path / "study.safetensors")
    write_file(path / "study.json", partial(write_json, value=study.to_dict()))


def _record(path: Path, study: str | None, files: Mapping[str, str | None]) -> None:
    """Write which files are written of which study, with their SHA-256; none of files that were begun."""
    write_file(path / PARTS / _WRITTEN, partial(write_json, value={"study": study, "files": dict(files)}))


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

"""The folder of a study: who may use it, and its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path

from embgeom._common.record import write_json
from embgeom._common.tables import write_table
from embgeom._common.temporary import PLACE, sweep
from embgeom._common.writing import check_kept, reported, write_file
from embgeom.errors import InputError, OutputError
from embgeom.runs.folder import locked
from embgeom.studies.results import Study

PARTS = "parts"
_LOCK = "lock"


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
            (path / PARTS).mkdir(exist_ok=True)
            sweep(path / PARTS)
            yield path


def write_study(study: Study, path: Path) -> None:
    """Write the files of a study; each is complete or as it was before."""
    pairs = study.columns()
    tables = {
        "pairs.csv": pairs,
        "pairs.parquet": pairs,
        "models.csv": study.model_columns(),
        "tokens.parquet": study.token_columns(),
    }
    for name, columns in tables.items():
        write_file(path / name, partial(write_table, columns=columns))
    study.save(path / "study.safetensors")
    # The record comes last: where it is, the study is complete.
    write_file(path / "study.json", partial(write_json, value=study.to_dict()))

"""Results as files: written whole or not at all, with everything needed to repeat them."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embgeom.errors import InputError, OutputError

if TYPE_CHECKING:
    from embgeom.comparison import Comparison
    from embgeom.inspection import Inspection

TABLE_FORMATS = ("csv", "parquet")

# What a folder of results consists of. A folder with anything else in it is never overwritten.
RESULT_FILES = ("arrays.npz", "tokens.csv", "tokens.parquet", "comparison.json", "inspection.json")

Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]


def save_comparison(
    comparison: Comparison, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
) -> None:
    """Write a comparison into a folder; see `Comparison.save`."""
    write_table = _table_writer(table_format)
    with new_folder(folder, overwrite=overwrite) as target:
        arrays: dict[str, npt.NDArray[Any]] = {
            "ids_a": comparison.match.ids_a,
            "ids_b": comparison.match.ids_b,
            "sampled": comparison.sampled,
        }
        for side, local in (("a", comparison.local_a), ("b", comparison.local_b)):
            arrays |= {
                f"indices_{side}": local.indices,
                f"similarities_{side}": local.similarities,
                f"weights_{side}": local.weights,
                f"components_{side}": local.components,
            }
        np.savez_compressed(target / "arrays.npz", **arrays)
        write_table(target / f"tokens.{table_format}", _token_columns(comparison))
        _write_json(
            target / "comparison.json",
            {
                "measures": [asdict(measure) for measure in comparison.measures],
                "weight_cosine_quantiles": comparison.weight_cosine_quantiles(),
                "match": comparison.match.counts(),
                "parameters": asdict(comparison.settings),
                "models": {"a": comparison.a.describe(), "b": comparison.b.describe()},
                "versions": versions(),
            },
        )


def save_inspection(
    inspection: Inspection, folder: str | PathLike[str], *, table_format: str = "csv", overwrite: bool = False
) -> None:
    """Write an inspection into a folder; see `Inspection.save`."""
    write_table = _table_writer(table_format)
    rows = inspection.sampled
    with new_folder(folder, overwrite=overwrite) as target:
        np.savez_compressed(
            target / "arrays.npz",
            norms=inspection.norms,
            sampled=rows,
            components=inspection.dimension.components,
            participation_ratio=inspection.dimension.participation_ratio,
        )
        columns: Columns = {
            "row": rows,
            "token": [inspection.embeddings.tokens[row] for row in rows],
            "norm": inspection.norms[rows],
            "components": inspection.dimension.components,
            "participation_ratio": inspection.dimension.participation_ratio,
        }
        write_table(target / f"tokens.{table_format}", columns)
        _write_json(
            target / "inspection.json",
            {
                "model": inspection.embeddings.describe(),
                "parameters": inspection.parameters,
                "versions": versions(),
            },
        )


def _token_columns(comparison: Comparison) -> Columns:
    match = comparison.match
    dimensions: dict[str, list[int | None]] = {}
    for side, local in (("a", comparison.local_a), ("b", comparison.local_b)):
        # Only sampled tokens have a dimension; the others' cells stay empty.
        column: list[int | None] = [None] * len(match.ids_a)
        for place, components in zip(comparison.sampled, local.components, strict=True):
            column[place] = int(components)
        dimensions[f"dimension_{side}"] = column
    return {
        "row_a": match.ids_a,
        "row_b": match.ids_b,
        "token_a": [comparison.a.tokens[row] for row in match.ids_a],
        "token_b": [comparison.b.tokens[row] for row in match.ids_b],
        "neighbor_overlap": comparison.overlap,
        "weight_cosine": comparison.weight_cosine,
        **dimensions,
    }


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    from embgeom import __version__

    return {"embgeom": __version__, "numpy": np.__version__, "python": platform.python_version()}


@contextmanager
def new_folder(folder: str | PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary folder to fill, which takes the name `folder` once it is complete.

    On any error or interruption the temporary folder and the parents made for it are removed, and what
    stood at `folder` is untouched.

    Raises
    ------
    OutputError
        If `folder` holds something already (unless `overwrite`), or cannot be written.
    """
    target = _resolved(folder)
    check_writable(target, overwrite=overwrite)
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        with _reported(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _temporary_folder(target) as partial:
                yield partial
                for file in partial.iterdir():
                    _flush(file)
                partial.chmod(0o777 & ~_umask())
                _take_place(partial, target)
    except BaseException:
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        raise


def write_file(path: str | PathLike[str], write: Callable[[Path], None]) -> None:
    """Call `write` with a temporary path, and give the file its name once it is complete.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    target = _resolved(path)
    check_file_writable(target)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        with _reported(target):
            write(partial)
            _flush(partial)
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(folder: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Find out before a long computation whether its results can be written.

    Raises
    ------
    OutputError
        If `folder` is a file, holds something already (unless `overwrite`, and then anything but earlier
        results), or cannot be made where it should be.
    """
    target = _resolved(folder)
    with _reported(target):
        if target.exists() and not target.is_dir():
            raise OutputError(f"{target} is a file; name a folder for the results")
        held = sorted(file.name for file in target.iterdir()) if target.is_dir() else []
        if held and not overwrite:
            raise OutputError(
                f"{target} holds something already; name another folder, "
                "or allow to overwrite it (overwrite=True, --overwrite)"
            )
        if strangers := [name for name in held if name not in RESULT_FILES]:
            raise OutputError(
                f"{target} also holds {strangers[0]!r}, which would be lost; name another folder, or move it away"
            )
        _try_to_write(next(parent for parent in target.parents if parent.exists()))


def check_file_writable(path: str | PathLike[str]) -> None:
    """Find out before a long computation whether a file can be written; a file that exists is replaced.

    Raises
    ------
    OutputError
        If `path` is a folder or a device, or its folder is absent or takes no files.
    """
    target = _resolved(path)
    with _reported(target):
        if target.exists() and not target.is_file():
            raise OutputError(f"{target} is no ordinary file; name another one")
        if not target.parent.is_dir():
            raise OutputError(f"cannot write {target}: there is no folder {target.parent}")
        _try_to_write(target.parent)


def _resolved(path: str | PathLike[str]) -> Path:
    # A symbolic link stays, and what it points to is written.
    return Path(os.path.realpath(path))


def _try_to_write(folder: Path) -> None:
    # Whether a file system takes files (permissions, read-only mounts, quotas) shows only by making one.
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def _temporary_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside `target`, and remove what is left of it at the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _reported(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _take_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; what stood there goes only after the new folder is in its place."""
    if not target.exists() or not any(target.iterdir()):
        partial.replace(target)
        return
    with _temporary_folder(target) as old:
        try:
            target.replace(old)
            partial.replace(target)
        except BaseException:
            if not target.exists():
                old.replace(target)
            raise


def _flush(file: Path) -> None:
    # A disk that is full may say so only when its cache is written out.
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _table_writer(table_format: str) -> Callable[[Path, Columns], None]:
    if table_format not in TABLE_FORMATS:
        raise InputError(f"table_format = {table_format!r} is unknown: use one of {', '.join(TABLE_FORMATS)}")
    if table_format == "csv":
        return _write_csv
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("parquet tables need pyarrow: pip install 'embgeom[parquet]', or use csv") from None
    return _write_parquet


def _write_parquet(path: Path, columns: Columns) -> None:
    import pyarrow.parquet

    plain = {
        name: [_encodable(value) for value in values] if name.startswith("token") else values
        for name, values in columns.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(plain), path)


def _encodable(token: str) -> str:
    # A lone surrogate, which no UTF-8 can hold, is written as its code, as in a csv.
    return token.encode("utf-8", "backslashreplace").decode("utf-8")


def _write_csv(path: Path, columns: Columns) -> None:
    # Tokens may hold any character, so lines end as RFC 4180 has it and the writer quotes what needs it.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(_plain(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """Return `value` in JSON's types; a number that is undefined becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value

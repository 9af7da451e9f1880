"""The one protocol of all results: shown, in plain types, as a table, drawn, saved and loaded.

A result class is a frozen dataclass that states its facts; the rest follows from its fields and their types.

    @dataclass(frozen=True, eq=False, repr=False)
    class Scores(Result, Tabular, Plotted):
        token: npt.NDArray[np.str_]
        score: npt.NDArray[np.float64]
        provenance: dict[str, Any]

        def __repr__(self) -> str: ...
        def tables(self) -> list[Block]:      # summary() and _repr_html_() show this; a str is a line of text
            return [Table("scores", ("token", "score"), zip(self.token, self.score))]
        def columns(self) -> Columns:         # Tabular: to_pandas()
            return {"token": self.token, "score": self.score}
        def figure(self) -> Any:              # Plotted: plot(path)
            ...

`save` and `load` need nothing written: the fields are read back by their annotations (nested dataclasses,
tuples, lists, dicts, paths, bytes, Literal, ``npt.NDArray[...]``), and `__post_init__` checks what belongs
together. So the annotations must resolve at run time: import none of their names under TYPE_CHECKING only.

The file is JSON. A class with large arrays says ``_large = True`` and gets safetensors, with the arrays as
tensors and all else as JSON in the header. `_derived` adds to `to_dict` what follows from the fields and is
not read back. `_inputs` names files that `save` must not overwrite. Figures are the same bytes for the same
result.
"""

from __future__ import annotations

import io
import json
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from embgeom._common.checks import need
from embgeom._common.html import Picture, fragment
from embgeom._common.record import Arrays, plain, rebuilt, write_json
from embgeom._common.style import in_style, styled
from embgeom._common.tables import Block, as_text, visible
from embgeom._common.writing import check_file_writable, save_tensors, write_file
from embgeom.errors import InputError, LoadError, OutputError, first_line

# What each format would otherwise write of the time of its making.
_UNDATED: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
# A page holds a larger picture, such as a point for each of 50,000 tokens, as PNG.
LARGEST_SVG = 600_000
# safetensors refuses a header above 100 MB, which the tokens of several models reach; so it is an array then.
_LONGEST_HEADER = 50_000_000
_HEADER = "embgeom.header"
Columns = Mapping[str, Sequence[Any] | npt.NDArray[Any]]
_AnyResult = TypeVar("_AnyResult", bound="Result")
_Named = TypeVar("_Named", bound=Any)


class Result(ABC):
    """What an analysis found: `summary`, `to_dict`, `save` and `load`."""

    _large: ClassVar[bool] = False

    @abstractmethod
    def tables(self) -> list[Block]:
        """Return the tables and lines of text that `summary` shows."""

    def _derived(self) -> dict[str, Any]:
        return {}

    def _inputs(self) -> Iterable[str | PathLike[str]]:
        return ()

    def summary(self) -> str:
        """Return the result as readable text."""
        return as_text(self.tables())

    def _repr_html_(self) -> str:
        return fragment(self.tables())

    def to_dict(self) -> dict[str, Any]:
        """Return all of it in plain types, ready for JSON; an undefined number is None."""
        fields: dict[str, Any] = plain(self)
        return {"result": type(self).__name__, **plain(self._derived()), **fields}

    def save(self, path: str | PathLike[str]) -> None:
        """Write a file that `load` reads back: JSON, or safetensors for large arrays.

        Raises
        ------
        OutputError
            If the file cannot be written, does not end in ``.json`` (``.safetensors`` for large arrays), or
            is one that the result was computed from; then nothing changes.
        """
        suffix = ".safetensors" if self._large else ".json"
        if isinstance(path, str | PathLike) and os.fspath(path) and Path(path).suffix != suffix:
            raise OutputError(f"{path} does not end in {suffix}, the format of saved {type(self).__name__}")
        write_file(path, self._write, inputs=self._inputs())

    def _write(self, path: Path) -> None:
        if not self._large:
            write_json(path, self.to_dict())
            return
        arrays: Arrays = {}
        header = json.dumps({"result": type(self).__name__, **plain(self, arrays)})
        if len(header) > _LONGEST_HEADER:
            arrays[_HEADER] = np.frombuffer(header.encode("ascii"), dtype=np.uint8)
            header = json.dumps({"result": type(self).__name__})
        save_tensors(arrays, path, {"embgeom": header})

    @classmethod
    def load(cls: type[_AnyResult], path: str | PathLike[str]) -> _AnyResult:
        """Read a file that `save` wrote. In JSON an infinite number was saved as undefined, and is NaN.

        Raises
        ------
        LoadError
            If the file cannot be read, or does not hold a result of this class.
        """
        from safetensors import SafetensorError

        try:
            # Reading a pipe that nobody writes to, or a device, would never end.
            if not stat.S_ISREG(mode := Path(path).stat().st_mode) and not stat.S_ISDIR(mode):
                raise ValueError("it is not a regular file")
            if cls._large:
                fields, arrays = _read_tensors(path)
            else:
                fields, arrays = json.loads(Path(path).read_text(encoding="utf-8")), {}
            if not isinstance(fields, dict) or fields.get("result") != cls.__name__:
                raise ValueError(f"it holds {_held(fields, arrays)}")
            loaded: _AnyResult = rebuilt(cls, fields, arrays)
            named: Arrays = {}
            plain(loaded, named)
            if extra := sorted(arrays.keys() - named.keys()):
                raise ValueError(f"it also holds {extra[0]!r:.80}")
        except OSError as error:
            reason = error.strerror or error
            raise LoadError(f"{path} cannot be read: {reason}; check the path and its permissions") from error
        except (SafetensorError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise LoadError(f"{path} is not a saved {cls.__name__}: {first_line(error)}") from error
        return loaded


class Tabular(ABC):
    """A result that is a table, a row for each token or setting: `to_pandas`."""

    @abstractmethod
    def columns(self) -> Columns:
        """Return its columns by name, all of one length."""

    def to_pandas(self) -> Any:
        """Return it as a pandas DataFrame.

        Raises
        ------
        InputError
            If pandas is not installed.
        """
        return need("pandas", "to_pandas", extra="pandas").DataFrame(dict(self.columns()))


class Plotted(ABC):
    """A result with a picture: `plot`."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "figure" in cls.__dict__:
            setattr(cls, "figure", styled(cls.figure))  # noqa: B010

    @abstractmethod
    def figure(self) -> Any:
        """Return the picture as a matplotlib Figure."""

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw it as an .svg, .png or .pdf file.

        Raises
        ------
        OutputError
            If the file cannot be written, or has another suffix; then nothing is left at `path`.
        InputError
            If matplotlib is not installed.
        """
        check_figure_path(path)
        save_figure(self.figure(), path)


def named(items: Iterable[_Named], name: str, what: str) -> _Named:
    found = {item.name: item for item in items}
    if name not in found:
        raise InputError(f"no {what} is named {name!r}; there are {', '.join(map(repr, found))}")
    return found[name]


def _held(fields: Any, arrays: Arrays) -> str:
    """Say what a file holds that is not the result which was looked for."""
    if isinstance(fields, dict) and isinstance(name := fields.get("result"), str):
        return f"a result of the class {name!r:.40}"
    return "a steering vector" if any(each.startswith("direction.") for each in arrays) else "something else"


def _read_tensors(path: str | PathLike[str]) -> tuple[Any, Arrays]:
    from safetensors import safe_open

    # safe_open does not say why a file cannot be opened.
    with Path(path).open("rb"), safe_open(path, framework="numpy") as file:
        header = (file.metadata() or {}).get("embgeom", "null")
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    long = arrays.pop(_HEADER, None)
    return json.loads(header if long is None else long.tobytes()), arrays


def check_figure_path(path: str | PathLike[str]) -> None:
    _suffix(path)
    need("matplotlib", "a figure", extra="figures")
    check_file_writable(path)


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure in inches, which no window and no global state know."""
    return need("matplotlib.figure", "a figure", extra="figures").Figure(
        figsize=(width, height), layout="constrained"
    )


def save_figure(figure: Any, path: str | PathLike[str]) -> None:
    """Write a figure in the format that the suffix names."""
    image = _drawn(figure, _suffix(path))
    write_file(path, lambda partial: partial.write_bytes(image))


def picture(figure: Any, caption: str) -> Picture:
    """Return a figure for a page."""
    svg = _drawn(figure, ".svg")
    return Picture(svg if len(svg) <= LARGEST_SVG else _drawn(figure, ".png"), caption)


def _drawn(figure: Any, suffix: str) -> bytes:
    from matplotlib.text import Text

    # Names of models are no formulas, and may hold characters that cannot be drawn.
    for text in figure.findobj(Text):
        text.set(text=visible(text.get_text()), parse_math=False)
    # Ticks are made when a figure is drawn. Without a date, equal results are equal files.
    with in_style():
        figure.savefig(stream := io.BytesIO(), format=suffix[1:], metadata=_UNDATED[suffix], dpi=150)
    return stream.getvalue()


def _suffix(path: str | PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _UNDATED:
        raise OutputError(f"{path} has the suffix {suffix!r}; a figure is one of {', '.join(_UNDATED)}")
    return suffix

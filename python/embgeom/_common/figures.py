"""Figures as files: the same bytes for the same result, written atomically."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from embgeom._common.checks import need
from embgeom._common.tables import visible
from embgeom._common.writing import check_file_writable, write_file
from embgeom.errors import OutputError

# What each format would otherwise write of the time of its making.
_UNDATED: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}


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
    import matplotlib
    from matplotlib.text import Text

    suffix = _suffix(path)
    # Names of models are no formulas, and may hold characters that cannot be drawn.
    for text in figure.findobj(Text):
        text.set(text=visible(text.get_text()), parse_math=False)

    def write(partial: Path) -> None:
        # Neither the date nor random names, so that equal results are equal files.
        with matplotlib.rc_context({"svg.hashsalt": "embgeom"}):
            figure.savefig(partial, format=suffix[1:], metadata=_UNDATED[suffix], dpi=150)

    write_file(path, write)


def _suffix(path: str | PathLike[str]) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _UNDATED:
        raise OutputError(f"{path} has the suffix {suffix!r}; a figure is one of {', '.join(_UNDATED)}")
    return suffix

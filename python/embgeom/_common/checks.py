"""Checks of numbers and flags, and of optional packages."""

from __future__ import annotations

import operator
import sys
import warnings
from importlib import import_module
from typing import Any

import numpy as np

from embgeom.errors import EmbgeomWarning, InputError


def warn(message: str, category: type[EmbgeomWarning] = EmbgeomWarning) -> None:
    """Warn whoever called this package, through however many of its functions and decorators."""
    frame, level = sys._getframe(1), 2
    # Functions with a decorator are called by contextlib.
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("embgeom", "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def whole_number(value: object, name: str, least: int, most: int | None = None, hint: str = "") -> int:
    """Return `value` as an int in [least, most], or raise an error; `hint` ends the message."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(f"{name} must be a whole number, not {value!r:.60}") from None
    if number < least or (most is not None and number > most):
        range_ = f"must be at least {least}" if most is None else f"is outside [{least}, {most}]"
        raise InputError(f"{name} = {number} {range_}{hint}")
    return number


def real_number(value: object, name: str) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        # RuntimeError is what a tensor raises that is no single number.
        raise InputError(f"{name} must be a number, not {value!r:.40}") from None


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, not {value!r:.40}")
    return bool(value)


def check_seed(seed: int) -> int:
    return whole_number(seed, "seed", 0)


def need(module: str, what: str, *, extra: str = "steer", or_else: str = "") -> Any:
    """Return a module that not every installation has."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f'{what} needs {package}: pip install "embgeom[{extra}]"{or_else}') from error

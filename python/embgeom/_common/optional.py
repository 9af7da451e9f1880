"""Packages that only some of embgeom needs, imported where they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from embgeom.errors import InputError


def need(module: str, what: str, *, extra: str = "steer", or_else: str = "") -> Any:
    """Return a module that not every installation has.

    Parameters
    ----------
    module : str
        Its name.
    what : str
        What needs it, the subject of the message.
    extra : str
        The extra of embgeom that installs it.
    or_else : str
        What else can be done, the end of the message.

    Raises
    ------
    InputError
        If it is not installed; the message says how it can be.
    """
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise InputError(f'{what} needs {package}: pip install "embgeom[{extra}]"{or_else}') from error

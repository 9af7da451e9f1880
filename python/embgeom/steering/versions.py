"""Which versions a steering vector was made with."""

from __future__ import annotations


def versions() -> dict[str, str]:
    """Return the versions of the packages that a vector depends on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in ("embgeom", "numpy", "torch", "transformers", "tokenizers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found

"""What a map knows of its two models by its provenance: their depths and names; and whose a vector is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embgeom.examples import PREFIX

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector

Facts = Mapping[str, Any]


def depths(provenance: Facts) -> tuple[int | None, int | None]:
    """Return how many layers the source and the target of a map have, None where it is not known."""
    source, target = (_origin(provenance, side).get("num_layers") for side in ("source", "target"))
    return _count(source), _count(target)


def doubt(vector: SteeringVector, provenance: Facts) -> str | None:
    """Say that a vector is of another model than the source of a map, where both models are known.

    Names are compared by the last part of a path or id, since one model is called by its id, by the folder
    it lies in and, where it comes with the package, by its short name.

    Parameters
    ----------
    vector : SteeringVector
        The vector.
    provenance : mapping
        The map's.

    Returns
    -------
    str or None
        What to warn of.
    """
    of_vector, of_map = _names_of_vector(vector), _names_of_side(provenance, "source")
    known = [{_last(name) for name in names} - {""} for names in (of_vector, of_map)]
    if not all(known) or known[0] & known[1]:
        return None
    return (
        f"the vector is of {of_vector[0]!r}, but the map takes vectors of {of_map[0]!r}: their widths fit, "
        "which does not make them one model; fit a map on the vector's model unless they are"
    )


def _origin(provenance: Facts, side: str) -> Facts:
    """Return where the matrix of one side was read from; nothing of a plain array."""
    described = provenance.get(side)
    origin = described.get("provenance") if isinstance(described, dict) else None
    return origin if isinstance(origin, dict) else {}


def _count(count: Any) -> int | None:
    known = isinstance(count, int) and not isinstance(count, bool) and count > 0
    return count if known else None


def _names_of_side(provenance: Facts, side: str) -> list[str]:
    """Return what the model of one side is called, first what a person calls it."""
    origin, names = _origin(provenance, side), provenance.get("names")
    if not origin or not isinstance(names, list | tuple):
        return []
    name, file = names[side == "target"], origin.get("file")
    if origin.get("tensor") is None:
        # A file of one array is called by its own name, and an array is called so where no name is given.
        return [] if file is not None or name == origin.get("source") else [name]
    return [name, str(origin.get("source", "")), *([_parent(file)] if isinstance(file, str) else [])]


def _names_of_vector(vector: SteeringVector) -> list[str]:
    """Return what the model of a vector is called, where it is known how the vector was made."""
    origins = list(_origins(vector.provenance))
    if not origins:
        return []
    names = [vector.model]
    for origin in origins:
        if "made_by" in origin:
            names.append(origin.get("model", ""))
        elif isinstance(origin.get("map"), dict):
            names += _names_of_side(origin["map"], "target")
    # A model that was made of a configuration is called by its class, which is no name of a model.
    classes = {origin.get("class") for origin in origins}
    return [name for name in names if isinstance(name, str) and name and name not in classes]


def _origins(provenance: Facts) -> Iterator[Facts]:
    """Give what says how a vector was made, also of the vectors that it is a multiple or a sum of."""
    left: list[Any] = [provenance]
    while left:
        facts = left.pop()
        if isinstance(facts, list):
            left += facts
        elif isinstance(facts, dict):
            if "made_by" in facts or "transferred_from" in facts:
                yield facts
            else:
                left += [facts.get("of"), facts.get("sum_of")]


def _parent(file: str) -> str:
    return "/".join(_parts(file)[:-1])


def _last(name: str) -> str:
    """Return the last part of a path or id, as names are compared."""
    parts = _parts(name)
    if not parts or parts[-1] in (".", "..", "~"):
        return ""
    # The hub's cache keeps owner/name at models--owner--name/snapshots/<commit>.
    if len(parts) > 2 and parts[-2] == "snapshots":
        return parts[-3].rsplit("--", maxsplit=1)[-1].casefold()
    return parts[-1].removeprefix(PREFIX).casefold()


def _parts(name: str) -> list[str]:
    return [part for part in re.split(r"[/\\]", name) if part]

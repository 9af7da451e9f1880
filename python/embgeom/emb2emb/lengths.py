"""How long a transferred vector is: as long, by the target's states, as the vector was by the source's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from embgeom._common.checks import real_number
from embgeom.emb2emb.pairs import pair_of
from embgeom.errors import InputError
from embgeom.steering.directions import checked_norms
from embgeom.steering.vector import SteeringVector

Scaling = Literal["states", "raw"]
Norm = float | Scaling | SteeringVector | None
# Mean norms of a model's states by layer, or a vector of the model that knows them.
StateNorms = Mapping[int, float] | SteeringVector | None
_SIDES = ("source", "target")


def check_norm(norm: float | Scaling | SteeringVector) -> float | Scaling | SteeringVector:
    if isinstance(norm, SteeringVector):
        return norm
    if isinstance(norm, str):
        if norm not in get_args(Scaling):
            raise InputError(
                f'norm must be a number, not {norm!r:.40}; or "states", "raw" or a vector of the target'
            )
        return norm
    length = real_number(norm, "norm")
    if not 0 <= length < np.inf:
        raise InputError(f"norm = {length} is not a length; give a finite number from 0 on")
    return length


def target_norms(
    vector: SteeringVector,
    moved: Mapping[int, int],
    names: tuple[str, str],
    given: tuple[StateNorms, StateNorms] | None,
    of_map: Sequence[Mapping[int, float]],
) -> tuple[dict[int, float], dict[str, Any]]:
    """Return the norm of each direction, by the target's layer, and where the norms of states come from."""
    known: list[dict[str, Mapping[int, float]]] = [{}, {}]
    for number, norms in enumerate(pair_of(given or (None, None), "state_norms", "norms")):
        if norms is not None:
            known[number]["state_norms="] = _checked(norms, f"state_norms[{number}]")
    for sources, norms in zip(known, of_map, strict=False):
        sources["the map"] = checked_norms(norms)
    known[0]["the vector"] = vector.state_norms
    lengths: dict[int, float] = {}
    found: dict[str, Any] = {}
    for old, new in moved.items():
        sides: dict[str, Any] = {}
        for side, layer, sources, name in zip(_SIDES, (old, new), known, names, strict=True):
            origin = next((origin for origin, norms in sources.items() if layer in norms), None)
            if origin is None:
                raise InputError(_missing(side, name, layer))
            sides[side] = {"norm": sources[origin][layer], "from": origin}
        lengths[new] = vector.norms[old] * sides["target"]["norm"] / sides["source"]["norm"]
        found[str(new)] = sides
    return lengths, found


def _checked(norms: Any, what: str) -> Mapping[int, float]:
    if not isinstance(norms, SteeringVector):
        return checked_norms(norms)
    if not norms.state_norms:
        raise InputError(
            f"{what} is a vector that does not know how long its model's states are: give the norms that "
            "embgeom.steering.state_norms(model, tokenizer) measures"
        )
    return norms.state_norms


def _missing(side: str, name: str, layer: int) -> str:
    return (
        f"the norm of the states of the {side}, {name!r}, after layer {layer} is not known, so the vector "
        "cannot be scaled to the target's states: give state_norms=(of the source, of the target) as "
        "embgeom.steering.state_norms(model, tokenizer) measures them, set the length by norm= (--norm), "
        'or leave it as the map makes it by norm="raw" (--norm raw)'
    )

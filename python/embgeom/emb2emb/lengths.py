"""How long a transferred vector is: a share of the spread of the target's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from embgeom.errors import InputError
from embgeom.steering.directions import checked_spread
from embgeom.steering.vector import SteeringVector

# "states": a share of the spread of the target's states; "raw": as the map makes them.
Norm = Literal["states", "raw"]
# Chosen by mood on the bundled pair: at scale 1 the KL on neutral text lies within 0.05 to 1 in 139 of 144
# cells by the default route and for 93 % of 2,160 vectors, see docs/reference/evidence.md.
SHARE = 0.5


def check_norm(norm: Norm) -> Norm:
    if not isinstance(norm, str) or norm not in get_args(Norm):
        raise InputError(
            f'norm = {norm!r:.40} is unknown: use "states" or "raw", and for a length of your own '
            'norm="raw" and with_norm of the result'
        )
    return norm


def target_lengths(
    vector: SteeringVector,
    moved: Mapping[int, int],
    names: tuple[str, str],
    given: Mapping[int, float] | None,
    of_map: Sequence[Mapping[int, float]],
) -> tuple[dict[int, float], dict[str, Any]]:
    """Return how long each direction becomes, by the target's layer, and by which spread of whose states.

    What is added gets a share of the spread. A coordinate that is set or limited is that of the states
    themselves, so it keeps its size compared with the spread.
    """
    known: dict[str, dict[str, Mapping[int, float]]] = {
        side: {"the map": checked_spread(spread)}
        for side, spread in zip(("source", "target"), of_map or ({}, {}), strict=True)
    }
    known["source"]["the vector"] = vector.state_spread
    if given is not None:
        known["target"] = {"state_spread=": checked_spread(given)} | known["target"]
    lengths: dict[int, float] = {}
    found: dict[str, Any] = {}
    for old, new in moved.items():
        target, about = _looked_up("target", names[1], new, known["target"])
        sides = {"target": about}
        if vector.operation == "add":
            lengths[new] = SHARE * target
        else:
            source, sides["source"] = _looked_up("source", names[0], old, known["source"])
            lengths[new] = vector.norms[old] * target / source
        found[str(new)] = sides
    return lengths, found


def _looked_up(
    side: str, name: str, layer: int, known: Mapping[str, Mapping[int, float]]
) -> tuple[float, dict[str, Any]]:
    for origin, spread in known.items():
        if layer in spread:
            return spread[layer], {"spread": spread[layer], "from": origin}
    how = "state_spread=" if side == "target" else "the vector its state_spread"
    unknown = (
        f"the spread of the states of the {side}, {name!r}, after layer {layer} is not known, so the vector "
        "cannot be scaled to the target's states: "
    )
    raise InputError(
        f"{unknown}give {how}, as embgeom.steering.state_spread(model, tokenizer) measures it, or "
        'norm="raw", which leaves the vector as the map makes it',
        command=f"{unknown}name both models by --from and --to, so that the target is run; or set the length "
        "by --norm",
    )

"""Which layer of the target each layer of a vector goes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from embgeom._common.checks import whole_number
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector


def places(
    vector: SteeringVector,
    layers: Mapping[int, int] | int | None,
    depths: tuple[int | None, int | None],
) -> dict[int, int]:
    """Return the target's layer for each layer of the vector that is transferred.

    Parameters
    ----------
    vector : SteeringVector
        The vector.
    layers : int or mapping of int to int, optional
        What the user asked for; see `Emb2Emb.transfer`.
    depths : pair of (int or None)
        How many layers the source and the target have, where it is known.

    Returns
    -------
    dict of int to int
        By layer of the vector.

    Raises
    ------
    InputError
        If the vector lacks a layer, two layers go to one, or a model has no such layer.
    """
    for layer in vector.layers:
        _check(layer, depths[0], f"the vector has a direction for layer {layer}", "source")
    if layers is None:
        found = _by_depth(vector.layers, *depths)
    elif isinstance(layers, Mapping):
        found = _by_mapping(vector, layers)
    else:
        place = whole_number(layers, "layers", 0)
        if len(vector.layers) != 1:
            raise InputError(
                f"layers = {layers!r} is one layer, but the vector has {len(vector.layers)}: choose one by "
                "vector.select_layers([layer]), or give a mapping from its layers to the target's"
            )
        found = {vector.layers[0]: place}
    for old, new in found.items():
        _check(new, depths[1], f"layer {old} of the vector goes to layer {new}", "target")
    return found


def _by_mapping(vector: SteeringVector, layers: Mapping[int, int]) -> dict[int, int]:
    if not layers:
        raise InputError("layers = {} transfers nothing; map a layer of the vector to one of the target")
    found = {
        whole_number(old, "a layer of the vector in layers", 0): whole_number(new, f"layers[{old!r}]", 0)
        for old, new in layers.items()
    }
    vector.select_layers(found)
    if len(set(found.values())) != len(layers):
        raise InputError(f"layers = {dict(layers)} sends two layers to one of the target")
    return found


def _by_depth(layers: tuple[int, ...], source: int | None, target: int | None) -> dict[int, int]:
    """Send layers to the same ones, or, between models of unlike depth, to those that lie equally deep."""
    if source is None or target is None or source == target:
        return {layer: layer for layer in layers}
    from embgeom.lm.depth import matching_layer

    nearest: dict[int, int] = {}
    for layer in layers:
        place = matching_layer(layer, source, target)
        rival = nearest.get(place, layer)
        # The deeper of two that are equally near counts, as `matching_layer` decides, too.
        nearest[place] = min(layer, rival, key=lambda b: (abs((b + 1) * target - (place + 1) * source), -b))
    return {layer: place for place, layer in nearest.items()}


def _check(layer: int, depth: int | None, what: str, side: str) -> None:
    if depth is not None and layer >= depth:
        raise InputError(
            f"{what}, but the {side} of the map has {depth} layers, counted from 0: choose layers up to "
            f"{depth - 1}, by {'vector.select_layers' if side == 'source' else 'layers='}"
        )

"""Transferring steering vectors over a map."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from embgeom._common.checks import real_number
from embgeom.emb2emb.models import depths, doubt
from embgeom.emb2emb.places import places
from embgeom.emb2emb.transfer import TransferMode, default_mode, transfer_array
from embgeom.errors import EmbgeomWarning, InputError
from embgeom.steering import SteeringVector

if TYPE_CHECKING:
    from embgeom.emb2emb.map import Emb2Emb


def transfer_vector(
    mapping: Emb2Emb,
    vector: SteeringVector,
    mode: TransferMode | None,
    layers: Mapping[int, int] | int | None,
    norm: float | SteeringVector | None,
    threads: int | None,
) -> SteeringVector:
    """Transfer a steering vector; see `Emb2Emb.transfer`.

    Raises
    ------
    InputError
        If the width or a layer does not fit, or a result to be scaled is zero.

    Warns
    -----
    EmbgeomWarning
        If the vector is another model's than the map takes vectors of.
    """
    if vector.hidden_size != mapping.widths[0]:
        raise InputError(
            f"the vector has hidden size {vector.hidden_size}, but {mapping!r} takes {mapping.widths[0]}: "
            + _other_width(vector, mapping)
        )
    moved = places(vector, layers, depths(mapping.provenance))
    if isinstance(norm, SteeringVector) and norm.hidden_size != mapping.widths[1]:
        raise InputError(
            f"norm is a vector of hidden size {norm.hidden_size}, but {mapping!r} transfers to "
            f"{mapping.widths[1]}: norms are taken of a vector of the target"
        )
    stack = np.stack([vector.directions[layer] for layer in moved])
    transferred = transfer_array(mapping, stack, mode, None, threads)
    length = norm if norm is None or isinstance(norm, SteeringVector) else real_number(norm, "norm")
    names = mapping.provenance.get("names", ["source", "target"])
    result = SteeringVector(
        dict(zip(moved.values(), transferred, strict=True)),
        model=names[1],
        provenance={
            "transferred_from": {"model": vector.model, "provenance": vector.provenance},
            "mode": default_mode(mapping) if mode is None else mode,
            "layers": {str(old): new for old, new in moved.items()},
            "norm": _described(length, moved.values()),
            "map": mapping.provenance,
        },
    )
    if length is not None:
        result = result.with_norm(length)
    if unlike := doubt(vector, mapping.provenance):
        # Of the user's call of `Emb2Emb.transfer`.
        warnings.warn(unlike, EmbgeomWarning, stacklevel=3)
    return result


def _other_width(vector: SteeringVector, mapping: Emb2Emb) -> str:
    """Say why a vector is not as wide as the rows of the map's source."""
    projects = vector.provenance.get("projection") or {}
    if projects.get("width") == mapping.widths[0]:
        return (
            f"the model projects its residual stream to that width before the unembedding "
            f"({projects['name']}), so fit the map on embgeom.steering.fold_projection(unembedding, model)"
        )
    if doubt(vector, mapping.provenance) is None:
        return (
            "either it is another model's, or the model projects its residual stream to another width before "
            "the unembedding, as OPT-350m does by project_out; then fit the map on "
            "embgeom.steering.fold_projection(unembedding, model)"
        )
    return "it is another model's; fit a map from that model"


def _described(norm: float | SteeringVector | None, layers: Iterable[int]) -> Any:
    """Return the norm that was asked for, ready for JSON: of a vector, its model and the norms taken."""
    if not isinstance(norm, SteeringVector):
        return norm
    taken = norm.select_layers(layers).norms
    return {"norms_of": norm.model, "norms": {str(layer): length for layer, length in taken.items()}}

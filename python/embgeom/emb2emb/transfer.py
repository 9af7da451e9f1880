"""A fitted map as a record of arrays, and what it does to rows, directions and steering vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import as_real_array
from embgeom._common.checks import whole_number
from embgeom._common.threads import resolve_threads
from embgeom._common.writing import check_file_writable
from embgeom.emb2emb.lengths import SHARE, Norm, check_norm, target_lengths
from embgeom.emb2emb.methods import Method, NeighborWeights
from embgeom.embeddings.provenance import ModelInfo
from embgeom.errors import InputError, OutputError
from embgeom.lm.layers import matching_layer
from embgeom.steering.directions import fingerprint
from embgeom.steering.vector import SteeringVector

TransferMode = Literal["primal", "dual", "logits"]
Layers = Mapping[int, int] | int | None
# By method, for maps of (un)embeddings. Where A is of full rank, its pseudo-inverse magnifies noise.
DEFAULT_MODES: dict[str, TransferMode] = {
    "least_squares": "logits",
    "ridge": "logits",
    "low_rank": "dual",
    "procrustes": "dual",
    "lle": "primal",
}
# Far above any vector, and far enough below the limit of float32 for what a map makes of it.
_LARGEST = 1e30


@dataclass(frozen=True, eq=False, repr=False)
class FittedMap:
    """The arrays of a map, the method that gave them, and the two models; see `Emb2Emb`."""

    method: Method
    logits_matrix: npt.NDArray[np.float64]
    source_mean: npt.NDArray[np.float64]
    target_mean: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64] | None = None
    source_rows: npt.NDArray[np.float32] | None = None
    target_rows: npt.NDArray[np.float32] | None = None
    source: ModelInfo = field(default_factory=ModelInfo)
    target: ModelInfo = field(default_factory=ModelInfo)
    names: tuple[str, str] = ("source", "target")
    layers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        sizes = (*self.source_mean.shape, *self.target_mean.shape)
        if len(sizes) != 2 or 0 in sizes:
            raise InputError(
                f"source_mean has the shape {self.source_mean.shape} and target_mean "
                f"{self.target_mean.shape}, not one axis each with something in it"
            )
        count = 0 if self.source_rows is None else len(self.source_rows)
        wanted = {"matrix": sizes, "logits_matrix": sizes, "source_mean": sizes[:1], "target_mean": sizes[1:]}
        wanted |= {"source_rows": (count, sizes[0]), "target_rows": (count, sizes[1])}
        by_neighbors = isinstance(self.method, NeighborWeights)
        for name, shape in wanted.items():
            array = getattr(self, name)
            needed = name not in (("matrix",) if by_neighbors else ("source_rows", "target_rows"))
            if (array is not None) != needed:
                raise InputError(
                    f"a map of method {self.method.name!r} {'needs' if needed else 'has no'} {name}"
                )
            if array is not None and array.shape != shape:
                raise InputError(f"{name} has the shape {array.shape}, not {shape} as the other arrays say")
            if array is not None and not np.isfinite(array).all():
                raise InputError(f"a number in {name} is NaN or infinite")
        if self.layers is not None and min(self.layers) < 0:
            raise InputError(f"layers = {self.layers} must be counted from 0")
        if isinstance(self.method, NeighborWeights) and self.source_rows is not None:
            self.method.check_rows(self.source_rows)

    @property
    def source_size(self) -> int:
        """d_s, the number of columns of the source."""
        return len(self.source_mean)

    @property
    def target_size(self) -> int:
        """d_t, the number of columns of the target."""
        return len(self.target_mean)

    @cached_property
    def dual_matrix(self) -> npt.NDArray[np.float64]:
        """The pseudo-inverse of A, transposed: shape (d_s, d_t).

        Raises
        ------
        InputError
            For a map that is not linear.
        """
        check_mode("dual", self.method)
        matrix: Any = self.matrix
        # Directions that a fit determines by rounding alone (few tokens, a rank, a folded LayerNorm) lie far
        # below this share of the largest, and what it determines from float32 rows far above.
        return np.asarray(np.linalg.pinv(matrix, rcond=1e-8).T)

    def matrix_of(self, mode: TransferMode) -> npt.NDArray[np.float64] | None:
        """Return the matrix by which a mode takes directions to the target; None where it is not linear."""
        names = {"primal": "matrix", "dual": "dual_matrix", "logits": "logits_matrix"}
        matrix: npt.NDArray[np.float64] | None = getattr(self, names[mode])
        return matrix

    def __repr__(self) -> str:
        names = " -> ".join(map(repr, self.names))
        of_states = "" if self.layers is None else f", states of layers {self.layers[0]} -> {self.layers[1]}"
        return f"Emb2Emb({names}, {self.method.name}, {self.source_size} -> {self.target_size}{of_states})"


def check_path(path: str | PathLike[str]) -> None:
    if not isinstance(path, str | PathLike):
        raise InputError(f"path = {path!r:.60} does not name a file")
    if Path(path).suffix != ".safetensors":
        raise OutputError(f"{path} does not end in .safetensors, the format of maps")
    check_file_writable(Path(path).expanduser())


def predict(fitted: FittedMap, rows: npt.ArrayLike, threads: int | None) -> npt.NDArray[np.float64]:
    array = _vectors(rows, fitted)
    moved = _transfer(fitted, np.atleast_2d(array) - fitted.source_mean, "primal", threads)
    return (moved + fitted.target_mean).reshape(*array.shape[:-1], -1)


def transfer_array(
    fitted: FittedMap, vectors: npt.ArrayLike, mode: TransferMode | None, threads: int | None
) -> npt.NDArray[np.float32]:
    array = _vectors(vectors, fitted)
    moved = _transfer(fitted, np.atleast_2d(array), mode, threads)
    return _as_float32(fitted, moved).reshape(*array.shape[:-1], -1)


def _as_float32(fitted: FittedMap, moved: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    if not (np.abs(moved) <= np.finfo(np.float32).max).all():
        raise InputError(f"{fitted!r} transfers the vectors to numbers beyond float32; scale them down")
    return moved.astype(np.float32)


def transfer_vector(
    fitted: FittedMap,
    vector: SteeringVector,
    mode: TransferMode | None,
    layers: Layers,
    norm: Norm | None,
    state_spread: Mapping[int, float] | None,
    of_map: Any,
    threads: int | None,
) -> SteeringVector:
    """Transfer a steering vector; its provenance says everything but how the map was fitted."""
    source = replace(fitted.source, hidden_size=fitted.source_size)
    target = replace(fitted.target, hidden_size=fitted.target_size)
    moved = target_layers(vector, layers, source, target, fitted.layers)
    # A direction that is projected out needs no length.
    norm = check_norm(norm or ("raw" if vector.operation == "ablate" else "states"))
    stack = np.stack([vector.directions[layer] for layer in moved]).astype(np.float64)
    directions = _transfer(fitted, _vectors(stack, fitted), mode, threads)
    wanted, described = _lengths(fitted, vector, moved, norm, state_spread, of_map)
    if wanted is not None:
        directions = _scaled(directions, np.array([[wanted[layer]] for layer in moved.values()]))
    return SteeringVector(
        dict(zip(moved.values(), _as_float32(fitted, directions), strict=True)),
        model=fitted.names[1],
        provenance={
            "transferred_from": {
                "model": vector.model,
                # Of each layer alone: another vector may have been transferred with fewer of them.
                "fingerprint": {
                    layer: row
                    for old in moved
                    for layer, row in fingerprint({old: vector.directions[old]}).items()
                },
                "provenance": vector.provenance,
            },
            "transferred_by": repr(fitted),
            "mode": default_mode(fitted) if mode is None else mode,
            "layers": {str(old): new for old, new in moved.items()},
            **described,
        },
        model_info=fitted.target,
        state_spread=_state_spread(described),
        operation=vector.operation,
        value=vector.value,
    )


def _lengths(
    fitted: FittedMap,
    vector: SteeringVector,
    moved: Mapping[int, int],
    norm: Norm,
    state_spread: Mapping[int, float] | None,
    of_map: Any,
) -> tuple[dict[int, float] | None, dict[str, Any]]:
    """Return the norms wanted, by the target's layer, and what the provenance says of them."""
    if norm == "raw":
        if state_spread is not None:
            raise InputError('state_spread= scales to the target\'s states, and norm="raw" to nothing')
        return None, {"norm": "raw"}
    # A file's provenance may be of any shape.
    kept = fitted.layers is not None and isinstance(of_map, list) and len(of_map) == 2
    known = [
        {layer: length} for layer, length in zip(fitted.layers or (), of_map if kept else (), strict=False)
    ]
    wanted, described = target_lengths(vector, moved, fitted.names, state_spread, known)
    share = {"share": SHARE} if vector.operation == "add" else {}
    return wanted, {"norm": "states", **share, "state_spread": described}


def _state_spread(described: Mapping[str, Any]) -> dict[int, float]:
    """Return the spread of the target's states that a vector was scaled by, which it keeps."""
    found = described.get("state_spread", {})
    return {int(layer): sides["target"]["spread"] for layer, sides in found.items()}


def full_rank_dual(fitted: FittedMap, mode: TransferMode | None) -> str | None:
    """Return a warning where the dual inverts a matrix that keeps every direction, however weak."""
    if mode != "dual" or fitted.layers is not None or DEFAULT_MODES[fitted.method.name] == "dual":
        return None
    return (
        f"mode 'dual' inverts a map of method {fitted.method.name!r}, which keeps directions that are nearly "
        "noise and makes them the largest; in three of four directions that were measured such vectors are "
        "the weakest: take mode='logits' or 'primal', or method='low_rank'"
    )


def other_model(vector: SteeringVector, fitted: FittedMap) -> str | None:
    """Return a warning where the vector is known to be another model's than the source of the map."""
    if not vector.model_info.differs_from(fitted.source):
        return None
    return (
        f"the vector is of {vector.model_info.name!r}, but the map takes vectors of {fitted.source.name!r}: "
        "equal hidden sizes do not make them one model; fit a map on the vector's model unless they are"
    )


def of_inputs(provenance: Mapping[str, Any]) -> str | None:
    """Return a warning where a map was fitted on input embeddings that are not tied to the unembedding."""
    for side in ("source", "target"):
        # A file's provenance may be of any shape.
        fitted = provenance.get(side)
        origin = fitted.get("provenance") if isinstance(fitted, dict) else None
        if not isinstance(fitted, dict) or not isinstance(origin, dict):
            continue
        # Of a plain matrix, unlike a model's, nobody knows which side it is: "input" is a default there.
        known = origin.get("num_layers") is not None
        if known and fitted.get("which") == "input" and origin.get("tied") is False:
            return (
                f"the map is of input embeddings ({fitted.get('name')!r}, its {side}); the residual stream "
                "is read by the unembedding: fit it on load(..., 'output')"
            )
    return None


def target_layers(
    vector: SteeringVector,
    layers: Layers,
    source: ModelInfo,
    target: ModelInfo,
    of_map: tuple[int, int] | None = None,
) -> dict[int, int]:
    """Return the target's layer for each layer of the vector that is transferred, where both fit."""
    if vector.hidden_size != (source.hidden_size or vector.hidden_size) or _is_of_target(
        vector, source, target
    ):
        raise _misfit(vector, source, target)
    for layer in vector.layers:
        _check_layer(layer, source.num_layers, f"the vector has a direction for layer {layer}", "source")
    if layers is None and of_map is not None:
        found = _by_mapping(vector, dict([of_map]))
    elif layers is None:
        found = _by_depth(vector.layers, source.num_layers, target.num_layers)
    elif isinstance(layers, Mapping):
        found = _by_mapping(vector, layers)
    else:
        layer = whole_number(layers, "layers", 0)
        if len(vector.layers) != 1:
            several = f"is one layer, but the vector has {len(vector.layers)}: "
            raise InputError(
                f"layers = {layers!r} {several}choose one by vector.select_layers([layer]), or give a "
                "mapping from its layers to the target's",
                command=f"--layers {layer} {several}name one, such as {vector.layers[-1]}:{layer}",
            )
        found = {vector.layers[0]: layer}
    for old, new in found.items():
        _check_layer(new, target.num_layers, f"layer {old} of the vector goes to layer {new}", "target")
    return found


def _is_of_target(vector: SteeringVector, source: ModelInfo, target: ModelInfo) -> bool:
    known, size = vector.model_info, target.hidden_size
    by_size = vector.hidden_size == size and source.hidden_size not in (None, size)
    # Names alone may be those of copies.
    sure = all(model.output_norms for model in (known, source, target))
    return by_size or (sure and known.differs_from(source) and not known.differs_from(target))


def _misfit(vector: SteeringVector, source: ModelInfo, target: ModelInfo) -> InputError:
    what = (
        f"the vector has hidden size {vector.hidden_size}, and the source, {source.name or 'an array'}, "
        f"{source.hidden_size}: "
    )
    if _is_of_target(vector, source, target):
        what += f"it is a vector of the target, {target.name or 'an array'}: "
        return InputError(f"{what}swap source and target", command=f"{what}swap --from and --to")
    projects = vector.provenance.get("projection") or {}
    fold = "fit the map on embgeom.steering.fold_projection(unembedding, model)"
    if projects.get("size") == source.hidden_size:
        what += (
            "the model projects its residual stream to that size before the unembedding "
            f"({projects['name']}), so {fold}"
        )
    elif vector.model_info.differs_from(source):
        named = vector.model_info.name
        what += f"it is a vector of {named}; "
        return InputError(f"{what}fit a map from that model", command=f"{what}name that model by --from")
    else:
        what += (
            "either it is another model's, or the model projects its residual stream to another size before "
            f"the unembedding, as OPT-350m does by project_out; then {fold}"
        )
    return InputError(what)


def check_mode(mode: TransferMode, method: Method | None = None) -> TransferMode:
    if not isinstance(mode, str) or mode not in get_args(TransferMode):
        raise InputError(f"mode = {mode!r} is unknown: use one of {', '.join(get_args(TransferMode))}")
    if mode == "dual" and isinstance(method, NeighborWeights):
        raise InputError(
            "mode 'dual' needs a linear map, and method 'lle' gives none; use 'primal', "
            "'logits', or another method"
        )
    return mode


def default_mode(fitted: FittedMap) -> TransferMode:
    """Return the mode in which vectors are transferred unless another is asked for."""
    # A map of states takes states to states, and so differences of states to such differences.
    return "primal" if fitted.layers is not None else DEFAULT_MODES[fitted.method.name]


def _transfer(
    fitted: FittedMap, vectors: npt.NDArray[np.float64], mode: TransferMode | None, threads: int | None
) -> npt.NDArray[np.float64]:
    team = resolve_threads(threads)
    mode = default_mode(fitted) if mode is None else check_mode(mode)
    matrix = fitted.matrix_of(mode)
    if matrix is None:
        method: Any = fitted.method
        source: Any = fitted.source_rows
        target: Any = fitted.target_rows
        moved: npt.NDArray[np.float64] = method.transfer(vectors, source, target, team)
        return moved
    # What is too large is reported by the caller, not by NumPy's warnings.
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(vectors @ matrix)


def _vectors(vectors: npt.ArrayLike, fitted: FittedMap) -> npt.NDArray[np.float64]:
    size = fitted.source_size
    array = as_real_array(vectors, "the vectors").astype(np.float64, copy=False)
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise InputError(
            f"{fitted!r} takes vectors of size {size}, ({size},) or (m, {size}), not of shape {array.shape}"
        )
    if array.size == 0:
        raise InputError(f"there are no vectors: their shape is {array.shape}")
    if not (np.abs(array) < _LARGEST).all():
        raise InputError(f"the vectors hold NaN, infinity, or a number beyond {_LARGEST:g}")
    return array


def _scaled(vectors: npt.NDArray[np.float64], norms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if (lengths == 0).any():
        raise InputError("a vector is transferred to zero, which has no norm to change")
    return np.asarray(vectors * (norms / lengths))


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
    """Send layers to the same ones or, between models of unlike depth, to those that lie equally deep."""
    if source is None or target is None or source == target:
        return {layer: layer for layer in layers}
    nearest: dict[int, int] = {}
    for layer in layers:
        new = matching_layer(layer, source, target)
        rival = nearest.get(new, layer)
        # The deeper of two that are equally near counts, as `matching_layer` decides, too.
        nearest[new] = min(layer, rival, key=lambda old: (abs((old + 1) * target - (new + 1) * source), -old))
    return {layer: new for new, layer in nearest.items()}


def _check_layer(layer: int, count: int | None, what: str, side: str) -> None:
    if count is not None and layer >= count:
        what += f", but the {side} has {count} layers, counted from 0: choose layers up to {count - 1}, by "
        how = "vector.select_layers" if side == "source" else "layers="
        raise InputError(what + how, command=f"{what}--layers")

"""The vectors that an evaluation tries: the one in question and its controls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from embgeom.errors import InputError
from embgeom.steering.directions import fingerprint, placed, same_direction
from embgeom.steering.hooks import Handle, Positions
from embgeom.steering.vector import SteeringVector

Kind = Literal[
    "transferred",
    "transferred_negated",
    "native",
    "native_negated",
    "random",
    "shuffled",
    "setting",
    "named",
]
# How the search for the scale at a given KL ended.
Search = Literal["reached", "not monotone", "not reached"]


@dataclass(frozen=True)
class Condition:
    """A vector to try: its name and kind, the factor, and 1 if the score is to rise, -1 if it is to fall."""

    name: str
    kind: Kind
    vector: SteeringVector
    scale: float
    sign: int = 1

    def check_fits(self, model: Any, positions: Positions, layer_modules: Any) -> None:
        self._apply(model, positions, layer_modules).remove()

    @contextmanager
    def applied(self, model: Any, positions: Positions, layer_modules: Any) -> Iterator[None]:
        """Steer the model meanwhile, and raise InputError where it ran past the vector."""
        with self._apply(model, positions, layer_modules) as handle:
            yield
            # An effect of exactly nothing would not be a result but a mistake.
            handle.check()

    def _apply(self, model: Any, positions: Positions, layer_modules: Any) -> Handle:
        return self.vector.apply(model, self.scale, positions=positions, layer_modules=layer_modules)


def with_controls(
    vector: SteeringVector,
    *,
    scale: float,
    native: SteeringVector | None,
    random: int,
    shuffled: Sequence[SteeringVector],
    seed: int,
    of_one_norm: bool = True,
) -> list[Condition]:
    """Return the transferred vector and its controls, where they are added of the same norm in every layer.

    Otherwise each keeps its norm, so that a scale that is searched is that of the vector as it was given.

    Random vectors are Gaussian; number i comes from ``numpy.random.default_rng([seed, i])``. Only what is
    added can be negated: minus the change that another operation makes is no operation of its own.
    """
    if native is not None:
        native = for_layers_of(vector, native, "native")
        vector = _of_norm(vector, native) if of_one_norm else vector
    sign = -1 if scale < 0 else 1
    both: tuple[tuple[Kind, Kind, SteeringVector | None], ...] = (
        ("transferred", "transferred_negated", vector),
        ("native", "native_negated", native),
    )
    for i, other in enumerate(shuffled):
        check_control(vector, other, f"shuffled {i}")
    conditions = []
    for kind, negated, each in both:
        if each is not None:
            conditions.append(Condition(kind, kind, each, scale, sign))
            if each.operation == "add":
                conditions.append(Condition(negated, negated, each, -scale, -sign))
    for i in range(random):
        conditions.append(Condition(f"random_{i}", "random", _random_like(vector, [seed, i]), scale, sign))
    for i, other in enumerate(shuffled):
        control = for_layers_of(vector, other, "shuffled")
        control = _of_norm(control, vector) if of_one_norm else control
        conditions.append(Condition(f"shuffled_{i}", "shuffled", control, scale, sign))
    return conditions


def origins(provenance: Any, *, sums: bool = True) -> Iterator[dict[str, Any]]:
    """Give a vector's provenance and those of what it is a multiple, or a sum, of."""
    # A file's provenance may be of any shape.
    if isinstance(provenance, dict):
        yield provenance
        parts = provenance.get("sum_of") if sums else None
        for part in (provenance.get("of"), *(parts if isinstance(parts, list) else ())):
            yield from origins(part, sums=sums)


def is_control(provenance: Any) -> bool:
    """Return whether a vector was transferred by a map of shuffled tokens."""
    maps = (each.get("map") for each in origins(provenance))
    options = (each.get("options") for each in maps if isinstance(each, dict))
    return any(isinstance(each, dict) and each.get("shuffle") is True for each in options)


def check_control(vector: SteeringVector, other: SteeringVector, name: str, *, known: bool = False) -> None:
    """Refuse what is not the vector's source by a map of shuffled tokens; `known`: also what says nothing."""
    if same_direction(*(fingerprint(each.directions) for each in (vector, other))):
        raise InputError(f"{name} is the vector in question: a control is another one; leave it out")
    known = known or any({"transferred_from", "made_by"} & each.keys() for each in origins(other.provenance))
    if known and not is_control(other.provenance):
        raise InputError(
            f"{name} is no control: its provenance names no map of shuffled tokens; leave it out",
            command=f"{name} is no control: it is not by a map of shuffled tokens, as embgeom transfer "
            "--shuffle writes them; leave it out",
        )
    mine, its = (_sources(each.provenance) for each in (vector, other))
    if any(
        not same_direction({layer: mine[layer]}, {layer: its[layer]}) for layer in mine.keys() & its.keys()
    ):
        raise InputError(
            f"{name} is a control of another source vector: transfer the same one by maps of shuffled tokens",
            command=f"{name} is a control of another source vector than --vector: write those of this one by "
            "embgeom transfer --shuffle",
        )


def _sources(provenance: Any) -> dict[str, Any]:
    """Return the fingerprint, layer by layer, of the one vector that a vector was transferred from."""
    sources = [each["transferred_from"] for each in origins(provenance) if "transferred_from" in each]
    found = sources[0].get("fingerprint") if len(sources) == 1 and isinstance(sources[0], dict) else None
    return found if isinstance(found, dict) else {}


def check_vectors(given: object, name: str) -> list[SteeringVector]:
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(given) if several else [] if given is None else [given]  # type: ignore[call-overload]
    for vector in found:
        if not isinstance(vector, SteeringVector):
            raise InputError(f"{name} = {vector!r:.60} is not a SteeringVector")
    prints = [fingerprint(vector.directions) for vector in found]
    for i, one in enumerate(prints):
        if twice := [j for j in range(i) if same_direction(prints[j], one)]:
            # Copies would have no deviation, which every other vector exceeds.
            raise InputError(
                f"{name} {twice[0]} and {i} are one direction; give each once, and others of other seeds"
            )
    return found


def at_layers(vector: SteeringVector, layers: int | Iterable[int] | None) -> SteeringVector:
    return replace(vector, directions=placed(vector.directions, layers))


def for_layers_of(vector: SteeringVector, other: SteeringVector, name: str) -> SteeringVector:
    if other.hidden_size != vector.hidden_size:
        raise InputError(
            f"{name} has hidden size {other.hidden_size}, the vector {vector.hidden_size}: both must be for "
            "the same model"
        )
    if (other.operation, other.value) != (vector.operation, vector.value):
        mine, its = (f"{each.operation!r}, value {each.value}" for each in (vector, other))
        raise InputError(
            f"{name} has operation {its}, the vector {mine}: only vectors that are used alike can be compared"
        )
    if missing := [layer for layer in vector.layers if layer not in other.directions]:
        raise InputError(
            f"{name} has no direction for layer {missing[0]}; "
            f"name layers that both have: layers={list(other.layers)}"
        )
    return other.select_layers(vector.layers)


def _of_norm(vector: SteeringVector, other: SteeringVector) -> SteeringVector:
    # The value of another operation is in units of the direction, whose length then is no strength.
    return vector.with_norm(other) if vector.operation == "add" else vector


def _random_like(vector: SteeringVector, seed: list[int]) -> SteeringVector:
    generator = np.random.default_rng(seed)
    directions = {}
    for layer, norm in vector.norms.items():
        drawn = generator.standard_normal(vector.hidden_size)
        directions[layer] = (drawn * (norm / np.linalg.norm(drawn))).astype(np.float32)
    return replace(vector, directions=directions, provenance={"random": {"seed": seed}})

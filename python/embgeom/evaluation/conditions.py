"""The vectors that an evaluation tries: the one in question and its controls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from embgeom.errors import InputError
from embgeom.steering.directions import placed

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector
    from embgeom.steering.hooks import Handle

Kind = Literal[
    "transferred", "transferred_negated", "native", "native_negated", "random", "shuffled", "setting"
]
Positions = Literal["all", "generated"]
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Condition:
    """A vector to try.

    Attributes
    ----------
    name : str
        What tables call it.
    kind : str
        Its part in the evaluation.
    vector : SteeringVector
        The directions, before they are scaled.
    scale : float
        The factor to apply them with.
    sign : int
        1 if the score is to rise, -1 if it is to fall.
    """

    name: str
    kind: Kind
    vector: SteeringVector
    scale: float
    sign: int

    def check_fits(self, model: Any, positions: Positions, layer_modules: Any) -> None:
        """Raise InputError where the model has no place for the vector."""
        self._applied(model, positions, layer_modules).remove()

    @contextmanager
    def applied(self, model: Any, positions: Positions, layer_modules: Any) -> Iterator[None]:
        """Steer the model meanwhile, and raise InputError where it ran past the vector."""
        with self._applied(model, positions, layer_modules) as handle:
            yield
            # An effect of exactly nothing would be no result but a mistake.
            handle.check()

    def _applied(self, model: Any, positions: Positions, layer_modules: Any) -> Handle:
        return self.vector.apply(model, self.scale, positions=positions, layer_modules=layer_modules)


def with_controls(
    vector: SteeringVector,
    *,
    scale: float,
    native: SteeringVector | None,
    random: int,
    shuffled: Sequence[SteeringVector],
    seed: int,
) -> list[Condition]:
    """Return the transferred vector and its controls, all of the same norm in every layer.

    Random vectors are Gaussian; number i comes from ``numpy.random.default_rng([seed, i])``.
    """
    sign = -1 if scale < 0 else 1
    if native is not None:
        native = fitting(native, vector, "native")
        vector = vector.with_norm(native)
    conditions = [
        Condition("transferred", "transferred", vector, scale, sign),
        Condition("transferred_negated", "transferred_negated", vector, -scale, -sign),
    ]
    if native is not None:
        conditions += [
            Condition("native", "native", native, scale, sign),
            Condition("native_negated", "native_negated", native, -scale, -sign),
        ]
    for number in range(random):
        conditions.append(
            Condition(f"random_{number}", "random", _random_like(vector, [seed, number]), scale, sign)
        )
    for number, other in enumerate(shuffled):
        equal = fitting(other, vector, "shuffled").with_norm(vector)
        conditions.append(Condition(f"shuffled_{number}", "shuffled", equal, scale, sign))
    return conditions


def check_vectors(given: object, name: str) -> list[SteeringVector]:
    """Return a vector, or several, as a list, or say that one is none."""
    from embgeom.steering import SteeringVector

    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(given) if several else [given]  # type: ignore[call-overload]
    for vector in found:
        if not isinstance(vector, SteeringVector):
            raise InputError(f"{name} = {vector!r:.60} is no SteeringVector")
    return found


def check_positions(positions: object) -> None:
    """Raise InputError for positions that mean nothing for samples of different lengths."""
    if not isinstance(positions, str) or positions not in get_args(Positions):
        raise InputError(f"positions = {positions!r:.60}: it is 'all' or 'generated'")


def at_layers(vector: SteeringVector, layers: int | Iterable[int] | None) -> SteeringVector:
    """Return the vector at some layers; a single direction may be put at others, as `apply` does."""
    return replace(vector, directions=placed(vector.directions, layers))


def fitting(other: SteeringVector, vector: SteeringVector, name: str) -> SteeringVector:
    """Return the directions of another vector for the layers of this one."""
    if other.hidden_size != vector.hidden_size:
        raise InputError(
            f"{name} has hidden size {other.hidden_size}, the vector {vector.hidden_size}: both must be "
            "for the same model"
        )
    if missing := [layer for layer in vector.layers if layer not in other.directions]:
        raise InputError(
            f"{name} has no direction for layer {missing[0]}; "
            f"name layers that both have: layers={list(other.layers)}"
        )
    return other.select_layers(vector.layers)


def _random_like(vector: SteeringVector, seed: list[int]) -> SteeringVector:
    from embgeom.steering import SteeringVector

    generator = np.random.default_rng(seed)
    directions = {}
    for layer, norm in vector.norms.items():
        drawn = generator.standard_normal(vector.hidden_size)
        directions[layer] = (drawn * (norm / np.linalg.norm(drawn))).astype(np.float32)
    return SteeringVector(directions, vector.model, {"random": {"seed": seed}})

"""The search for the scale at which a vector costs a given KL on neutral text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from embgeom.evaluation.conditions import Condition, Search
from embgeom.evaluation.side_effects import SideEffects
from embgeom.steering.vector import SteeringVector

TOLERANCE = 0.05
# How near the first scale that is tried shall come to the KL.
_NEAR = 0.5
MOST_ROUNDS = 16
# How far a scale may lie from the first one, as a factor either way, and from one round to the next.
_FARTHEST = 1e10
_STRIDE = 32.0
# A small change of all states has a KL that is quadratic in its size; a large one saturates.
_QUADRATIC = 2.0
_EXPONENTS = (0.5, 4.0)

Measure = Callable[[Sequence[Condition]], list[SideEffects]]


@dataclass
class ScaleSearch:
    """The search for one condition, and what was measured so far by the size of the scale."""

    condition: Condition
    at_kl: float
    start: float
    # Above it the direction exceeds what the model's numbers hold.
    most: float
    # What KL is taken to grow with before there are two points: this power of the scale.
    power: float = _QUADRATIC
    tolerance: float = TOLERANCE
    measured: dict[float, SideEffects] = field(default_factory=dict)

    @property
    def scale(self) -> float:
        """The scale whose KL is nearest to the target so far; the first one where none is finite."""
        return min(self.measured, key=self._distance)

    @property
    def side_effects(self) -> SideEffects:
        return self.measured[self.scale]

    @property
    def reached(self) -> bool:
        return bool(self.measured) and abs(self.side_effects.kl / self.at_kl - 1) <= self.tolerance

    @property
    def outcome(self) -> Search:
        if not self.reached:
            return "not reached"
        by_scale = [self.measured[scale].kl for scale in sorted(self.measured)]
        falls = any(b < a * (1 - TOLERANCE) for a, b in pairwise(by_scale))
        return "not monotone" if falls else "reached"

    @property
    def found(self) -> Condition:
        return replace(self.condition, scale=math.copysign(self.scale, self.condition.scale))

    def exponent(self) -> float:
        """Return the local exponent of KL as a power of the scale."""
        near = sorted((s for s in self.measured if 0 < self.measured[s].kl < np.inf), key=self._distance)[:2]
        if len(near) < 2 or self.measured[near[0]].kl == self.measured[near[1]].kl:
            return self.power
        rise = math.log(self.measured[near[0]].kl / self.measured[near[1]].kl)
        return min(max(rise / math.log(near[0] / near[1]), _EXPONENTS[0]), _EXPONENTS[1])

    def next(self) -> float | None:
        """Return the size of the scale to try next; None where the search ends."""
        if not self.measured:
            return self.start
        if self.reached or len(self.measured) == MOST_ROUNDS:
            return None
        # The smallest scale that costs too much, and the largest below it that costs too little. What is not
        # a number is too much: the model overflows.
        above = min((s for s, found in self.measured.items() if not found.kl < self.at_kl), default=math.inf)
        below = max((s for s in self.measured if s < above), default=0.0)
        nearest, kl = self.scale, self.side_effects.kl
        step = _STRIDE if kl == 0 else 1 / _STRIDE
        if 0 < kl < math.inf:
            step = (self.at_kl / kl) ** (1 / self.exponent())
        guess = nearest * min(max(step, 1 / _STRIDE), _STRIDE)
        slow = below > 0 and above < math.inf and len(self.measured) > MOST_ROUNDS // 2
        if slow or not below < guess < above:
            # Halving the interval comes to an end, whatever KL does in between.
            low = max(below, above / _STRIDE**2)
            guess = below * _STRIDE if above == math.inf else math.sqrt(low * above)
        far = not self.start / _FARTHEST <= guess <= min(self.start * _FARTHEST, self.most)
        return None if far or guess in self.measured else guess

    def _distance(self, scale: float) -> float:
        kl = self.measured[scale].kl
        return abs(math.log(kl / self.at_kl)) if 0 < kl < math.inf else math.inf


def search_scales(
    conditions: Sequence[Condition],
    at_kl: float,
    largest: float,
    measure: Measure,
) -> list[ScaleSearch]:
    """Search, for each condition, the scale whose KL is `at_kl` within 5 %; its sign stays.

    Each begins at the norm at which a certain random direction of the same layers comes near that KL, so that
    what is found for a vector does not depend on the others, nor on its own length. All that are still sought
    are measured in a round. No entry of a direction becomes larger than `largest`.
    """
    probes = {each.vector.layers: each for each in map(_probe, conditions)}
    found = {
        layers: ScaleSearch(probe, at_kl, 1.0, largest / _peak(probe), tolerance=_NEAR)
        for layers, probe in probes.items()
    }
    _run([*found.values()], measure)
    searches = []
    for condition in conditions:
        probe, most = found[condition.vector.layers], largest / (_peak(condition) or 1.0)
        start = min(probe.scale / (_norm(condition) or 1.0), most)
        searches.append(ScaleSearch(condition, at_kl, start, most, probe.exponent()))
    _run(searches, measure)
    return searches


def _probe(condition: Condition) -> Condition:
    """Return a random direction of norm 1 in all, in the layers of a condition."""
    layers, size = condition.vector.layers, condition.vector.hidden_size
    drawn = np.random.default_rng(0).standard_normal((len(layers), size))
    directions = dict(zip(layers, drawn / np.linalg.norm(drawn), strict=True))
    return Condition("probe", "random", SteeringVector(directions), 1.0)


def _run(searches: Sequence[ScaleSearch], measure: Measure) -> None:
    while tried := [(search, scale) for search in searches if (scale := search.next()) is not None]:
        found = measure(
            [replace(s.condition, scale=math.copysign(scale, s.condition.scale)) for s, scale in tried]
        )
        for (search, scale), side_effects in zip(tried, found, strict=True):
            search.measured[scale] = side_effects


def _norm(condition: Condition) -> float:
    return math.sqrt(sum(norm**2 for norm in condition.vector.norms.values()))


def _peak(condition: Condition) -> float:
    return max(float(np.abs(direction).max()) for direction in condition.vector.directions.values())

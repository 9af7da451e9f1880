"""A cell of the benchmark: a direction, attribute, layer and seed, and every vector at equal side effects."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks.compare.record import write_whole
from benchmarks.steering.attributes import ATTRIBUTES, NEUTRAL, PROMPTS
from benchmarks.steering.routes import CONTROL, Direction, Route
from benchmarks.steering.side import Side
from embgeom import Emb2Emb, SteeringVector
from embgeom.evaluation import EvaluateOptions, Outcome, WordLogRatio, measure_at_kl
from embgeom.evaluation.conditions import Condition
from embgeom.evaluation.run import on_neutral_text

PREDICTORS = (
    "agreement",
    "z",
    "top_overlap",
    "row_space_share",
    "gain",
    "target_nearest_token",
    "target_readout",
)
NATIVES: tuple[tuple[str, Literal["last", "mean"]], ...] = (("native", "last"), ("native mean", "mean"))
Vectors = dict[str, SteeringVector]
Record = dict[str, Any]


class Key(NamedTuple):
    """What a cell is kept under."""

    source: str
    target: str
    attribute: str
    layer: int
    seed: int


@dataclass(frozen=True)
class Extent:
    """How much is tried in each cell."""

    seeds: int = 3
    random: int = 6
    shuffled: int = 2
    prompts: int = PROMPTS
    neutral: int = len(NEUTRAL)
    at_kl: float = 0.2


QUICK = Extent(seeds=1, random=2, shuffled=1, prompts=4, neutral=2)


def planned(directions: Iterable[Direction], extent: Extent) -> Iterator[tuple[Key, Direction]]:
    """Give all cells in the order in which they are measured: one seed of everything before the next."""
    directions = list(directions)
    for seed in range(extent.seeds):
        for direction in directions:
            for attribute in ATTRIBUTES:
                for layer in direction.target.layers:
                    yield Key(direction.source.name, direction.target.name, attribute, layer, seed), direction


class Cells:
    """The cells measured so far: a line of JSON each, after one about the run, in a file that only grows."""

    def __init__(self, file: Path, head: Record, cells: Iterable[Record]) -> None:
        self._file, self.head = file, head
        self.done = {Key(*(cell[name] for name in Key._fields)): cell for cell in cells}

    @classmethod
    def read(cls, file: Path, head: Record | None = None) -> Cells:
        """Return what a file holds; with `head` it may be new, and else it must be of the same settings."""
        if head is not None and not file.exists():
            write_whole(file, json.dumps(head) + "\n")
        whole, _, cut = file.read_text(encoding="utf-8").rpartition("\n")
        first, *cells = map(json.loads, whole.splitlines())
        if head is not None and first["settings"] != head["settings"]:
            raise SystemExit(f"{file} was measured with {first['settings']}: name another --output")
        if head is not None and (cut or first["directions"] != head["directions"]):
            first = first | {"directions": head["directions"]}
            write_whole(file, "".join(json.dumps(each) + "\n" for each in (first, *cells)))
        return cls(file, first, cells)

    def in_order(self) -> list[Record]:
        """Return the cells by direction, as the first line has them."""
        order = [(each["source"], each["target"]) for each in self.head["directions"]]
        return sorted(self.done.values(), key=lambda cell: order.index((cell["source"], cell["target"])))

    def change(self, key: Key, more: Record) -> None:
        """Replace some of a cell's numbers, in the file too; no other process may write to it then."""
        self.done[key] |= more
        write_whole(self._file, "".join(json.dumps(each) + "\n" for each in (self.head, *self.done.values())))

    def add(self, key: Key, cell: Record) -> None:
        self.done[key] = key._asdict() | cell
        # One call in append mode, so that lines of two processes do not mix.
        with self._file.open("ab", buffering=0) as file:
            file.write(json.dumps(self.done[key]).encode() + b"\n")


def measure(key: Key, direction: Direction, extent: Extent) -> Record:
    """Return what every vector of a cell does at equal KL on neutral text."""
    begin, target = time.monotonic(), direction.target
    attribute, neutral = ATTRIBUTES[key.attribute], NEUTRAL[: extent.neutral]
    _, prompts = attribute.draw(key.seed)
    vectors = _vectors(key, direction, extent)
    prepared = time.monotonic()
    found = measure_at_kl(
        *target.language_model,
        WordLogRatio(attribute.positive, attribute.negative, whole=True),
        prompts[: extent.prompts],
        neutral,
        vectors,
        extent.at_kl,
        options=EvaluateOptions(batch_size=32),
    )
    return {
        "source_layer": direction.source_layer(key.layer),
        "vectors": {outcome.name: _numbers(outcome) for outcome in found.outcomes},
        "kl_at_1": _costs(target, neutral, _at_default_length(key, direction)),
        "predicted": _predicted(key, direction, vectors),
        "seconds": [round(prepared - begin, 1), round(time.monotonic() - prepared, 1)],
    }


def measure_again(key: Key, direction: Direction, extent: Extent) -> Record:
    """Return what needs no search: KL at the default length, and what weights alone predict."""
    neutral = NEUTRAL[: extent.neutral]
    return {
        "kl_at_1": _costs(direction.target, neutral, _at_default_length(key, direction)),
        "predicted": _predicted(key, direction, _vectors(key, direction, extent)),
    }


def _numbers(outcome: Outcome) -> Record:
    effect, cost = outcome.effect, outcome.side_effects
    numbers = {"scale": outcome.scale, "kl": cost.kl if cost else None, "effect": effect.mean}
    numbers |= {"error": effect.standard_error, "anti_steered": effect.anti_steered}
    return {name: _rounded(number) for name, number in numbers.items()} | {"search": outcome.search}


def _rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _costs(side: Side, texts: Sequence[str], vectors: Vectors) -> dict[str, float | None]:
    """Return KL on neutral text at scale 1."""
    model, tokenizer = side.language_model
    conditions = [Condition(name, "named", vector, 1.0) for name, vector in vectors.items()]
    _, found = on_neutral_text(model, tokenizer, texts, conditions, EvaluateOptions(batch_size=32))
    return {condition.name: _rounded(cost.kl) for condition, cost, _ in found}


def _predicted(key: Key, direction: Direction, vectors: Vectors) -> Record:
    """Return what weights alone say of each route, and of maps of shuffled tokens and random vectors."""
    lens = direction.lens(key.seed)

    def predict(name: str, route: Route, mapping: Emb2Emb) -> Record:
        origin = direction.source.vector(key.attribute, key.seed, route.token_position)
        before = origin.directions[direction.source_layer(key.layer)]
        (forecast,) = lens.predict(before, vectors[name].directions[key.layer], mapping, route.mode)
        numbers = {each: getattr(forecast, each) for each in PREDICTORS}
        return {each: _rounded(value) for each, value in numbers.items()} | {"verdict": forecast.verdict}

    routes = {route.name: (route, direction.map(route, key.layer, key.seed)) for route in direction.routes}
    controls = {name: name.split()[-1] for name in vectors if name.startswith(("shuffled ", "random "))}
    for name, number in controls.items():
        shuffled = direction.shuffled_map(CONTROL, int(number))
        routes[name] = CONTROL, shuffled if name.startswith("shuffled") else routes[CONTROL.name][1]
    return {name: predict(name, *each) for name, each in routes.items()}


def _at_default_length(key: Key, direction: Direction) -> Vectors:
    """Return native vectors as they are trained, and transferred ones as `transfer` makes them."""
    target, layer = direction.target, key.layer
    vectors = {
        name: target.vector(key.attribute, key.seed, position).select_layers([layer])
        for name, position in NATIVES
    }
    for route in direction.routes:
        vectors[route.name] = direction.transfer(route, key.attribute, layer, key.seed)
    return vectors


def _vectors(key: Key, direction: Direction, extent: Extent) -> Vectors:
    """Return all vectors of a cell by name, the transferred ones as long as they are by default."""
    layer = key.layer
    vectors = _at_default_length(key, direction)
    native = vectors["native"]
    vectors["native negated"] = -native
    vectors["transferred negated"] = -vectors[CONTROL.name]
    for number in range(extent.shuffled):
        vectors[f"shuffled {number}"] = direction.transfer(CONTROL, key.attribute, layer, key.seed, number)
    length = native.norms[layer]
    for number in range(extent.random):
        drawn = np.random.default_rng([key.seed, layer, number]).standard_normal(native.hidden_size)
        vectors[f"random {number}"] = SteeringVector({layer: drawn * (length / np.linalg.norm(drawn))})
    return vectors

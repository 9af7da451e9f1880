"""Does a transferred vector steer? Every method, mode and layer, beside the target's native vector.

    python -m benchmarks.steering                        the bundled pair both ways, a few minutes
    python -m benchmarks.steering --models DIR           also stories260k <-> tinystories-656k from there
    python -m benchmarks.steering --quick --output DIR   a few prompts, to see that everything works

A happy-minus-sad vector is trained on pairs of texts (`embgeom.examples.moods`) in the source, read at their
last token or over all of them, transferred, and added to the target at the norm of the target's native
vector, which is read in the same way. The score is the log-probability of happy words minus that of sad ones
after other beginnings. Writes steering.json and steering.md into the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import Any

import embgeom
from benchmarks.compare.problem import Size
from benchmarks.compare.record import new_record, write_whole
from benchmarks.steering.side import QUICK, Extent, Side
from benchmarks.steering.table import markdown
from embgeom import Emb2Emb, EmbgeomWarning, SteeringVector
from embgeom.evaluation import EvaluateOptions, Evaluation, evaluate

FOREIGN = ("stories260k", "tinystories-656k")
# The default of the library.
METHOD = "low_rank"
METHODS = ("least_squares", "ridge", "procrustes", "low_rank", "lle")
MODES = ("primal", "dual", "logits")
LAYERS = ("relative depth", "strongest source")
READS = ("last", "mean")


def routes() -> Iterator[tuple[str, str]]:
    for method in METHODS:
        for mode in MODES:
            # These ask nothing of the method but its logits matrix, which is the same for all.
            if (mode == "logits" and method != "ridge") or (method, mode) == ("lle", "dual"):
                continue
            yield method, mode


@cache
def fitted(source: Side, target: Side, method: str, seed: int, shuffle: bool = False) -> Emb2Emb:
    with warnings.catch_warnings():
        # Few tokens are part of the trial.
        warnings.simplefilter("ignore", EmbgeomWarning)
        return Emb2Emb.fit(source.unembedding, target.unembedding, method=method, seed=seed, shuffle=shuffle)  # type: ignore[arg-type]


def source_layer(layers: str, layer: int, source: Side, target: Side) -> int:
    """Return the layer of the source whose direction is transferred to a layer of the target."""
    if layers == "relative depth":
        return embgeom.matching_layer(layer, target.depth, source.depth)
    return source.strongest


def in_full(source: Side, target: Side, layers: str, layer: int) -> Evaluation:
    """Evaluate the default route at a layer with all controls."""
    vector = source.vector.select_layers([source_layer(layers, layer, source, target)])
    shuffled = [
        fitted(source, target, METHOD, seed, shuffle=True).transfer(vector, layers=layer)
        for seed in range(target.extent.shuffled)
    ]
    return run(
        target,
        fitted(source, target, METHOD, 0).transfer(vector, layers=layer),
        layer,
        native=target.vector.select_layers([layer]),
        options=EvaluateOptions(random=target.extent.random, batch_size=64),
        shuffled=shuffled,
    )


def along_route(
    source: Side, target: Side, mapping: Emb2Emb, mode: str, layers: str, layer: int
) -> Evaluation:
    """Evaluate any route at the norm of the native vector."""
    vector = source.vector.select_layers([source_layer(layers, layer, source, target)])
    transferred = mapping.transfer(vector, mode=mode, layers=layer, norm=target.vector)  # type: ignore[call-overload]
    return run(target, transferred, layer, options=EvaluateOptions(random=0, batch_size=64))


def run(target: Side, vector: SteeringVector, layer: int, **controls: Any) -> Evaluation:
    return evaluate(
        target.model,
        target.tokenizer,
        vector,
        target.score(),
        target.prompts,
        scale=target.scale(layer),
        neutral=target.neutral,
        **controls,
    )


def measure(source: Side, target: Side, seeds: int) -> dict[str, Any]:
    """Return everything about one direction; routes by maps of so many seeds."""
    begin = time.monotonic()
    entry: dict[str, Any] = {
        "source": source.name,
        "target": target.name,
        "token_position": target.token_position,
    }
    entry |= {"layers": [], "routes": []}
    mapping = fitted(source, target, METHOD, 0)
    entry["tokens"] = mapping.provenance["tokens"]
    entry["map"] = {"scores": vars(mapping.scores), "shuffled": vars(mapping.shuffled)}
    for layers, layer in ((layers, layer) for layers in LAYERS for layer in target.vector.layers):
        found = in_full(source, target, layers, layer)
        entry["layers"].append(
            {
                "layers": layers,
                "layer": layer,
                "source_layer": source_layer(layers, layer, source, target),
                "scale": target.scale(layer),
                "checks": vars(found.checks()),
                "negated": found["transferred_negated"].effect.mean,
                "native_negated": found["native_negated"].effect.mean,
                "shuffled": [outcome.effect.mean for outcome in found.of_kind("shuffled")],
                "random": [outcome.effect.mean for outcome in found.of_kind("random")],
                "kl": {name: found[name].side_effects.kl for name in ("transferred", "native")},  # type: ignore[union-attr]
                "perplexity_ratio": {
                    name: found[name].side_effects.perplexity_ratio
                    for name in ("transferred", "native")  # type: ignore[union-attr]
                },
                "anti_steered": {name: found[name].effect.anti_steered for name in ("transferred", "native")},
                "samples": found.samples,
            }
        )
    native = {layer["layer"]: layer["checks"]["native_effect"] for layer in entry["layers"]}
    for method, mode in routes():
        for seed in range(seeds):
            mapping = fitted(source, target, method, seed)
            for layers, layer in ((layers, layer) for layers in LAYERS for layer in target.vector.layers):
                found = along_route(source, target, mapping, mode, layers, layer)
                entry["routes"].append(
                    {
                        "method": method,
                        "mode": mode,
                        "layers": layers,
                        "seed": seed,
                        "layer": layer,
                        "fraction_of_native": found.transferred.effect.mean / native[layer],
                        "effect": found.transferred.effect.mean,
                        "kl": found.transferred.side_effects.kl,  # type: ignore[union-attr]
                    }
                )
        done = f"{source.name} -> {target.name}, token position {target.token_position}: {method}, {mode}"
        print(f"[{time.monotonic() - begin:5.0f} s] {done}", file=sys.stderr, flush=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, help=f"a folder that holds {' and '.join(FOREIGN)}")
    parser.add_argument(
        "--seeds", type=int, default=3, help="of the tokens that a map is fitted on; 0 compares no routes"
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of torch: the models are small")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    extent = QUICK if options.quick else Extent()
    pairs = [{f"example:{folder.name}": folder for folder in embgeom.examples.pair()}]
    if options.models:
        pairs.append({name: options.models / name for name in FOREIGN})
    record = new_record(Size(0, 0, 0, options.quick))
    kept = ("date", "processor", "cores", "versions", "python", "quick")
    record = {key: record[key] for key in kept if key in record} | {"directions": []}
    for pair, read in product(pairs, READS):
        for source, target in permutations(Side(folder, name, extent, read) for name, folder in pair.items()):
            record["directions"].append(measure(source, target, options.seeds))
            write_whole(options.output / "steering.json", json.dumps(record) + "\n")
            write_whole(options.output / "steering.md", markdown(record))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()

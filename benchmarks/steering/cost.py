"""What an evaluation costs: 25 vectors on 20 prompts and some neutral texts, with and without reused states.

    python -m benchmarks.steering.cost MODEL                            a folder or Hugging Face id
    python -m benchmarks.steering.cost MODEL --before ../old            also the code of another checkout

The vectors are random, since time does not depend on what they are, and steer one layer, at half and at two
thirds of the depth by default. Each contender is a process of its own; the effects of all must agree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.compare.problem import Size
from benchmarks.compare.record import new_record, write_whole

ROOT = Path(__file__).resolve().parents[2]
VECTORS, PROMPTS = 25, 20
BEFORE, WHOLE, NOW, AT_KL = "before", "every layer run", "states reused", "states reused, at KL 0.2"


def measure(options: argparse.Namespace) -> None:
    """Evaluate here, and print a line of JSON for each layer."""
    import numpy as np
    import torch

    import embgeom
    from embgeom.evaluation import EvaluateOptions, WordLogRatio, evaluate
    from embgeom.examples import moods
    from embgeom.steering import load_language_model

    if options.contender == WHOLE:
        from embgeom.lm import reuse

        reuse.MOST_BYTES = 0
    torch.set_num_threads(options.threads)
    model, tokenizer = load_language_model(options.model)
    # The vector, the native one, and the negations of both are four.
    how = EvaluateOptions(random=VECTORS - 4, **({"at_kl": 0.2} if options.contender == AT_KL else {}))
    depth, size = model.config.num_hidden_layers, model.config.hidden_size
    for layer in options.layers or (depth // 2, 2 * depth // 3):
        generator = np.random.default_rng(layer)
        vector, native = (
            embgeom.SteeringVector({layer: generator.standard_normal(size)}).with_norm(options.norm)
            for _ in range(2)
        )
        begin = time.perf_counter()
        found = evaluate(
            model,
            tokenizer,
            vector,
            WordLogRatio(moods.HAPPY, moods.SAD, whole=True),
            moods.prompts()[:PROMPTS],
            native=native,
            neutral=moods.neutral_texts()[: options.neutral] or None,
            options=how,
        )
        seconds = time.perf_counter() - begin
        effects = [outcome.effect.mean for outcome in found.outcomes]
        costs = [outcome.side_effects.kl for outcome in found.outcomes if outcome.side_effects]
        print(json.dumps({"layer": layer, "seconds": seconds, "effects": effects, "kl": costs}), flush=True)


def run(contender: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run a contender in a process of its own, with the package of its checkout."""
    package = (options.before if contender == BEFORE else ROOT) / "python"
    command = [sys.executable, str(Path(__file__).resolve()), options.model, f"--contender={contender}"]
    command += [f"--{name}={getattr(options, name)}" for name in ("threads", "norm", "neutral")]
    command += ["--layers", *map(str, options.layers)] if options.layers else []
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def page(record: dict[str, Any]) -> str:
    lines = [
        "# What an evaluation costs",
        "",
        f"{VECTORS} vectors on {PROMPTS} prompts and {record['neutral']} neutral texts, {record['model']}, "
        f"float32, {record['threads']} threads of {record['cores']} cores of {record['processor']}, "
        f"{record['date']}. "
        "Seconds, and the share of the first row's. The search at KL 0.2 measures a vector several times.",
        "",
        "| | " + " | ".join(f"layer {found['layer']} | share" for found in record["found"][NOW]) + " |",
        "|---|" + "---|" * (2 * len(record["found"][NOW])),
    ]
    first = next(iter(record["found"].values()))
    for name, found in record["found"].items():
        cells = (
            f"{one['seconds']:.1f} | {one['seconds'] / whole['seconds']:.2f}"
            for one, whole in zip(found, first, strict=True)
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder or id of a causal language model")
    parser.add_argument("--before", type=Path, help="another checkout, with its extension built")
    parser.add_argument("--layers", type=int, nargs="+")
    parser.add_argument("--norm", type=float, default=30.0, help="of the vectors")
    parser.add_argument("--neutral", type=int, default=10, help="texts; with none there is no KL")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="a folder for evaluation_cost.json and .md")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        measure(options)
        return
    record = new_record(Size(0, 0, options.threads))
    kept = ("date", "processor", "cores", "versions", "python")
    record = {key: record[key] for key in kept if key in record}
    record |= {"model": Path(options.model).name, "threads": options.threads}
    record |= {"neutral": options.neutral, "found": {}}
    contenders = [BEFORE] * bool(options.before) + [WHOLE, NOW] + [AT_KL] * bool(options.neutral)
    for contender in contenders:
        record["found"][contender] = run(contender, options)
        seconds = ", ".join(f"{found['seconds']:.1f} s" for found in record["found"][contender])
        print(f"{contender}: {seconds}", file=sys.stderr, flush=True)
    for contender in record["found"].keys() - {NOW, AT_KL}:
        for one, other in zip(record["found"][contender], record["found"][NOW], strict=True):
            worst = max(abs(a - b) for a, b in zip(one["effects"], other["effects"], strict=True))
            print(f"{contender}: effects differ by {worst:.1e} at most", file=sys.stderr)
    print(page(record))
    if options.output:
        write_whole(options.output / "evaluation_cost.json", json.dumps(record, indent=1) + "\n")
        write_whole(options.output / "evaluation_cost.md", page(record))


if __name__ == "__main__":
    main()

"""Does a transferred vector steer? Every route, beside the target's native vector, at equal side effects.

    python -m benchmarks.steering                             the bundled pair both ways, some minutes
    python -m benchmarks.steering --models A B --texts FILE   also two other models; maps of hidden states
    python -m benchmarks.steering --table                     only the table and the figure of what is there
    python -m benchmarks.steering --again                     what needs no search, in cells that are there
    python -m benchmarks.steering --quick --output DIR        a few prompts, to see that everything works

Four attributes (`benchmarks.steering.attributes`), three layers of the target (`side.DEPTHS`) and three
seeds, which draw the pairs that vectors are trained on, the prompts, the held-out tokens and random vectors.
The scale of every vector is searched until it has the same KL on neutral text. Writes steering.jsonl, a line
for each cell after one about the run, steering.md and steering.svg; called again, it goes on where it ended.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from itertools import permutations
from pathlib import Path
from typing import Any

from benchmarks.compare.problem import Size
from benchmarks.compare.record import new_record, write_whole
from benchmarks.steering.attributes import PAIRS
from benchmarks.steering.cells import QUICK, Cells, Extent, Key, measure, measure_again, planned
from benchmarks.steering.routes import Direction, plain_texts
from benchmarks.steering.side import Side
from benchmarks.steering.table import markdown, picture
from embgeom._common.record import digest

TEXTS = 160
KEPT = ("date", "processor", "cores", "versions", "python", "quick")


def directions_of(models: list[str], dtype: str, texts: tuple[str, ...]) -> list[Direction]:
    pairs = [[Side(f"example:{size}", f"example:{size}", "float32") for size in ("small", "large")]]
    if models:
        pairs.append([Side(Path(model).stem, model, dtype) for model in models])
    return [Direction(*sides, texts) for pair in pairs for sides in permutations(pair)]


def head_of(directions: list[Direction], extent: Extent, quick: bool, dtype: str) -> dict[str, Any]:
    """Return what is said of the whole run: settings that all cells share, and what is to be measured."""
    record = new_record(Size(0, 0, 0, quick))
    texts = directions[0].texts
    return {key: record[key] for key in KEPT if key in record} | {
        "settings": {**asdict(extent), "pairs": PAIRS, "dtype": dtype, "texts": [len(texts), digest(texts)]},
        "directions": [
            {
                "source": direction.source.name,
                "target": direction.target.name,
                "depths": [direction.source.depth, direction.target.depth],
                "layers": direction.target.layers,
                "tokens": len(direction.shared[0]),
            }
            for direction in directions
        ],
    }


def run(cells: Cells, plan: list[tuple[Key, Direction]], extent: Extent, again: bool) -> None:
    begin, left = time.monotonic(), [entry for entry in plan if (entry[0] in cells.done) == again]
    for number, (key, direction) in enumerate(left, start=1):
        if again:
            cells.change(key, measure_again(key, direction, extent))
        else:
            cells.add(key, measure(key, direction, extent))
        print(
            f"[{time.monotonic() - begin:5.0f} s] {number} of {len(left)}: {key}", file=sys.stderr, flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs=2, default=[], metavar=("A", "B"), help="two more models: folders or files"
    )
    parser.add_argument(
        "--texts",
        nargs="+",
        default=[],
        help="files of plain text, for maps of hidden states; left out without",
    )
    parser.add_argument("--dtype", default="float32", help="what the other two models compute in")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument(
        "--source", help="only from the model of this name; several processes may share an output"
    )
    parser.add_argument("--table", action="store_true", help="measure nothing")
    parser.add_argument(
        "--again",
        action="store_true",
        help="in cells that are there, measure anew what needs no search: KL at scale 1, and predictions",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    extent = QUICK if options.quick else Extent()
    file = options.output / "steering.jsonl"
    if options.table:
        cells = Cells.read(file)
    else:
        texts = plain_texts(options.texts, TEXTS)
        directions = directions_of(options.models, options.dtype, texts)
        cells = Cells.read(file, head_of(directions, extent, options.quick, options.dtype))
        plan = planned(directions, extent)
        mine = [entry for entry in plan if options.source in (None, entry[0].source)]
        run(cells, mine, extent, options.again)
        cells = Cells.read(file)
    write_whole(options.output / "steering.md", markdown(cells.head, cells.in_order()))
    write_whole(options.output / "steering.svg", picture(cells.in_order()))
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()

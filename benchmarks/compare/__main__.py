"""embgeom beside other libraries, each at its best setting, with the same threads on the same problem.

    python -m benchmarks.compare                        50,257 x 768, as GPT-2: about an hour
    python -m benchmarks.compare --only knn,lle         measures these again, keeps the other numbers
    python -m benchmarks.compare --quick --output DIR   shows in seconds that everything works

Run in the repository's root. Writes against_others.json and against_others.md into the output folder after
each case, so that an interruption loses one case at most. Answers are checked against float64 references;
no time is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks.compare.cases import CASES, MEASURES
from benchmarks.compare.child import ChildFailed, be_child
from benchmarks.compare.problem import Size
from benchmarks.compare.record import Record, RecordDiffers, continued, new_record, today, write_whole
from benchmarks.compare.rounds import measure_case, measure_quickly
from benchmarks.compare.table import markdown

QUICK_ROWS, QUICK_COLUMNS = 600, 32


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, help="50257 by default")
    parser.add_argument("--columns", type=int, help="768 by default")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=chosen, help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--quick", action="store_true", help="a tiny problem, one round, few processes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(text: str) -> tuple[str, ...]:
    """Split the value of --only, or say what it may hold."""
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in MEASURES]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(MEASURES)}")
    return names


def save(folder: Path, record: Record) -> None:
    """Write both files, with the cases in their order."""
    order = {case.name: place for place, case in enumerate(CASES)}
    record["cases"] = dict(sorted(record["cases"].items(), key=lambda item: order.get(item[0], len(order))))
    write_whole(folder / "against_others.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / "against_others.md", markdown(record))


def main() -> None:
    options = arguments()
    if options.child:
        be_child(options.child)
        return
    try:
        run(options)
    except (RecordDiffers, ChildFailed) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the cases that were finished are saved")


def run(options: argparse.Namespace) -> None:
    """Measure the chosen cases and save them one by one."""
    quick = options.quick
    size = Size(
        options.rows or (QUICK_ROWS if quick else 50257),
        options.columns or (QUICK_COLUMNS if quick else 768),
        options.threads,
        quick,
    )
    record = new_record(size)
    if options.only:
        record = continued(options.output / "against_others.json", record)
    cases = [case for case in CASES if not options.only or case.measure in options.only]
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:7.1f} s] {text}", flush=True)

    if quick:
        for name, entry in measure_quickly(cases, size, say).items():
            record["cases"][name] = entry | {"date": today()}
        save(options.output, record)
    else:
        for case in cases:
            say(f"--- {case.name}")
            record["cases"][case.name] = measure_case(case, size, options.rounds, say) | {"date": today()}
            save(options.output, record)
    say(f"written to {options.output}")


if __name__ == "__main__":
    main()

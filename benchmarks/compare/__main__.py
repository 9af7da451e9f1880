"""embgeom beside other libraries, each at its best setting, with the same threads on the same problem.

    python -m benchmarks.compare                          50,257 x 768, as GPT-2: about 40 minutes
    python -m benchmarks.compare --minutes 12             as many cases as fit; call it again for the others
    python -m benchmarks.compare --only knn,study-2048    measures these again, keeps the other numbers
    python -m benchmarks.compare --only study-whole --full --contender embgeom
    python -m benchmarks.compare --quick --output DIR     shows in minutes that everything works

Run in the repository's root. Writes against_others.json and against_others.md after each case, into
benchmarks/results/avx512 or benchmarks/results/avx2, by the instructions that embgeom uses; --avx2 keeps the
others to AVX2, and takes an embgeom that was built with EMBGEOM_AVX512=OFF. Answers are checked against
float64 references; no time is asserted.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.compare.cases import CASES, MEASURES
from benchmarks.compare.child import ChildFailed, be_child
from benchmarks.compare.contender import REFERENCE, Case
from benchmarks.compare.problem import Size
from benchmarks.compare.record import Record, RecordDiffers, continued, instructions, new_record, write_whole
from benchmarks.compare.rounds import measure_case, measure_quickly
from benchmarks.compare.table import markdown

QUICK_ROWS, QUICK_COLUMNS = 600, 32
RESULTS = Path(__file__).parents[1] / "results"
# How OpenBLAS, MKL, oneDNN, torch and faiss are kept to AVX2.
AVX2_ONLY = {
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "DNNL_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "FAISS_SIMD_LEVEL": "AVX2",
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, help="50257 by default")
    parser.add_argument("--columns", type=int, help="768 by default")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", type=chosen, help=f"some of {','.join(MEASURES)}; study is all of study-*")
    parser.add_argument("--contender", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--full", action="store_true", help="a study takes all tokens, none are scaled")
    parser.add_argument(
        "--minutes", type=float, help="skip cases measured on this revision, and begin none after so long"
    )
    parser.add_argument("--avx2", action="store_true", help="keep all libraries to AVX2")
    parser.add_argument("--output", type=Path, help="a folder in benchmarks/results by default")
    parser.add_argument("--quick", action="store_true", help="a tiny problem, one round, few processes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(text: str) -> tuple[str, ...]:
    """Split the value of --only, or say what it may hold."""
    names = text.split(",")
    found = [[measure for measure in MEASURES if measure.partition("-")[0] == name] for name in names]
    found = [[name] if name in MEASURES else family for name, family in zip(names, found, strict=True)]
    if unknown := [name for name, family in zip(names, found, strict=True) if not family]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(MEASURES)}")
    return tuple(measure for family in found for measure in family)


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
        options.full,
    )
    choose_instructions(options.avx2)
    record = new_record(size)
    output = options.output or RESULTS / record["instructions"]
    if options.only or options.minutes:
        record = continued(output / "against_others.json", record)
    cases = [case for case in CASES if not options.only or case.measure in options.only]
    begin = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - begin:7.1f} s] {text}", flush=True)

    if quick:
        record["cases"] |= measure_quickly(cases, size, say)
        save(output, record)
    else:
        for case in waiting(cases, record, options, begin, say):
            say(f"--- {case.name}")
            earlier = record["cases"].get(case.name, {}).get("contenders", {}) if options.contender else {}
            record["cases"][case.name] = measure_case(
                case, size, options.rounds, say, earlier, options.contender
            )
            say(f"took {record['cases'][case.name]['took']} s")
            save(output, record)
    say(f"written to {output}")


def waiting(
    cases: Sequence[Case],
    record: Record,
    options: argparse.Namespace,
    begin: float,
    say: Callable[[str], None],
) -> Iterator[Case]:
    """Give the cases to measure: with --minutes those that are not done, while there is time for them."""
    for case in cases:
        known = record["cases"].get(case.name, {})
        own = known.get("contenders", {}).get(REFERENCE, {})
        if options.minutes and own.get("revision") == record["revision"]:
            continue
        left = 60 * (options.minutes or math.inf) - (time.monotonic() - begin)
        if left < known.get("took", 60):
            say(f"no time for {case.name}: call this again")
            continue
        yield case


def choose_instructions(avx2: bool) -> None:
    """Keep this process and its children to AVX2, or let each library take what the processor has."""
    # Before the first BLAS is loaded; a setting that holds back only the others would not be fair.
    for name in (*AVX2_ONLY, "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    if not avx2:
        return
    os.environ |= AVX2_ONLY
    if instructions() == "avx512":
        raise RecordDiffers(
            "this embgeom uses AVX-512: build one by pip install -Ccmake.define.EMBGEOM_AVX512=OFF "
            "--no-deps --target FOLDER . and put FOLDER first in PYTHONPATH"
        )


if __name__ == "__main__":
    main()

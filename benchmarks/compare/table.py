"""The record as Markdown."""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]
# What no library does, but what bounds all of them; and the measures in which others do the same as embgeom.
BOUNDS = ("GEMM alone", "its own products at sgemm's speed", "Gram matrix and ssytrd, float32")
SHARED = ("knn", "queries", "lle", "dimension", "steps", "similarity", "study")


def markdown(record: Entry) -> str:
    """Return the whole page."""
    return "\n".join([*heading(record), *summary(record["cases"]), *cases(record["cases"])]) + "\n"


def heading(record: Entry) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "# embgeom beside other libraries",
        "",
        f"{record['rows']:,} x {record['columns']} float32 (synthetic rows like embeddings), cosine, "
        f"{record['threads']} threads of {record['cores']} cores of {record['processor']} (OpenBLAS kernels "
        f"for {record['blas_core']}{own_kernels(record)}), {record['date']}, "
        f"Python {record['python']}, {versions}.",
        "",
        "Each measurement is one process. Contenders take turns, the slow ones once. What is prepared before "
        "a call, such as unit rows or an index, is not timed for the others. *Peak* is how far memory rose "
        "during the call; *CPU* is the processor time of all threads and child processes. "
        "*Error* is the largest difference from a float64 reference on a sample of tokens (similarities, "
        "weights, the correlation), and for the intrinsic dimension the share of tokens with another number.",
    ]
    if record["quick"]:
        lines += ["", "**A quick run: it shows that everything works; its times mean nothing.**"]
    return lines


def own_kernels(record: Entry) -> str:
    names = {"avx512": "AVX-512", "avx2": "AVX2", "base": "any x86-64"}
    return f", embgeom's for {names[record['instructions']]}" if "instructions" in record else ""


def summary(entries: dict[str, Entry]) -> list[str]:
    """Show how many times as long as embgeom the fastest of the others take."""
    lines = [
        *("", "## In short", ""),
        "| | embgeom | large steps alone | fastest other library | which |",
        "|---|---|---|---|---|",
    ]
    for name, case in entries.items():
        times = {
            who: entry["times_embgeom"]
            for who, entry in case["contenders"].items()
            if "times_embgeom" in entry
        }
        own = times.pop("embgeom", None)
        bounds = [f"{times.pop(bound):.2f}" for bound in BOUNDS if bound in times]
        if case["measure"].partition("-")[0] in SHARED and own:
            fastest = min(times, key=lambda who: times[who], default="")
            taken = case["contenders"]["embgeom"]["median"] * case["unit"]["per_second"]
            ratio = f"{times[fastest]:.2f}" if fastest else ""
            cells = (f"{taken:.4g} {case['unit']['name']}", "".join(bounds), ratio, fastest)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def cases(entries: dict[str, Entry]) -> list[str]:
    lines = []
    for name, case in entries.items():
        lines += ["", f"## {name}", "", f"Times in {case['unit']['name']}, {made(case)}.", ""]
        lines += ["| | median | all rounds | times embgeom | CPU | peak MB | error | recall | setting |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        lines += [row(who, entry, case["unit"]["per_second"]) for who, entry in case["contenders"].items()]
    return lines


def made(case: Entry) -> str:
    """Say when the numbers of a case were measured, and on which commits."""
    entries = case["contenders"].values()
    dates = sorted({entry["date"] for entry in entries if "date" in entry})
    commits = {entry["revision"] for entry in entries if entry.get("revision")}
    return " to ".join(dict.fromkeys(dates[:1] + dates[-1:])) + "".join(f", {c}" for c in sorted(commits))


def row(name: str, entry: Entry, factor: float) -> str:
    if "median" not in entry:
        return f"| {name} | {entry['status']} | | | | | | | |"
    cells = [
        f"{entry['median'] * factor:.4g}",
        ", ".join(f"{seconds * factor:.4g}" for seconds in entry["seconds"]),
        number(entry, "times_embgeom", ".2f"),
        f"{entry['cpu_seconds'] * factor:.4g}" if "cpu_seconds" in entry else "",
        number(entry, "peak_mb", ".0f"),
        number(entry, "error", ".2g"),
        number(entry, "recall", ".4f"),
        ", ".join(f"{key} {value}" for key, value in remarks(entry).items()),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def remarks(entry: Entry) -> Entry:
    """Return the options with which it was measured, its parts, and by how much company slowed it down."""
    slowdown = {"slowdown": f"{entry['slowdown']:.2f}"} if "slowdown" in entry else {}
    parts = {name: f"{seconds:.4g}" for name, seconds in entry.get("parts", {}).items()}
    scaled = {"scaled from": f"{entry['tokens']:,} tokens"} if entry.get("scaled") else {}
    share = {"decided in float64": f"{entry['float64']:.1%}"} if "float64" in entry else {}
    return entry.get("options", {}) | slowdown | parts | scaled | share


def number(entry: Entry, key: str, form: str) -> str:
    return format(entry[key], form) if entry.get(key) is not None else ""

"""The record as Markdown."""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]


def markdown(record: Entry) -> str:
    """Return the whole page."""
    return "\n".join([*heading(record), *cases(record["cases"])]) + "\n"


def heading(record: Entry) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [
        "# embgeom beside other libraries",
        "",
        f"{record['rows']:,} x {record['columns']} float32 (synthetic rows like embeddings), cosine, "
        f"{record['threads']} threads of {record['cores']} cores of {record['processor']} (OpenBLAS kernels "
        f"for {record['blas_core']}), {record['date']}, Python {record['python']}, {versions}.",
        "",
        "Each measurement is one process. Contenders take turns, the slow ones once. What is prepared before "
        "a call, such as unit rows or an index, is not timed for the others. *Peak* is how far memory rose "
        "during the call. "
        "*Error* is the largest difference from a float64 reference on a sample of tokens (similarities, "
        "weights, the correlation), and for the intrinsic dimension the share of tokens with another number.",
    ]
    if record["quick"]:
        lines += ["", "**A quick run: it shows that everything works; its times mean nothing.**"]
    return lines


def cases(entries: dict[str, Entry]) -> list[str]:
    lines = []
    for name, case in entries.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"Times in {case['unit']['name']}, {case['date']}.",
            "",
        ]
        lines += ["| | median | all rounds | times embgeom | peak MB | error | recall | setting |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        lines += [row(who, entry, case["unit"]["per_second"]) for who, entry in case["contenders"].items()]
    return lines


def row(name: str, entry: Entry, factor: float) -> str:
    if "median" not in entry:
        return f"| {name} | {entry['status']} | | | | | | |"
    cells = [
        f"{entry['median'] * factor:.4g}",
        ", ".join(f"{seconds * factor:.4g}" for seconds in entry["seconds"]),
        f"{entry['times_embgeom']:.2f}",
        number(entry, "peak_mb", ".0f"),
        number(entry, "error", ".2g"),
        number(entry, "recall", ".4f"),
        ", ".join(f"{key} {value}" for key, value in remarks(entry).items()),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def remarks(entry: Entry) -> Entry:
    """Return the options with which it was measured, and by how much company slowed it down."""
    slowdown = {"slowdown": f"{entry['slowdown']:.2f}"} if "slowdown" in entry else {}
    return entry.get("options", {}) | slowdown


def number(entry: Entry, key: str, form: str) -> str:
    return format(entry[key], form) if entry.get(key) is not None else ""

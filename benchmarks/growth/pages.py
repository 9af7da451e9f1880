"""What was measured, as Markdown and as a picture."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

Entry = dict[str, Any]
QUICK = "**A quick run: it shows that everything works; its numbers mean nothing.**"
LABELS = {"rows": "V, rows", "columns": "d, columns", "k": "k, neighbors", "threads": "threads"}


def markdown(record: Entry) -> str:
    """Return the page: exponents, predictions, and all points."""
    lines = [
        "# How the cost of the kernels grows",
        "",
        f"{record['threads']} threads of {record['cores']} cores of {record['processor']}, embgeom "
        f"{record['versions'].get('embgeom')}, {record['date']}. One number is varied at a time, around a "
        f"base of {record['rows']:,} rows and {record['columns']} columns; times of `lle` and "
        "`intrinsic_dimension` are a token's share. An exponent b says that time grows as the number to "
        "the power b; *upper half* fits only the larger half of the values. The base is timed once for each "
        "number varied: how far those seconds differ (see *All points*) is how far to trust the others.",
        "",
        *([QUICK, ""] if record["quick"] else []),
        "| kernel | multiply-adds | number | from | to | exponent | upper half |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kernel in record["kernels"].items():
        lines += [exponent_row(name, kernel["formula"], *item) for item in kernel["axes"].items()]
    lines += ["", "## Predictions", "", f"{record['prediction']}.", ""]
    lines += [
        "| kernel | model | k | multiply-adds | rate, a second | predicted |",
        "|---|---|---|---|---|---|",
    ]
    for name, kernel in record["kernels"].items():
        lines += [prediction_row(name, entry) for entry in kernel["predictions"]]
    lines += ["", "## All points", "", "| kernel | V | d | k | threads | tokens | seconds |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name, kernel in record["kernels"].items():
        for axis in kernel["axes"].values():
            lines += [point_row(name, point) for point in axis["points"]]
    return "\n".join(lines) + "\n"


def exponent_row(name: str, formula: str, axis: str, entry: Entry) -> str:
    fits = [f"{b:.2f}" if b is not None else "" for b in entry["exponent"].values()]
    points = entry["points"]
    ends = f"{points[0][axis]:,} | {points[-1][axis]:,}"
    return f"| {name} | {formula} | {LABELS[axis]} | {ends} | {' | '.join(fits)} |"


def prediction_row(name: str, entry: Entry) -> str:
    k = "" if name == "global_similarity" else entry["k"]
    work = f"{entry['work']:.2e} | {entry['rate']:.2e}"
    return f"| {name} | {entry['model']} | {k} | {work} | {duration(entry['seconds'])} |"


def point_row(name: str, point: Entry) -> str:
    sizes = " | ".join(f"{point[key]:,}" for key in ("rows", "columns", "k", "threads", "tokens"))
    return f"| {name} | {sizes} | {point['seconds']:.3g} |"


def duration(seconds: float) -> str:
    """Write seconds in the unit that people would use."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.2g} s"


def picture(record: Entry) -> str:
    """Return an SVG with one panel for each kernel and number, logarithmic, with fitted lines."""
    import matplotlib

    matplotlib.use("Agg")
    # Names inside the file are random and the date changes, unless told not to be.
    matplotlib.rcParams["svg.hashsalt"] = "embgeom"
    from matplotlib import pyplot

    kernels = record["kernels"]
    figure, panels = pyplot.subplots(
        len(kernels), len(LABELS), figsize=(3 * len(LABELS), 2.6 * len(kernels)), squeeze=False
    )
    for row, (name, kernel) in zip(panels, kernels.items(), strict=True):
        for panel, axis in zip(row, LABELS, strict=True):
            if axis in kernel["axes"]:
                draw_panel(panel, axis, kernel["axes"][axis])
            else:
                panel.axis("off")
        row[0].set_ylabel(f"{name}\nseconds{' a token' if kernel['per_token'] else ''}")
    figure.tight_layout()
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return drawn.getvalue()


def draw_panel(panel: Any, axis: str, entry: Entry) -> None:
    values = np.array([point[axis] for point in entry["points"]], dtype=float)
    seconds = np.array([point["seconds"] for point in entry["points"]])
    slope = entry["exponent"]["all"]
    if slope is not None:
        # A least-squares line passes through the mean of the logarithms.
        center = np.log(values).mean(), np.log(seconds).mean()
        panel.plot(values, np.exp(center[1] + slope * (np.log(values) - center[0])), color="0.7")
        panel.set_title(f"exponent {slope:.2f}", fontsize=9)
    panel.plot(values, seconds, "o", markersize=4)
    panel.set(xscale="log", yscale="log", xlabel=LABELS[axis])
    # Ends and middle say enough; the marks that logarithmic axes choose would overlap.
    shown = sorted({values[0], values[len(values) // 2], values[-1]})
    panel.set_xticks(shown, [f"{value:,.0f}" for value in shown])
    panel.set_xticks([], minor=True)

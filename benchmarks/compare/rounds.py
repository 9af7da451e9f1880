"""All measurements of a case: first the options, then alternating rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.compare.child import ChildFailed, Job, run_in_child
from benchmarks.compare.contender import REFERENCE, Case, Contender
from benchmarks.compare.problem import Size
from benchmarks.compare.record import revision, today

Say = Callable[[str], None]
Entry = dict[str, Any]


def measure_case(case: Case, size: Size, rounds: int, say: Say, earlier: Entry, only: Sequence[str]) -> Entry:
    """Measure the contenders of a case, or `only` some, and return the case's entry of the record.

    Rounds alternate: whatever disturbs the machine for a while disturbs all contenders, not one of them.
    Contenders that are not measured keep their `earlier` entries.
    """
    begin = time.monotonic()
    entries: dict[str, Entry] = dict(earlier)
    jobs: dict[str, Job] = {}
    chosen = [contender for contender in case.contenders if not only or contender.name in only]
    for contender in chosen:
        entries[contender.name] = {"status": "measured" if contender.installed else "not installed"}
        if contender.installed:
            jobs[contender.name] = Job(case.name, contender.name, size)
            if contender.options:
                jobs[contender.name] = tuned(jobs[contender.name], contender, entries[contender.name], say)
    for number in range(rounds):
        for contender in chosen:
            entry = entries[contender.name]
            if entry["status"] != "measured" or (contender.slow and number):
                continue
            job = jobs[contender.name]
            job = Job(job.case, job.contender, size, job.options, check=not number or contender.is_reference)
            for result in attempt([job], contender, entry):
                say(f"round {number + 1}: {contender.name}: {shown(case, result)}")
                add(entry, result)
    ordered = {c.name: entries[c.name] for c in case.contenders if c.name in entries}
    return summarized(case, ordered) | {"took": round(time.monotonic() - begin)}


def measure_quickly(cases: Sequence[Case], size: Size, say: Say) -> dict[str, Entry]:
    """Measure many cases once, with one process for each library instead of each measurement.

    Times of such a run mean little; it shows that everything works, and checks every answer.
    """
    entries = {case.name: {c.name: {"status": "not installed"} for c in case.contenders} for case in cases}
    libraries = dict.fromkeys(c.library for case in cases for c in case.contenders if c.installed)
    for library in libraries:
        chosen = [(case, c) for case in cases for c in case.contenders if c.library == library]
        jobs = [Job(case.name, c.name, size, (c.options or ({},))[0]) for case, c in chosen]
        say(f"{library}: {len(jobs)} measurements")
        for (case, contender), result in zip(chosen, run_in_child(jobs), strict=True):
            entry = entries[case.name][contender.name]
            entry["status"] = "measured"
            entry["options"] = (contender.options or ({},))[0]
            add(entry, result)
    return {case.name: summarized(case, entries[case.name]) for case in cases}


def tuned(job: Job, contender: Contender, entry: Entry, say: Say) -> Job:
    """Look for the contender's fastest options, and return the job with them."""
    tuning = Job(job.case, job.contender, job.size, tune=True)
    for result in attempt([tuning], contender, entry):
        entry["options"] = result["options"]
        say(f"{contender.name}: fastest of {result['tried']} settings: {result['options']}")
        return Job(job.case, job.contender, job.size, result["options"])
    return job


def attempt(jobs: list[Job], contender: Contender, entry: Entry) -> Iterator[Entry]:
    """Give the results of the jobs, or none: a peer that fails is reported, and the others go on."""
    try:
        yield from run_in_child(jobs)
    except ChildFailed as failure:
        if contender.is_reference:
            raise
        entry["status"] = f"failed: {failure}"


def add(entry: Entry, result: Entry) -> None:
    """Put the result of one more round into a contender's entry."""
    entry.setdefault("seconds", []).append(result.pop("seconds"))
    peak = result.pop("peak_mb")
    if peak is not None:
        entry["peak_mb"] = max(peak, entry.get("peak_mb", 0.0))
    entry |= {key: value for key, value in result.items() if value is not None}
    entry |= {"date": today(), "revision": revision()}


def summarized(case: Case, entries: dict[str, Entry]) -> Entry:
    """Add medians, and their ratios to embgeom's, to the entries of a case."""
    for entry in entries.values():
        if "seconds" in entry:
            entry["median"] = statistics.median(entry["seconds"])
    own = entries.get(REFERENCE, {}).get("median")
    for contender in case.contenders:
        entry, alone = entries.get(contender.name, {}), entries.get(contender.alone or "", {})
        if own and "median" in entry:
            entry["times_embgeom"] = entry["median"] / own
        if "median" in entry and "median" in alone:
            entry["slowdown"] = entry["median"] / alone["median"]
    name, factor = case.unit
    return {
        "measure": case.measure,
        "unit": {"name": name, "per_second": factor, "of": "token" if case.per_token else "call"},
        "contenders": entries,
    }


def shown(case: Case, result: Entry) -> str:
    """Write one result as a line of progress."""
    name, factor = case.unit
    answer = "".join(f", {key} {result[key]:.3g}" for key in ("error", "recall") if key in result)
    return f"{result['seconds'] * factor:.4g} {name}{answer}"

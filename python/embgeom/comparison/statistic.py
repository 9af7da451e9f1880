"""One number on what two models share, with its interval and its nulls; and tables of such."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embgeom._common.tables import Block, Table, plus_minus
from embgeom.comparison.curves import Curve
from embgeom.comparison.nulls import Baseline, Estimate, Interval


@dataclass(frozen=True, repr=False)
class Statistic:
    """One number on what two models share, how sure it is, and its null baselines.

    Attributes
    ----------
    name : str
        The measure, in ``comparison[name]``, tables and files.
    label, meaning : str
        How figures call it, and what it is.
    estimate : Estimate
        Its value with a 95 % interval over tokens, and its mean and standard deviation if the tokens of the
        second model are relabeled at random: all of them, and only within strata of like tokens.
    p_adjusted : float
        Its p-value after Holm's correction over all measures of the comparison.
    without : dict of str to Estimate
        Its value on other sets of tokens, where that differs by more than the interval, such as
        ``"with all"`` or ``"without byte"``. Neighbors there are found after subtracting the mean of the
        tokens that count, not that of the set; dimensions are not measured with all tokens.
    """

    name: str
    label: str
    meaning: str
    estimate: Estimate
    p_adjusted: float
    without: dict[str, Estimate]

    def __repr__(self) -> str:
        return (
            f"Statistic({self.name} {self.estimate.text()}, null {null_text(self.null)}, "
            f"z {short_z(self.z)}, p {short_p(self.p_adjusted)})"
        )

    @property
    def value(self) -> float:
        """The measure of the two models as they are."""
        return self.estimate.value

    @property
    def interval(self) -> Interval:
        """Its 95 % interval over tokens."""
        return self.estimate.interval

    @property
    def null(self) -> Baseline:
        """Its mean and standard deviation if all tokens are relabeled at random."""
        return self.estimate.null

    @property
    def stratified(self) -> Baseline | None:
        """The same if tokens are exchanged only within strata of class, row number and length."""
        return self.estimate.stratified

    @property
    def z(self) -> float:
        """How many of the null's standard deviations the value lies from its mean."""
        return self.estimate.z

    @property
    def is_above_null(self) -> bool:
        """Whether the value is above the null's mean: its adjusted p-value is below 0.05, its interval above.

        The null takes tokens as exchangeable; an interval may allow for tokens that depend on one another.
        """
        below = self.interval.low <= self.null.mean
        return self.p_adjusted < SIGNIFICANCE and self.value > self.null.mean and not below

    @property
    def is_above_strata(self) -> bool:
        """Whether the value is more than two standard deviations above the mean of the null in strata."""
        return self.estimate.z_stratified > 2.0

    @property
    def share_of_strata(self) -> float:
        """Which share of what is above the null's mean the null in strata has; NaN where nothing is."""
        above = self.value - self.null.mean
        if self.stratified is None or not above > 0.0:
            return math.nan
        return max((self.stratified.mean - self.null.mean) / above, 0.0)

    def cells(self) -> tuple[str, ...]:
        """Return it as a row under `STATISTIC`."""
        within = self.stratified
        return (
            self.name,
            self.estimate.text(),
            null_text(self.null),
            short_z(self.z),
            short_p(self.p_adjusted),
            "" if within is None else null_text(within),
            "" if within is None else short_z(self.estimate.z_stratified),
        )

    def record(self, estimate: Estimate | None = None) -> dict[str, Any]:
        """Return names and numbers as JSON and CSV have them, or those of another set of tokens."""
        found, adjusted = (self.estimate, self.p_adjusted) if estimate is None else (estimate, np.nan)
        return {"measure": self.name, **found.to_dict(), "p_adjusted": adjusted}


SIGNIFICANCE = 0.05
STATISTIC = ("measure", "value ± 95 %", "null ± sd", "z", "p", "null in strata", "its z")
GROUP = ("tokens", "count", "neighbor_overlap ± 95 %", "none shared", "weight_cosine ± 95 %")
CURVE = ("measure", "at", "value ± 95 %", "null ± sd", "z")
FREQUENCY = "frequency, by row number"
TENTHS = "tenth 1 has the lowest row numbers in A: in most vocabularies these are the most frequent tokens"
NONE_SHARED = "none shared: how many of these tokens have no neighbor in common"
READING = (
    "value: ± half of its 95 % interval over tokens.",
    "null: mean ± standard deviation (sd) with the tokens of one model relabeled at random; in strata: only "
    "among tokens of one class, length and similar frequency.",
    "z: how many sd of its null the value lies above the mean. p: two-sided, of the first z, corrected for "
    "{measures} (Holm). its z: the same by the null in strata.",
)


@dataclass(frozen=True)
class TokenGroup:
    """How far the shared tokens of one class, or of one tenth by row number, agree.

    Attributes
    ----------
    kind, name : str
        What tokens are grouped by, and which group this is.
    tokens : int
        How many of the shared tokens it has.
    neighbor_overlap, weight_cosine : float
        Means over them.
    overlap_half_width, cosine_half_width : float
        Of the 95 % intervals of these means.
    none_shared : float
        Share of them that have no neighbor in common.
    """

    kind: str
    name: str
    tokens: int
    neighbor_overlap: float
    overlap_half_width: float
    weight_cosine: float
    cosine_half_width: float
    none_shared: float

    def row(self) -> tuple[str | int, ...]:
        """Return it as a row under `GROUP`."""
        return (
            self.kind if self.kind == "all" else f"{self.kind}: {self.name}",
            self.tokens,
            plus_minus(self.neighbor_overlap, self.overlap_half_width),
            f"{self.none_shared:.0%}",
            plus_minus(self.weight_cosine, self.cosine_half_width),
        )


def chance_of_common(n: int, k: int) -> npt.NDArray[np.float64]:
    """Return how probable 0 to k common neighbors of a token are if the tokens are relabeled at random."""
    # Hypergeometric, by the ratios of its terms; logarithms, as terms of large n underflow.
    common = np.arange(k)
    ratios = np.log((k - common) ** 2) - np.log((common + 1) * np.maximum(n - 2 * k + common, 1e-300))
    logs = np.concatenate(([0.0], np.cumsum(ratios)))
    terms = np.exp(logs - logs.max())
    probabilities: npt.NDArray[np.float64] = terms / terms.sum()
    return probabilities


def statistics_tables(statistics: Sequence[Statistic], n: int) -> Iterator[Block]:
    """Yield what the statistics say, their table with nulls, and how to read it."""
    yield conclusion(statistics)
    yield ""
    yield Table(f"what {n} shared tokens have in common", STATISTIC, (s.cells() for s in statistics))
    tested = sum(not math.isnan(s.p_adjusted) for s in statistics)
    yield from (line.format(measures=f"{tested} measures") for line in READING)
    yield from (f"warning: {note}" for note in interval_notes(statistics))


def interval_notes(statistics: Sequence[Statistic]) -> Iterator[str]:
    """Yield where a measure has no interval, as few long rows make most of it, or one that is too narrow."""
    for s in statistics:
        if s.estimate.few_rows:
            yield (
                f"few long rows make most of {s.name} (effective sample size {s.estimate.effective_n:.0f} of "
                f"{s.estimate.n}): its p counts {s.null.draws} relabelings, and it has no valid 95 % interval"
            )
    few = [s for s in statistics if s.estimate.few_neighborhoods]
    if few:
        times = few[0].estimate.neighborhoods or 0.0
        # Below eight times, none was measured.
        least = "as few as 90 %" if times >= 8.0 else "fewer than 90 %"
        yield (
            f"there are only {times:.0f} times as many tokens as neighbors of each: intervals of "
            f"{' and '.join(s.name for s in few)} may cover the true value in {least} of cases"
        )


def conclusion(statistics: Sequence[Statistic]) -> str:
    """Return what the numbers of two models mean, in sentences."""
    tested = [s for s in statistics if not math.isnan(s.p_adjusted)]
    above = [s for s in tested if s.is_above_null]
    if not above:
        return f"In short: no measure is significantly above its null (p < {SIGNIFICANCE})."
    others = ", ".join(s.name for s in tested if not s.is_above_null)
    count = f"{len(above)} of {len(tested)} measures are" if others else f"all {len(tested)} measures are"
    said = [f"In short: {count} significantly above their null (p < {SIGNIFICANCE})"]
    said[0] += f", but not {others}." if others else "."
    shares = sorted((s.share_of_strata, s.name) for s in above if not math.isnan(s.share_of_strata))
    if shares:
        (least, low), (most, high) = shares[0], shares[-1]
        from_to = f"{least:.0%} ({low}) to {most:.0%} ({high})" if len(shares) > 1 else f"{most:.0%}"
        said.append(
            f"Class, length and frequency of tokens alone account for {from_to} of the excess over the null."
        )
    if level := ", ".join(s.name for s in above if s.stratified is not None and not s.is_above_strata):
        said.append(f"Not above the null in strata (z at most 2): {level}.")
    return " ".join((*said, "Significant is not large: with many tokens, read the value."))


def measures_table(statistics: Sequence[Statistic]) -> Table:
    """Return the table of what the measures are."""
    return Table(
        "what the measures are", ("measure", "what it is"), ((s.name, s.meaning) for s in statistics)
    )


def other_sets_table(statistics: Sequence[Statistic]) -> Iterator[Block]:
    """Yield the values on other sets of tokens, where some differ."""
    sets = list(dict.fromkeys(name for s in statistics for name in s.without))
    if sets:
        rows = (
            (s.name, s.estimate.text(), *(s.without[n].text() if n in s.without else "" for n in sets))
            for s in statistics
            if s.without
        )
        yield Table("where other sets of tokens give another value", ("measure", "value ± 95 %", *sets), rows)
        dimensions = [s.name for s in statistics if s.name.startswith("dimension") and "with all" in sets]
        panel = [s.name for s in statistics if s.name in ("cka", "rsa", "procrustes")]
        unknown = [f"{', '.join(dimensions)} with all tokens"] * bool(dimensions) + panel
        if unknown:
            yield f"not measured on other sets: {', '.join(unknown)}"
        yield "neighbors there: after subtracting the mean of the tokens that count, if rows are centered"


def curves_table(curves: Sequence[Curve]) -> Iterator[Block]:
    """Yield the table of measures over a parameter, if there are any."""
    if curves:
        yield Table("measures over the number of neighbors", CURVE, curve_rows(curves))


def curve_rows(curves: Sequence[Curve]) -> Iterator[tuple[str, ...]]:
    """Yield the points of curves as rows under `CURVE`."""
    for curve in curves:
        for at, estimate in zip(curve.at, curve.estimates, strict=True):
            numbers = estimate.text(), null_text(estimate.null), short_z(estimate.z)
            yield curve.name, f"{curve.over} = {at:g}", *numbers


def groups_table(groups: Sequence[TokenGroup]) -> Iterator[Block]:
    """Yield the table of which tokens agree, and what its last rows are."""
    yield Table(
        "which tokens agree? means over the tokens of a kind", GROUP, (group.row() for group in groups)
    )
    yield NONE_SHARED
    if any(group.kind == FREQUENCY for group in groups):
        yield TENTHS


def defined_mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN, NaN where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan


def rounded(value: float, spread: float, digits: int = 2) -> str:
    """Return ``value ± spread``, to so many significant digits of the spread."""
    if math.isnan(value):
        return "undefined"
    if not spread > 0.0:
        return f"{value:.3f}"
    decimals = min(max(digits - 1 - math.floor(math.log10(spread)), 0), 9)
    # A mean of 0 needs no digits.
    middle = f"{value:.{decimals}f}" if abs(value) > spread / 10 else "0"
    return f"{middle} ± {spread:.{decimals}f}"


def null_text(null: Baseline) -> str:
    """Return a null's mean ± standard deviation."""
    return rounded(null.mean, null.sd, digits=1)


def short_z(z: float) -> str:
    return "undefined" if math.isnan(z) else f"{z:.{1 if abs(z) < 10 else 0}f}"


def short_p(p: float) -> str:
    """Return a p-value in two digits; those at their floor, also after Holm's correction, as a bound."""
    if math.isnan(p):
        return "undefined"
    return "<1e-12" if p < 1e-12 else f"{p:.2g}"

"""Who is measured, and the question that all are asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.compare.problem import Problem, Size

# What stands for "the OpenBLAS inside embgeom" among the names of libraries.
EMBEDDED_BLAS = "embgeom's OpenBLAS"
REFERENCE = "embgeom"

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timed:
    """The answer of a contender that knows better than the clock around it how long it took.

    `parts` are the seconds of its steps, where they are of interest; `scaled` says that some of them were
    timed on a sample of tokens.
    """

    seconds: float
    answer: Any = None
    cpu_seconds: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    scaled: bool = False


def as_it_is(_: Problem, answer: Any) -> Any:
    """Leave the answer alone."""
    return answer


@dataclass(frozen=True)
class Contender:
    """One way to compute something.

    Attributes
    ----------
    name : str
        What the tables call it.
    library : str
        The module that must be there.
    prepare : callable
        ``prepare(problem, **options)`` imports, normalizes, builds an index, and returns the call that is
        timed. What is prepared is not timed, in favor of the others: embgeom does all its work in the call.
    finish : callable
        ``finish(problem, answer)`` turns the answer into what the case checks; not timed either.
    options : tuple of dict
        Settings of which the fastest is looked for, on a part of the problem, before the first round.
    slow : bool
        Whether one round must do.
    limit : int, optional
        How many tokens at most it is asked about; its time counts for each token, or is scaled to all.
    alone : str, optional
        The contender that does the same undisturbed: the ratio of the two is reported as a slowdown.
    """

    name: str
    library: str
    prepare: Callable[..., Call]
    finish: Callable[[Problem, Any], Any] = as_it_is
    options: tuple[dict[str, Any], ...] = ()
    slow: bool = False
    limit: int | None = None
    alone: str | None = None

    @property
    def is_reference(self) -> bool:
        """Whether the others are compared with it, and its answers must be exact."""
        return self.name == REFERENCE

    @cached_property
    def installed(self) -> bool:
        """Whether its library is there, found without importing it."""
        if self.library == EMBEDDED_BLAS:
            from benchmarks.compare.blas import library_path

            return library_path() is not None
        return importlib.util.find_spec(self.library) is not None


@dataclass(frozen=True)
class Case:
    """One question to several contenders.

    Attributes
    ----------
    measure, name : str
        The family that --only selects, and the case itself.
    build : callable
        ``build(size, limit)`` makes the problem, about at most `limit` tokens.
    check : callable
        ``check(problem, answer, exact)`` returns error and recall, and with `exact` asserts that they are
        no larger than rounding makes them.
    unit : tuple of (str, float)
        What the table shows times in, and how many of it make a second.
    per_token : bool
        Whether times are divided by the number of tokens.
    tuning_limit : int
        How many tokens the search for the best options asks about.
    """

    measure: str
    name: str
    build: Callable[[Size, int | None], Problem]
    check: Callable[[Problem, Any, bool], dict[str, float]]
    contenders: tuple[Contender, ...]
    unit: tuple[str, float] = ("s", 1.0)
    per_token: bool = False
    tuning_limit: int = 8192

    def contender(self, name: str) -> Contender:
        """Return the contender of this name."""
        return next(contender for contender in self.contenders if contender.name == name)


def no_check(problem: Problem, answer: Any, exact: bool) -> dict[str, float]:
    """Check nothing: where there is only a time."""
    return {}


def smaller(*limits: int | None) -> int | None:
    """Return the smallest of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)

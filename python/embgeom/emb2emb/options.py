"""What a user may choose about a fit, and which method uses what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from embgeom._common.checks import check_seed, flag, real_number, whole_number
from embgeom.emb2emb.neighbors import check_reg
from embgeom.emb2emb.solve import Method
from embgeom.errors import InputError

# Which methods use an option that not all of them use, and what it is for these where nothing is said.
_USERS: dict[str, tuple[str, ...]] = {
    "ridge": ("ridge", "low_rank"),
    "rank": ("low_rank",),
    "scaled": ("procrustes",),
    "k": ("lle",),
    "reg": ("lle",),
}
_DEFAULTS: dict[str, Any] = {"scaled": True, "k": 20, "reg": 1e-3}


@dataclass(frozen=True)
class Options:
    """What a user chose, as `embgeom.emb2emb.fitting.fit` explains it."""

    method: Method
    center: bool
    normalize: bool
    ridge: float | None
    rank: int | None
    scaled: bool | None
    k: int | None
    reg: float | None
    held_out: float
    shuffle: bool
    seed: int

    def checked(self) -> Options:
        """Return the options as plain numbers, which a file can hold, with the defaults of the method.

        Raises
        ------
        InputError
            If a value is out of its range, or the method does not use an option that was given.
        """
        if not isinstance(self.method, str) or self.method not in get_args(Method):
            raise InputError(f"method = {self.method!r} is unknown: use one of {', '.join(get_args(Method))}")
        chosen = self._with_defaults()
        return replace(
            chosen,
            center=flag(chosen.center, "center"),
            normalize=flag(chosen.normalize, "normalize"),
            ridge=None if chosen.ridge is None else _checked_ridge(chosen.ridge),
            rank=None if chosen.rank is None else whole_number(chosen.rank, "rank", 1),
            scaled=None if chosen.scaled is None else flag(chosen.scaled, "scaled"),
            k=None if chosen.k is None else whole_number(chosen.k, "k", 1),
            reg=None if chosen.reg is None else check_reg(chosen.reg),
            held_out=real_number(chosen.held_out, "held_out"),
            shuffle=flag(chosen.shuffle, "shuffle"),
            seed=check_seed(chosen.seed),
        )

    def _with_defaults(self) -> Options:
        """Fill in what the method uses, and refuse what it would ignore."""
        defaults: dict[str, Any] = {}
        for name, users in _USERS.items():
            value = getattr(self, name)
            if value is None and self.method in users:
                defaults[name] = _DEFAULTS.get(name)
            if value is not None and self.method not in users:
                raise InputError(
                    f"{name} = {value!r} is given, but method {self.method!r} does not use it: leave it "
                    f"out, or take method {' or '.join(map(repr, users))}, which does"
                )
        return replace(self, **defaults)


def _checked_ridge(value: object) -> float:
    ridge = real_number(value, "ridge")
    if not 0 < ridge < np.inf:
        raise InputError(f"ridge = {ridge} must be above 0 and finite; method='least_squares' has none")
    return ridge

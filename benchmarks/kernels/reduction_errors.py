"""Errors of the float32 reduction to tridiagonal form, as shares of the budget of spectrum.cpp.

    python -m benchmarks.kernels.reduction_errors --orders 64 256 768 1200 2000

For each order p and each kind of spectrum, a Gram matrix C (p, p) in float32 is reduced to T by
`tridiagonal_form`, and by LAPACK's ssytrd (from SciPy; rows in ascending order of the diagonal). Prints for
both, over all c at which float32 may decide, the largest

    |S_c(T) / tr T - S_c(C) / tr C| tr C  /  (budget of c + drift)

with S_c the sum of the c largest eigenvalues, by LAPACK in float64, and the spectrum and c where it was.
Columns of falling variance come in this order, in the opposite one, and mixed by a cosine transform.
"""

from __future__ import annotations

import argparse

import numpy as np

UNIT_ROUNDOFF = 2.0**-24

SCALES = {f"i^-{power}": lambda i, power=power: i ** (-power / 2) for power in (0, 1, 2, 4, 8)}
SCALES |= {
    "exp(-i / 30)": lambda i: np.exp(-i / 60),
    "one spike": lambda i: np.where(i == 5, 1e3, 1.0),
    "rank p / 8": lambda i: (i <= len(i) / 8) * 1.0,
}
ORIENTATIONS = ("falling", "rising", "mixed")


def gram(p, kind, orientation, seed=0):
    """Return C (p, p) in float32, made of 2 p points."""
    from scipy.fft import dct

    rng = np.random.default_rng([p, seed])
    if kind == "zeros and ones":
        z = (rng.random((2 * p, p)) < 0.05) * 1.0
    else:
        z = rng.standard_normal((2 * p, p)) * SCALES.get(kind, np.ones_like)(np.arange(1.0, p + 1))
    z -= z.mean(axis=0)
    if kind == "far cluster":
        z[:, : p // 8] += 1e3 * rng.standard_normal((2 * p, 1))
        z -= z.mean(axis=0)
    if orientation == "rising":
        z = z[:, ::-1]
    if orientation == "mixed":
        z = dct(z * rng.choice([-1, 1], p), norm="ortho")
    z /= np.abs(z).max()
    return (z.T @ z).astype(np.float32)


def budget(eigenvalues, norm):
    """Return what Spectrum::share_error allows the reduction, times the trace, for c = 1 ... p - 1."""
    p, unit = len(eigenvalues), UNIT_ROUNDOFF * norm
    c = np.arange(1, p)
    spread = np.sqrt(c * (p - c) / p)
    return (np.where(eigenvalues[:-1] >= 64 * unit, 3, 24) * spread + 24) * max(1, p / 1500) * unit


def use(c, diagonal, off_diagonal, exact):
    """Return the largest share of the budget that a T uses, and the number of components where it does."""
    from scipy.linalg import eigvalsh_tridiagonal

    diagonal, off_diagonal, c = (each.astype(float) for each in (diagonal, off_diagonal, c))
    norm = np.linalg.norm(c)
    drift = abs(diagonal.sum() - np.trace(c))
    drift += abs((diagonal**2).sum() + 2 * (off_diagonal**2).sum() - norm**2) / (2 * norm)
    t = eigvalsh_tridiagonal(diagonal, off_diagonal)[::-1]
    sums, true = np.cumsum(t) / t.sum(), np.cumsum(exact) / exact.sum()
    shares = np.abs(sums - true)[:-1] * exact.sum() / (budget(t, norm) + drift)
    # Float64 decides all thresholds that are nearer to 1.
    shares[np.append(0, true)[: len(shares)] >= 1 - 6 * UNIT_ROUNDOFF] = 0
    return shares.max(), int(shares.argmax()) + 1


def main() -> None:
    from scipy.linalg import eigvalsh
    from scipy.linalg.lapack import ssytrd, ssytrd_lwork

    from embgeom._common.native import core

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--orders", type=int, nargs="+", default=[64, 256, 768, 1200, 2000])
    parser.add_argument(
        "--kinds", nargs="+", default=[*SCALES, "far cluster", "zeros and ones"], help="kinds of spectra"
    )
    options = parser.parse_args()
    print(f"{core.instruction_set()}\n\n| p | embgeom | where | ssytrd | where |\n|---|---|---|---|---|")
    for p in options.orders:
        worst = {"embgeom": (0.0, ""), "ssytrd": (0.0, "")}
        for kind in options.kinds:
            for orientation in (
                ORIENTATIONS
                if kind in ("one spike", "far cluster", "rank p / 8", "i^-2", "i^-4", "i^-8")
                else ("mixed",)
            ):
                c = gram(p, kind, orientation)
                exact = eigvalsh(c.astype(float))[::-1]
                order = np.argsort(np.diag(c))
                forms = {
                    "embgeom": core.tridiagonal_form(c),
                    "ssytrd": ssytrd(
                        c[np.ix_(order, order)], lower=0, lwork=int(ssytrd_lwork(p, lower=0)[0])
                    )[1:3],
                }
                for name, form in forms.items():
                    share, components = use(c, *form, exact)
                    worst[name] = max(worst[name], (share, f"{kind} {orientation}, c = {components}"))
        cells = [f"{share:.3f} | {where}" for share, where in worst.values()]
        print(f"| {p} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

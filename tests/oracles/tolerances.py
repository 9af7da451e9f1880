"""How far a kernel may be from its oracle: one rule for each family of numbers, each with its reason.

Nothing here is fitted to a kernel. Kernel and oracle both work in float64 on the same float32 matrix and
differ in the order of their sums; the kernel then rounds its answer to float32 once. The exceptions work in
float32 and say so.
"""

import numpy as np

EPS64 = float(np.finfo(np.float64).eps)
EPS32 = float(np.finfo(np.float32).eps)
SUBNORMAL32 = float(np.finfo(np.float32).smallest_subnormal)

# One rounding to float32 is half an ulp (eps / 2 relative), or half the smallest subnormal near zero. The
# factor above one half leaves room for the second-order term alone, not for a second rounding.
ROUND32 = 0.5 * EPS32 * (1 + 1e-6)

# Shares of variance are sums of at most a few thousand float64 terms, each right to a few eps: 1e-12 is some
# 4,500 eps. Only where the oracle's cumulative share is this near to the threshold may the integers differ.
SHARE_MARGIN = 1e-12

# A participation ratio whose integer float32 found comes from the float32 elements of a Gram matrix. Each may
# be off by some units of 2^-24, which mostly cancels in the sum of their squares.
PARTICIPATION_RTOL = 2e-6

# A linear system with a larger condition number does not determine its weights to float32 accuracy with
# anything to spare; there the residual is compared, never the weights.
WELL_CONDITIONED = 1e8

# Where the bound on a correlation's error exceeds this, the correlation is not determined by float64 data.
UNDETERMINED_CORRELATION = 1e-6


def rounded(value):
    """Room for one rounding to float32 of a float64 value."""
    return ROUND32 * np.abs(value) + 0.5 * SUBNORMAL32


def dot_slack(d):
    """Relative error of a float64 dot product of d terms, as a multiple of |x||y|.

    Any order of summation errs by at most d eps / 2 times the sum of the terms' magnitudes, which Cauchy and
    Schwarz bound by |x||y|; a cosine holds two more such sums, a product, a root and a division. Oracle and
    kernel may each err so: 2 (d + 4) eps covers both.
    """
    return 2 * (d + 4) * EPS64


def norm_rtol(d):
    """Norms: a float64 sum of d squares has no cancellation, and the root halves its relative error."""
    return (d + 4) * EPS64


def share_atol(order, participation):
    """Explained shares: the error of a float32 Gram matrix C of this order and of its Householder reduction.

    The reduction gives the eigenvalues of C + E with |E|_F <= c u |C|_F, u = 2^-24. A sum of the largest
    moves by at most the trace norm of E, sqrt(order) |E|_F; |C|_F / tr(C) is 1 / sqrt(participation). With
    c = 16 that is ten times what the worst spectra show; the last term is for the elements of C.
    """
    return 16 * EPS32 / 2 * (np.sqrt(order / participation) + 1)


def weight_atol(weights, condition):
    """LLE weights: one rounding to float32, and the solve's backward error amplified by the condition number.

    A backward stable solve errs by a modest multiple of k eps cond(G + reg) relative to the largest weight,
    and so does the sum that divides, which is a quadratic form of the same matrix.
    """
    k = weights.shape[-1]
    solve = 16 * (k + 4) * EPS64 * condition * np.abs(weights).max()
    return rounded(weights) + solve


def residual_atol(residual, weights, condition, spread, size):
    """LLE residuals: the weights' float64 error times the differences they multiply, and one rounding.

    `spread` is the longest difference x_i - x_j, `size` the longest row: a kernel may subtract sum w_j x_j
    from x_i (errs by eps size) or add up w_j (x_i - x_j) (does not). Either way the weights are the float64
    ones: with weights rounded to float32, the residual of a token reconstructed exactly would be noise.
    """
    k = weights.shape[-1]
    mass = np.abs(weights).sum()
    return rounded(residual) + 16 * (k + 4) * EPS64 * mass * (condition * spread + size)


def weight_sum_atol(weights):
    """Sum of the float32 weights: each was rounded once, nothing else moves the sum from 1."""
    return rounded(weights).sum() + 16 * weights.shape[-1] * EPS64 * np.abs(weights).sum()


def correlation_atol(n, width, shape_a, shape_b, loss):
    """Correlations: moments of n^2 cosines, with what a shared direction takes from each cosine.

    A cosine errs by (n + width) eps relative to the root mean square of all cosines, the mean included; the
    correlation by that over their standard deviation: `shape` is mean square / variance. `loss` is what
    centering canceled: longest row before it over shortest row after it (1 without centering).
    """
    return 8 * (n + width) * EPS64 * (shape_a**0.5 + shape_b**0.5) * loss


def float32_products_atol(n, widths):
    """Correlations of many rows (4096, and twice the columns): products in float32 over 320 rows.

    A squared norm errs by a standard deviation of 2 u 320 / sqrt(3 n) (docs/numerics.md), numerator and
    denominator alike, and half of the variance may go with the diagonal: six standard deviations of both.
    """
    if n < 4096 or n < 2 * max(widths):
        return 0.0
    return 6 * 2 * 2 * 0.5 * EPS32 * 320 / (3 * n) ** 0.5

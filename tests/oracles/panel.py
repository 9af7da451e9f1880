"""CKA, RSA and Procrustes similarity with every matrix of pairs written out."""

import numpy as np


def centered(x):
    x = np.asarray(x, np.float64)
    return x - x.mean(axis=0)


def unbiased_hsic(k, m):
    """The unbiased HSIC of two kernel matrices, equation 5 of Song et al. (2012)."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    ones = np.ones(n)
    traced = np.trace(k @ m)
    means = (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
    crossed = 2 / (n - 2) * (ones @ k @ m @ ones)
    return (traced + means - crossed) / (n * (n - 3))


def u_centered(k):
    """The U-centered matrix of Székely and Rizzo: no diagonal, and rows that sum to 0."""
    n = len(k)
    k = k - np.diag(np.diag(k))
    rows, columns, total = k.sum(axis=1)[:, None], k.sum(axis=0)[None, :], k.sum()
    found = k - rows / (n - 2) - columns / (n - 2) + total / ((n - 1) * (n - 2))
    np.fill_diagonal(found, 0)
    return found


def cka(a, b):
    """Debiased linear CKA."""
    k, m = (x @ x.T for x in (np.asarray(a, np.float64), np.asarray(b, np.float64)))
    return unbiased_hsic(k, m) / np.sqrt(unbiased_hsic(k, k) * unbiased_hsic(m, m))


def cka_of_many(a, b):
    """The same from products of columns, as Song et al. (2012) reduce it for linear kernels."""
    a, b = centered(a), centered(b)
    n = len(a)

    def hsic(x, y):
        p, q = (np.sum(side**2, axis=1) for side in (x, y))
        return np.sum((x.T @ y) ** 2) - n / (n - 2) * (p @ q) + p.sum() * q.sum() / ((n - 1) * (n - 2))

    return hsic(a, b) / np.sqrt(hsic(a, a) * hsic(b, b))


def procrustes(a, b):
    """The best correlation of one centered matrix, rotated, with the other."""
    a, b = centered(a), centered(b)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return np.linalg.svd(a.T @ b, compute_uv=False).sum()


def pair_cosines(x, center=True):
    """The cosines of all pairs of rows, i < j."""
    x = centered(x) if center else np.asarray(x, np.float64)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    return (x @ x.T)[np.triu_indices(len(x), 1)]


def jackknife_error(measure, a, b):
    """The standard error of a measure from leaving out one row at a time."""
    n = len(a)
    kept = [np.delete(np.arange(n), i) for i in range(n)]
    values = np.array([measure(a[rows], b[rows]) for rows in kept])
    return np.sqrt((n - 1) / n * np.sum((values - values.mean()) ** 2))

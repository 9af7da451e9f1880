"""What chance gives, by relabeling the tokens: every permutation of few tokens, or many of more."""

import itertools

import numpy as np


def every_relabeling(strata):
    """All permutations that exchange tokens of one stratum only, shape (count, n)."""
    groups = [np.flatnonzero(strata == s) for s in np.unique(strata)]
    found = []
    for choice in itertools.product(*(itertools.permutations(g) for g in groups)):
        labels = np.empty(len(strata), int)
        for group, members in zip(groups, choice, strict=True):
            labels[group] = members
        found.append(labels)
    return np.array(found)


def random_relabelings(strata, count, rng):
    """`count` random permutations that exchange tokens of one stratum only."""
    found = np.empty((count, len(strata)), int)
    for s in np.unique(strata):
        group = np.flatnonzero(strata == s)
        found[:, group] = rng.permuted(np.tile(group, (count, 1)), axis=1)
    return found


def matrix_of(indices, values=None):
    """A list of neighbors as the matrix (n, n) that it stands for."""
    n = len(indices)
    matrix = np.zeros((n, n))
    for i, row in enumerate(np.asarray(indices)):
        for place, j in enumerate(row):
            if j >= 0:
                matrix[i, j] = 1.0 if values is None else values[i, place]
    return matrix


def agreements(a, b, relabelings):
    """The sum of a_ij b_kl over i != j for each relabeling, in which k and l are the labels of i and j."""
    a = a * ~np.eye(len(a), dtype=bool)
    relabelings = np.asarray(relabelings)
    pieces = np.array_split(relabelings, max(1, relabelings.size * len(a) // 10**6))
    return np.concatenate(
        [(b[piece[:, :, None], piece[:, None, :]] * a).sum(axis=(1, 2)) for piece in pieces]
    )


def cosines(x, center):
    """All cosines of the rows, minus their mean over the pairs of different rows."""
    x = np.asarray(x, np.float64)
    if center:
        x = x - x.mean(axis=0)
    x = x / np.linalg.norm(x, axis=1)[:, None]
    y = x @ x.T
    off = ~np.eye(len(x), dtype=bool)
    return y - y[off].mean()

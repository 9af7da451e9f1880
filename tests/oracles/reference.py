"""The slow and obvious versions: brute force in NumPy float64, the oracles of every kernel.

As in the kernels, a matrix is rounded to float32 once and all that follows is float64. Dot products of rows
do not go through BLAS: equal rows must give equal bits, and a matrix product does not promise that.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tests.oracles import tolerances as tol

# Status of a row of LLE, as embgeom.lle.LLEStatus has it.
OK, DUPLICATE, RANK_DEFICIENT, COINCIDENT, NO_NEIGHBORS, SINGULAR = range(6)


def as_float64(x):
    """Return the matrix that the kernels see: rounded to float32, then exact in float64."""
    return np.asarray(x).astype(np.float32).astype(np.float64)


def dots(a, b):
    """Dot products (len(a), len(b)), one row at a time."""
    return np.array([(b * row).sum(axis=1) for row in a]).reshape(len(a), len(b))


def squared_distances(a, b):
    """Squared Euclidean distances (len(a), len(b)), from differences: nothing cancels."""
    return np.array([((b - row) ** 2).sum(axis=1) for row in a]).reshape(len(a), len(b))


def row_stats(x):
    """Norm, first equal row and zero flag of every row."""
    x = as_float64(x)
    norms = np.sqrt((x * x).sum(axis=1))
    first_equal = np.array([next(j for j in range(i + 1) if (x[j] == x[i]).all()) for i in range(len(x))])
    return norms, first_equal, ~x.any(axis=1)


@dataclass(frozen=True)
class Ranking:
    """What every query thinks of every row: all (m, n) float64, NaN where the row is no candidate."""

    values: np.ndarray  # what orders the rows: cosine, inner product, negated squared distance
    slack: np.ndarray  # how far another float64 evaluation may be from `values`
    similarities: np.ndarray  # what is returned: `values`, for "euclidean" the negated distance
    similarity_slack: np.ndarray

    def top(self, k):
        """Row numbers (m, k) by (value descending, number ascending), similarities; -1 and NaN at the end."""
        order = np.argsort(-self.values, axis=1, kind="stable")[:, :k]  # NaN sorts last, ties keep order
        similarities = np.take_along_axis(self.similarities, order, axis=1)
        return np.where(np.isnan(similarities), -1, order), similarities


def rank(x, *, queries=None, rows=None, metric="cosine", exclude_self=True):
    """Rank all rows of x for each query: for each row of x, for x[rows], or for each row of `queries`."""
    x = as_float64(x)
    numbers = np.arange(len(x)) if rows is None else np.asarray(rows)
    q = x[numbers] if queries is None else as_float64(queries)
    relative = tol.dot_slack(x.shape[1])
    if metric == "euclidean":
        squares = squared_distances(q, x)
        values, slack = -squares, relative * squares
        similarities, similarity_slack = -np.sqrt(squares), relative * np.sqrt(squares)
    else:
        values = dots(q, x)
        square_q, square_x = (q * q).sum(axis=1)[:, None], (x * x).sum(axis=1)[None, :]
        lengths = np.sqrt(square_q * square_x)
        slack = relative * lengths
        if metric == "cosine":
            undefined = lengths == 0
            values = np.where(undefined, np.nan, values / np.where(undefined, 1, lengths))
            slack = np.full_like(values, relative)
        similarities, similarity_slack = values.copy(), slack
    if queries is None and exclude_self:
        values[np.arange(len(q)), numbers] = np.nan
        similarities[np.arange(len(q)), numbers] = np.nan
    return Ranking(values, slack, similarities, similarity_slack)


def knn(x, k, **options):
    """Row numbers (m, k) and float64 similarities (m, k) of the k nearest rows."""
    return rank(x, **options).top(k)


def assert_same_neighbors(indices, similarities, ranking, *, exact=False, first_equal=None):
    """Check lists of neighbors against a ranking, up to ties at float64 accuracy.

    A list is right if some values within `ranking.slack` of the oracle's would put it in just this order and
    leave just these rows out. With `exact` (sums without rounding) the list must be the oracle's. Equal rows
    have equal values in any arithmetic: with `first_equal` they must come in ascending order.
    """
    indices, similarities = np.asarray(indices), np.asarray(similarities)
    k = indices.shape[1]
    assert similarities.shape == indices.shape == (len(ranking.values), k)
    expected, _ = ranking.top(k)
    np.testing.assert_array_equal(indices == -1, expected == -1, err_msg="another number of neighbors")
    if exact:
        np.testing.assert_array_equal(indices, expected)
    for row, numbers in enumerate(indices):
        values, slack = ranking.values[row], ranking.slack[row]
        found = numbers[numbers != -1]
        assert ((found >= 0) & (found < len(values))).all(), f"query {row}: a number out of range in {found}"
        assert len(set(found.tolist())) == len(found), f"query {row}: a neighbor twice in {found}"
        assert not np.isnan(values[found]).any(), f"query {row}: itself or a row of zeros among {found}"
        high, low = values + slack, values - slack
        least_before = np.minimum.accumulate(high[found])
        late = low[found][1:] > least_before[:-1]
        assert not late.any(), f"query {row}: {found} is out of order at places {np.flatnonzero(late) + 1}"
        left_out = np.ones(len(values), bool)
        left_out[found] = False
        missed = left_out & (low > least_before[-1] if len(found) else False)  # NaN compares false
        assert not missed.any(), f"query {row}: {found} lacks {np.flatnonzero(missed)}"

        true = ranking.similarities[row, found]
        got = similarities[row, : len(found)]
        assert np.isnan(similarities[row, len(found) :]).all(), f"query {row}: no neighbor, yet a similarity"
        with np.errstate(over="ignore"):
            single = true.astype(np.float32)
        overflow = np.isinf(single)  # an inner product may leave the range of float32
        np.testing.assert_array_equal(got[overflow], single[overflow])
        room = tol.rounded(true) + ranking.similarity_slack[row, found]
        wrong = ~overflow
        wrong[wrong] = ~(np.abs(got[wrong] - true[wrong]) <= room[wrong])
        assert not wrong.any(), f"query {row}: similarities {got[wrong]} should be {true[wrong]}"
        if first_equal is not None:
            assert_equal_rows_ascend(found, got, ~np.isnan(values), first_equal)


def assert_equal_rows_ascend(found, similarities, candidates, first_equal):
    """Check that of equal rows the lowest numbers are taken, in ascending order and with one similarity."""
    for group in np.unique(first_equal[found]):
        members = np.flatnonzero((first_equal == group) & candidates)
        places = np.flatnonzero(first_equal[found] == group)
        lowest = members[: len(places)]
        np.testing.assert_array_equal(found[places], lowest, err_msg="equal rows out of order")
        assert len(set(similarities[places].tolist())) == 1, "equal rows with unequal similarities"


@dataclass(frozen=True)
class LocalWeights:
    """Weights of one token, and what the tolerances need to know about the system that gave them."""

    weights: np.ndarray
    residual: float
    statuses: frozenset  # more than one where rounding decides whether the Gram matrix is singular
    condition: float = 1.0  # infinite where the weights are not determined well enough to compare
    spread: float = 0.0
    size: float = 0.0


def exact_rank(rows):
    """Rank of a matrix of floats, by elimination in rational numbers."""
    rows = [[Fraction(float(v)) for v in row] for row in rows]
    rank = 0
    for column in range(len(rows[0])):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for r in range(rank + 1, len(rows)):
            factor = rows[r][column] / rows[rank][column]
            if factor:
                rows[r] = [v - factor * w for v, w in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


def is_singular(differences, gram):
    """Whether the Gram matrix is singular: True or False, None where float64 cannot tell."""
    k, d = differences.shape
    if k > d:
        return True
    if np.linalg.eigvalsh(gram)[0] > 1e-10 * np.trace(gram):
        return False
    return True if exact_rank(differences) < k else None


def lle_row(x, token, neighbors, reg=1e-3):
    """Weights, residual and status of one token; x is float64."""
    k = len(neighbors)
    nothing = np.full(k, np.nan)
    if (neighbors == -1).any():
        return LocalWeights(nothing, np.nan, frozenset({NO_NEIGHBORS}))
    differences = x[token] - x[neighbors]
    if not differences.any():
        return LocalWeights(np.full(k, 1 / k), 0.0, frozenset({COINCIDENT}))
    gram = dots(differences, differences)
    singular = is_singular(differences, gram)
    if singular and reg == 0:
        return LocalWeights(nothing, np.nan, frozenset({SINGULAR}))
    members = np.append(neighbors, token)
    if len(np.unique(x[members] + 0.0, axis=0)) < k + 1:
        statuses = {DUPLICATE}
    elif len(np.unique(differences, axis=0)) < k:
        # Unequal rows so much shorter than the token's that the differences are equal in float64.
        statuses = {DUPLICATE, RANK_DEFICIENT}
    elif singular is None:
        statuses = {OK, RANK_DEFICIENT} if reg > 0 else {OK, SINGULAR}
    else:
        statuses = {RANK_DEFICIENT if singular else OK}
    system = gram + reg * np.trace(gram) * np.eye(k)
    condition = np.linalg.cond(system)
    if not condition <= tol.WELL_CONDITIONED:
        return LocalWeights(nothing, np.nan, frozenset(statuses), np.inf)
    weights = np.linalg.solve(system, np.ones(k))
    weights /= weights.sum()
    residual = np.linalg.norm(weights @ differences)  # x_i - sum w_j x_j, as the weights sum to 1
    return LocalWeights(
        weights,
        residual,
        frozenset(statuses),
        condition,
        np.sqrt(np.diag(gram)).max(),
        np.linalg.norm(x[members], axis=1).max(),
    )


def lle(x, neighbors, *, rows=None, reg=1e-3):
    """One LocalWeights for each list."""
    x, neighbors = as_float64(x), np.asarray(neighbors)
    tokens = range(len(neighbors)) if rows is None else rows
    return [lle_row(x, token, list_, reg) for token, list_ in zip(tokens, neighbors, strict=True)]


def assert_same_weights(result, expected):
    """Check an LLE result (weights, residuals, status) against a list of LocalWeights."""
    for row, true in enumerate(expected):
        weights, residual = result.weights[row].astype(np.float64), float(result.residuals[row])
        status = int(result.status[row])
        assert status in true.statuses, f"row {row}: status {status}, not one of {sorted(true.statuses)}"
        if status in (NO_NEIGHBORS, SINGULAR):
            assert np.isnan(weights).all() and np.isnan(residual), f"row {row}: weights without a solution"
            continue
        assert np.isfinite(weights).all() and residual >= 0, f"row {row}: {weights}, {residual}"
        if np.isinf(true.condition):
            continue
        assert abs(weights.sum() - 1) <= tol.weight_sum_atol(weights), f"row {row}: sum {weights.sum()}"
        wrong = np.abs(weights - true.weights) > tol.weight_atol(true.weights, true.condition)
        assert not wrong.any(), f"row {row}: weights {weights[wrong]} should be {true.weights[wrong]}"
        room = tol.residual_atol(true.residual, true.weights, true.condition, true.spread, true.size)
        assert abs(residual - true.residual) <= room, f"row {row}: residual {residual}, not {true.residual}"


@dataclass(frozen=True)
class LocalDimension:
    """Spectrum of one token's neighbors: `shares` are cumulative; empty where the neighbors coincide."""

    shares: np.ndarray
    participation: float

    def range(self, variance, margin):
        """Fewest and most components that a share known to within `margin` allows."""
        if not len(self.shares):
            return 0, 0
        fewest, most = (np.searchsorted(self.shares, variance + m) + 1 for m in (-margin, margin))
        return min(fewest, len(self.shares)), min(most, len(self.shares))


def dimension_row(x, neighbors):
    """Spectrum by singular values of the centered neighbors; None for a list with a gap."""
    if (neighbors == -1).any():
        return None
    centred = x[neighbors] - x[neighbors].mean(axis=0)
    if not centred.any():
        return LocalDimension(np.empty(0), 0.0)
    eigenvalues = np.linalg.svd(centred / np.abs(centred).max(), compute_uv=False) ** 2
    eigenvalues = eigenvalues[: min(len(neighbors) - 1, x.shape[1])]  # k centered points span k - 1 axes
    total = eigenvalues.sum()
    return LocalDimension(eigenvalues.cumsum() / total, total**2 / (eigenvalues**2).sum())


def intrinsic_dimension(x, neighbors):
    """One LocalDimension (or None) for each list."""
    x = as_float64(x)
    return [dimension_row(x, list_) for list_ in np.asarray(neighbors)]


def assert_same_dimension(result, expected, variance):
    """Check a Dimension result against a list of LocalDimension."""
    for row, true in enumerate(expected):
        components = int(result.n_components[row])
        participation, explained = (
            float(result.participation_ratio[row]),
            float(result.explained_variance_ratio[row]),
        )
        if true is None:
            assert components == -1 and np.isnan([participation, explained]).all(), f"row {row} has no answer"
            continue
        fewest, most = true.range(variance, tol.SHARE_MARGIN)
        assert fewest <= components <= most, f"row {row}: {components} components, not {fewest} to {most}"
        share = true.shares[components - 1] if components else 1.0
        order = min(result.k, result.n_columns)
        room = tol.rounded(share) + (tol.share_atol(order, true.participation) if components else 0)
        assert abs(explained - share) <= room, f"row {row}: share {explained}, not {share}"
        room = tol.rounded(true.participation) + tol.PARTICIPATION_RTOL * true.participation
        error = abs(participation - true.participation)
        assert error <= room, f"row {row}: participation {participation}, not {true.participation}"


def global_similarity(a, b, *, center=False, sample=None, include_diagonal=False, seed=0):
    """Pearson correlation of all pairs of cosines, and the room that float64 needs; None where undefined."""
    a, b = as_float64(a), as_float64(b)
    # A row that is zero in either matrix takes part in nothing: not in the sample, and not in the mean.
    used = a.any(axis=1) & b.any(axis=1)
    a, b = a[used], b[used]
    if sample is not None and sample < len(a):
        rows = np.random.default_rng(seed).choice(len(a), size=sample, replace=False)
        a, b = a[rows], b[rows]
    if len(a) < 3:
        return None, 0.0
    before = [np.linalg.norm(m, axis=1).max() for m in (a, b)]
    if center:
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    used = a.any(axis=1) & b.any(axis=1)
    a, b = a[used], b[used]
    if len(a) < 3:
        return None, 0.0
    after = [np.linalg.norm(m, axis=1).min() for m in (a, b)]
    loss = max(p / q for p, q in zip(before, after, strict=True)) if center else 1.0
    pairs = np.ones((len(a), len(a)), bool)
    np.fill_diagonal(pairs, include_diagonal)
    units = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in (a, b)]
    cosines = [dots(u, u) for u in units]
    for c in cosines:
        np.fill_diagonal(c, 1)
    cosines = [c[pairs] for c in cosines]
    deviations = [c - c.mean() for c in cosines]
    variances = [(c * c).mean() for c in deviations]
    if min(variances) == 0:
        return None, 0.0
    shapes = [(c * c).mean() / v for c, v in zip(cosines, variances, strict=True)]
    room = tol.correlation_atol(len(a), max(a.shape[1], b.shape[1]), *shapes, loss)
    return float((deviations[0] * deviations[1]).mean() / np.sqrt(variances[0] * variances[1])), room

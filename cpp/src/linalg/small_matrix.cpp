#include "embgeom/linalg/small_matrix.hpp"

#include <limits>
#include <utility>

#include "embgeom/base/multiversion.hpp"

namespace embgeom::small_matrix {
namespace {

// Exchanges rows and columns j < i of what is left from column j on.
void exchange(std::size_t n, double* c, std::size_t j, std::size_t i) {
    if (i == j) return;
    std::swap(c[j * n + j], c[i * n + i]);
    for (std::size_t l = j + 1; l < i; ++l) std::swap(c[l * n + j], c[i * n + l]);
    for (std::size_t l = i + 1; l < n; ++l) std::swap(c[l * n + j], c[l * n + i]);
}

// The row whose diagonal element is the largest from row j on, and that element.
std::pair<std::size_t, double> largest_pivot(std::size_t n, const double* c, std::size_t j) {
    std::pair<std::size_t, double> best{j, c[j * n + j]};
    for (std::size_t i = j + 1; i < n; ++i) {
        if (c[i * n + i] > best.second) best = {i, c[i * n + i]};
    }
    return best;
}

// The same from row j + 1 on, once column j is eliminated.
std::pair<std::size_t, double> largest_pivot_after(std::size_t n, const double* c, std::size_t j) {
    const double inverse = 1.0 / c[j * n + j];
    std::pair<std::size_t, double> best{j + 1, -std::numeric_limits<double>::infinity()};
    for (std::size_t i = j + 1; i < n; ++i) {
        const double value = c[i * n + i] - c[i * n + j] * inverse * c[i * n + j];
        if (value > best.second) best = {i, value};
    }
    return best;
}

// Eliminates columns j and j + 1 from what lies beyond them, both in one pass. Row j + 1 and the two columns
// are left as L has them, the pivots on the diagonal.
EMBGEOM_MULTIVERSION
void eliminate_two(std::size_t n, double* c, std::size_t j, double* __restrict scratch) {
    double* __restrict first = scratch;
    double* __restrict second = scratch + n;
    const double inverse = 1.0 / c[j * n + j];
    double* next = c + (j + 1) * n;
    const double between = next[j] * inverse;
    next[j + 1] -= between * next[j];
    next[j] = between;
    const double next_inverse = 1.0 / next[j + 1];
    for (std::size_t i = j + 2; i < n; ++i) {
        first[i] = c[i * n + j];
        second[i] = c[i * n + j + 1] - between * first[i];
    }
    for (std::size_t i = j + 2; i < n; ++i) {
        double* __restrict row = c + i * n;
        const double factor = first[i] * inverse, next_factor = second[i] * next_inverse;
        for (std::size_t l = j + 2; l <= i; ++l) row[l] -= factor * first[l] + next_factor * second[l];
        row[j] = factor;
        row[j + 1] = next_factor;
    }
}

// b[0 ... count) -= factor * row[0 ... count)
EMBGEOM_MULTIVERSION
void subtract(std::size_t count, double factor, const double* __restrict row, double* __restrict b) {
    for (std::size_t l = 0; l < count; ++l) b[l] -= factor * row[l];
}

}  // namespace

std::size_t semidefinite_rank(std::size_t n, double* c, double tolerance, double* scratch) {
    for (std::size_t j = 0; j < n; j += 2) {
        const auto [largest, pivot] = largest_pivot(n, c, j);
        if (!(pivot > tolerance)) return j;
        exchange(n, c, j, largest);
        if (j + 1 == n) return n;
        const auto [next, next_pivot] = largest_pivot_after(n, c, j);
        if (!(next_pivot > tolerance)) return j + 1;
        std::swap(c[(j + 1) * n + j], c[next * n + j]);
        exchange(n, c, j + 1, next);
        eliminate_two(n, c, j, scratch);
    }
    return n;
}

bool solve_positive(std::size_t n, double* c, double* b, double* scratch) {
    for (std::size_t j = 0; j < n; j += 2) {
        if (!(c[j * n + j] > 0.0)) return false;
        if (j + 1 == n) break;
        eliminate_two(n, c, j, scratch);
        if (!(c[(j + 1) * n + j + 1] > 0.0)) return false;
        b[j + 1] -= c[(j + 1) * n + j] * b[j];
        for (std::size_t i = j + 2; i < n; ++i) b[i] -= c[i * n + j] * b[j] + c[i * n + j + 1] * b[j + 1];
    }
    for (std::size_t j = 0; j < n; ++j) b[j] /= c[j * n + j];
    for (std::size_t j = n; j-- > 0;) subtract(j, b[j], c + j * n, b);
    return true;
}

}  // namespace embgeom::small_matrix

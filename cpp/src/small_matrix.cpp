#include "embgeom/small_matrix.hpp"

#include <algorithm>
#include <utility>

#include "embgeom/multiversion.hpp"

namespace embgeom::small_matrix {
namespace {

// Exchanges rows and columns j < i of what is left from column j on.
void exchange(std::size_t n, double* c, std::size_t j, std::size_t i) {
    std::swap(c[j * n + j], c[i * n + i]);
    for (std::size_t l = j + 1; l < i; ++l) std::swap(c[l * n + j], c[i * n + l]);
    for (std::size_t l = i + 1; l < n; ++l) std::swap(c[l * n + j], c[l * n + i]);
}

// Eliminates column j from what lies beyond it. C_ij / C_jj takes the place of C_ij.
EMBGEOM_MULTIVERSION
void eliminate(std::size_t n, double* c, std::size_t j, double* __restrict column) {
    const double inverse = 1.0 / c[j * n + j];
    for (std::size_t i = j + 1; i < n; ++i) column[i] = c[i * n + j];
    for (std::size_t i = j + 1; i < n; ++i) {
        double* __restrict row = c + i * n;
        const double factor = column[i] * inverse;
        for (std::size_t l = j + 1; l <= i; ++l) row[l] -= factor * column[l];
        row[j] = factor;
    }
}

// b[0 ... count) -= factor * row[0 ... count)
EMBGEOM_MULTIVERSION
void subtract(std::size_t count, double factor, const double* __restrict row, double* __restrict b) {
    for (std::size_t l = 0; l < count; ++l) b[l] -= factor * row[l];
}

}  // namespace

std::size_t semidefinite_rank(std::size_t n, double* c, double tolerance, double* scratch) {
    for (std::size_t j = 0; j < n; ++j) {
        std::size_t largest = j;
        for (std::size_t i = j + 1; i < n; ++i) {
            if (c[i * n + i] > c[largest * n + largest]) largest = i;
        }
        if (!(c[largest * n + largest] > tolerance)) return j;
        if (largest != j) exchange(n, c, j, largest);
        eliminate(n, c, j, scratch);
    }
    return n;
}

bool solve_positive(std::size_t n, double* c, double* b, double* scratch) {
    for (std::size_t j = 0; j < n; ++j) {
        if (!(c[j * n + j] > 0.0)) return false;
        eliminate(n, c, j, scratch);
        for (std::size_t i = j + 1; i < n; ++i) b[i] -= c[i * n + j] * b[j];
    }
    for (std::size_t j = 0; j < n; ++j) b[j] /= c[j * n + j];
    for (std::size_t j = n; j-- > 0;) subtract(j, b[j], c + j * n, b);
    return true;
}

}  // namespace embgeom::small_matrix

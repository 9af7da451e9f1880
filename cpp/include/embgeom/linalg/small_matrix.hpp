#pragma once

#include <cstddef>

// Factorizations of a symmetric C (n, n) so small that a call of LAPACK costs more than the arithmetic.
// Only the lower triangle of C is read, rows `n` elements apart, and C is overwritten; `scratch` has room
// for 2 n numbers. Both eliminate every column j,
//   C_il -= C_ij C_lj / C_jj   for l <= i, both beyond j
// which is C = L D L', n^3 / 6 multiply-adds, and take two columns in each pass over C.
namespace embgeom::small_matrix {

// Beyond this order LAPACK is faster. Tuned by benchmarks/kernels/bench_lle.py.
constexpr std::size_t limit = 200;

// As blas::semidefinite_rank: the largest C_jj that is left is the next pivot, and the first pivot that is
// not above `tolerance` ends the elimination.
std::size_t semidefinite_rank(std::size_t n, double* c, double tolerance, double* scratch);

// As blas::solve_positive: b becomes the solution of C x = b. False where a pivot is not positive.
bool solve_positive(std::size_t n, double* c, double* b, double* scratch);

}  // namespace embgeom::small_matrix

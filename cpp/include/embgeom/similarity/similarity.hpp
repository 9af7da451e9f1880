#pragma once

#include <cstddef>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

struct SimilarityOptions {
    bool center;            // first subtract the mean of the rows that are used
    bool include_diagonal;  // count each token's similarity with itself, which is 1 in both
};

// Pearson correlation of the cosine similarities of all pairs of rows in a (n, d_a) with those in b (n,
// d_b), without ever forming them. With unit rows u_i (after centering, if asked for), their mean m, the
// deviations e_i = u_i - m, which make the rows of E, and s_i = m.e_i,
//
//   y_ij = u_i.u_j - m.m = s_i + s_j + e_i.e_j,   sum over all i, j of y y' = 2 n sum_i s_i s'_i + |E'F|_F^2
//
// where primes and F belong to b, and the transpose of E is E'. The mean of y is 0, and a variance is a sum
// of squares: a direction that all rows share cancels nowhere. Removing the n pairs (i, i) leaves that sum
// minus sum_i |e_i|^2 sum_i |e'_i|^2 / (n - 1). Rows without direction in either matrix are left out.
//
// Sums over rows are float64. The products E'E, F'F and E'F are float64, too, unless n >= 4096 and n >= 2 d:
// then float32 over pieces of r = 320 rows, whose sums are added up in float64. Where roundings (at most u =
// 2^-24) are independent of each other and 0 on average, a squared norm of a product errs, relative to
// |E'E|_F |F'F|_F, by a standard deviation of at most 2 u r / sqrt(3 n): 3.4e-7 at n = 4096, 1e-7 at 50,000.
// A variance holds more than half of it after the diagonal is taken away, because |E'E|_F^2 >= (sum_i
// |e_i|^2)^2 / d. Real errors are about 1e-9 to 1e-8: signs differ within a sum, too.
//
// Cost: n (d_a d_b + d_a^2 / 2 + d_b^2 / 2) multiply-adds. Workspace: at most 70 MiB, 0.6 MiB (float64: 1.2)
// for each worker, and 16 n bytes. The result does not depend on the number of threads.
double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor);

}  // namespace embgeom

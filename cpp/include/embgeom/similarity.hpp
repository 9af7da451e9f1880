#pragma once

#include <cstddef>

#include "embgeom/matrix_view.hpp"
#include "embgeom/parallel.hpp"

namespace embgeom {

struct SimilarityOptions {
    bool center;            // subtract the mean row first
    bool include_diagonal;  // count each token's similarity with itself, which is 1 in both
};

// Pearson correlation of the cosine similarities of all pairs of rows in a (n, d_a) with those in b (n,
// d_b), without ever forming them. With unit rows A and B (after centering, if asked for) and sums over
// all i, j:
//
//   sum (a_i.a_j)(b_i.b_j) = |A'B|_F^2,   sum (a_i.a_j)^2 = |A'A|_F^2,   sum a_i.a_j = |sum_i a_i|^2
//
// from which the diagonal, n ones, is taken away again unless it is to be counted. Each product is
// computed in tiles of 256 x 256 coordinates, in float64, each tile by one worker in one order: the
// result does not depend on the number of threads. Rows without direction in either matrix are left
// out. Cost: n (d_a d_b + d_a^2 / 2 + d_b^2 / 2) multiply-adds. Workspace: 2.5 MiB for each worker and
// 16 n bytes.
double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor);

}  // namespace embgeom

#pragma once

#include <cstdint>
#include <span>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

// The place in row i of b (n, k) of each number in row i of a (n, k), or -1 where it is missing there, or is
// -1 itself. No row of b may name a number twice, but for -1. Cost: k^2 comparisons a row for short lists,
// k log k for long ones.
void positions(MatrixView<const std::int32_t> a, MatrixView<const std::int32_t> b, int threads,
               Monitor& monitor, MatrixView<std::int32_t> result);

// Two lists of neighbors as sparse matrices A and B (n, n): element (i, j) is 0, or the value of token i's
// neighbor j; without values, 1. Row numbers lie in [0, n), and -1 stands for no neighbor.
struct ListedValues {
    MatrixView<const std::int32_t> neighbors;  // (n, k)
    MatrixView<const double> values;           // (n, k), or nothing
};

// For each row p of labels (draws, n), the sum of A_ij B_(p_i)(p_j) over all i and j: how far the two agree
// when token i of the first is taken for token p_i of the second. Throws InvalidInput that names a number
// outside its range.
//
// Each draw is one task, which adds up its own sum, so no bit depends on the number of threads. Cost of a
// draw: 3 k n look-ups, or for short lists k n of them and k^2 n comparisons, sixteen at a time. Workspace: n
// numbers for each worker.
void relabeled_agreement(const ListedValues& a, const ListedValues& b, MatrixView<const std::int32_t> labels,
                         int threads, Monitor& monitor, std::span<double> sums);

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <cstdint>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/knn/scores.hpp"

namespace embgeom {

// The k nearest rows of `base` (n, d) are wanted for each of `queries` (m, d).
struct KnnQuestion {
    RowSet queries, base;
    std::size_t k;
    Metric metric;
    // The queries are rows of the base's matrix: those of the base in the same order (`self_join`), or
    // others.
    bool queries_are_base_rows, self_join;
    // Then a row is not its own neighbor.
    bool exclude_self;
};

// Exact k nearest neighbors, a function of the input alone: order by float64 score (see scores.hpp),
// then by row number.
//
//   indices       (m, k)  base rows, nearest first; -1 where there are no more
//   similarities  (m, k)  their similarities; NaN where there are no more
//
// Equal rows are searched, and searched for, once (see equal_rows.hpp).
// Visits the tiles of the matrix of float32 products, each pair of rows once in a self-join; scores exactly
// the pairs whose upper bound reaches a query's floor (see candidates.hpp); orders the candidates; and
// searches again for queries whose floor was guessed too high (see floors.hpp). Cost: m n d multiply-adds in
// float32 (half of it in a self-join), about m k d in float64, m and n being the numbers of different rows.
//
// The views passed in are knn_capacity(...) wide, as they hold the candidates too: the result is their
// first k columns.
void knn(const KnnQuestion& question, int threads, Monitor& monitor, MatrixView<std::int32_t> indices,
         MatrixView<float> similarities);

// The width of the two arrays: k, and room for further candidates which takes at most 128 MiB over all
// queries, but is never less than 16 places for each (beyond a million queries, 128 bytes for each).
std::size_t knn_capacity(const KnnQuestion& question);

}  // namespace embgeom

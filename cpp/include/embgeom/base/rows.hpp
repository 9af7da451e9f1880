#pragma once

#include <cstdint>
#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

// One pass over the rows of x (n, d), before any kernel trusts them.
//   squared_norms[i] = sum_l x_il^2, in float64 (0 exactly for a zero row)
// Throws InvalidInput that names the matrix and its first row with a NaN or an infinity. Cost: n d.
std::vector<double> squared_norms(MatrixView<const float> x, const char* name, int threads, Monitor& monitor);

// The same check where the norms are not wanted.
void check_finite(MatrixView<const float> x, const char* name, int threads, Monitor& monitor);

// first_equal[i] = the smallest j with row j equal to row i (i itself where no earlier row is equal).
// Vocabularies hold thousands of equal rows; equality is of numbers, so -0.0 equals 0.0. Throws as
// check_finite does: both need one pass over the matrix, and this one does for both. Cost: n d.
std::vector<std::int64_t> first_equal_rows(MatrixView<const float> x, const char* name, int threads,
                                           Monitor& monitor);

// The same where all is known to be finite, and the squared norms are known: rows of different norms differ,
// so only those that share theirs are looked at. Cost: n, and d for each such row.
std::vector<std::int64_t> first_equal_rows(MatrixView<const float> x,
                                           const std::vector<double>& squared_norms, int threads,
                                           Monitor& monitor);

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/matrix_view.hpp"

namespace embgeom {

// Each token of a kernel over neighborhoods: row `tokens.row_number(i)` of x, and the k rows listed in
// neighbors.row(i).
struct Neighborhoods {
    RowSet tokens;
    MatrixView<const std::int32_t> neighbors;
};

// Throws InvalidInput that names the place of a row number outside [-1, n).
void check_neighbors(const Neighborhoods& neighborhoods);

// A -1 stands for a neighbor that does not exist (see knn.hpp).
bool has_all_neighbors(const std::int32_t* neighbors, std::size_t k);

// The number of different rows (by value) among the k neighbors; `first_equal` comes from rows.hpp.
std::size_t distinct_neighbors(const std::int32_t* neighbors, std::size_t k,
                               const std::vector<std::int64_t>& first_equal,
                               std::vector<std::int64_t>& scratch);

}  // namespace embgeom

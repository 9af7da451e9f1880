#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/base/matrix_view.hpp"

namespace embgeom {

// Each token of a kernel over neighborhoods: row `tokens.row_number(i)` of x, and the k rows listed in
// neighbors.row(i).
struct Neighborhoods {
    RowSet tokens;
    MatrixView<const std::int32_t> neighbors;
};

// Copies the neighbors of token i into `list`. False where one of them is -1, which stands for a neighbor
// that does not exist (see knn.hpp). Throws InvalidInput that names the position of a row number outside [-1,
// n). The copy is what is checked and used, so a thread that writes into the array meanwhile can do no harm.
bool take_neighbors(const Neighborhoods& neighborhoods, std::size_t i, std::vector<std::int32_t>& list);

// The number of different rows (by value) among the listed ones; `first_equal` comes from rows.hpp. `scratch`
// then holds the first row equal to each, once and in any order.
std::size_t distinct_neighbors(const std::vector<std::int32_t>& list,
                               const std::vector<std::int64_t>& first_equal,
                               std::vector<std::int64_t>& scratch);

}  // namespace embgeom

#include "embgeom/neighborhood.hpp"

#include <algorithm>
#include <string>

#include "embgeom/error.hpp"

namespace embgeom {

void check_neighbors(const Neighborhoods& neighborhoods) {
    const auto n = static_cast<std::int64_t>(neighborhoods.tokens.matrix.rows);
    const auto& neighbors = neighborhoods.neighbors;
    for (std::size_t i = 0; i < neighbors.rows; ++i) {
        const std::int32_t* list = neighbors.row(i);
        const std::int32_t* bad =
            std::find_if(list, list + neighbors.cols, [n](std::int32_t j) { return j < -1 || j >= n; });
        if (bad != list + neighbors.cols) {
            throw InvalidInput("neighbors[" + std::to_string(i) + ", " + std::to_string(bad - list) + "] = " +
                               std::to_string(*bad) + " is no row of x, which has " + std::to_string(n) +
                               " rows: row numbers lie in [0, n), and -1 stands for no neighbor");
        }
    }
}

bool has_all_neighbors(const std::int32_t* neighbors, std::size_t k) {
    return std::all_of(neighbors, neighbors + k, [](std::int32_t j) { return j >= 0; });
}

std::size_t distinct_neighbors(const std::int32_t* neighbors, std::size_t k,
                               const std::vector<std::int64_t>& first_equal,
                               std::vector<std::int64_t>& scratch) {
    scratch.resize(k);
    for (std::size_t j = 0; j < k; ++j) scratch[j] = first_equal[static_cast<std::size_t>(neighbors[j])];
    std::sort(scratch.begin(), scratch.end());
    return static_cast<std::size_t>(std::unique(scratch.begin(), scratch.end()) - scratch.begin());
}

}  // namespace embgeom

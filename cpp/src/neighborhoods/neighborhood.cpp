#include "embgeom/neighborhoods/neighborhood.hpp"

#include <algorithm>
#include <string>

#include "embgeom/base/error.hpp"

namespace embgeom {
namespace {

// Most lists hold no row twice. For short ones comparing all pairs is faster than sorting. Tuned by
// benchmarks/kernels/bench_lle.py.
constexpr std::size_t pairwise_limit = 64;

bool all_different(const std::vector<std::int64_t>& values) {
    for (std::size_t i = 1; i < values.size(); ++i) {
        bool met = false;
        for (std::size_t j = 0; j < i; ++j) met |= values[j] == values[i];
        if (met) return false;
    }
    return true;
}

}  // namespace

bool take_neighbors(const Neighborhoods& neighborhoods, std::size_t i, std::vector<std::int32_t>& list) {
    const auto n = static_cast<std::int64_t>(neighborhoods.tokens.matrix.rows);
    const std::int32_t* row = neighborhoods.neighbors.row(i);
    list.assign(row, row + neighborhoods.neighbors.cols);
    const auto bad = std::find_if(list.begin(), list.end(), [n](std::int32_t j) { return j < -1 || j >= n; });
    if (bad != list.end()) {
        throw InvalidInput("neighbors[" + std::to_string(i) + ", " + std::to_string(bad - list.begin()) +
                           "] = " + std::to_string(*bad) + " is not a row of x, which has " +
                           std::to_string(n) +
                           " rows: row numbers lie in [0, n), and -1 stands for no neighbor");
    }
    return std::find(list.begin(), list.end(), -1) == list.end();
}

std::size_t distinct_neighbors(const std::vector<std::int32_t>& list,
                               const std::vector<std::int64_t>& first_equal,
                               std::vector<std::int64_t>& scratch) {
    scratch.clear();
    for (const std::int32_t j : list) scratch.push_back(first_equal[static_cast<std::size_t>(j)]);
    if (scratch.size() <= pairwise_limit && all_different(scratch)) return scratch.size();
    std::sort(scratch.begin(), scratch.end());
    scratch.erase(std::unique(scratch.begin(), scratch.end()), scratch.end());
    return scratch.size();
}

}  // namespace embgeom

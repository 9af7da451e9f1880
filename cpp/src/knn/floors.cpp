#include "embgeom/knn/floors.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "embgeom/base/arithmetic.hpp"

namespace embgeom {
namespace {

// The next two were tuned by benchmarks/kernels/bench_knn.py.
constexpr std::size_t fewest_blocks = 8;

// How often a guess may be too high.
constexpr double risk = 1.0 / 3000.0;

// The smallest number that a Poisson variable exceeds with a probability below `risk`.
std::size_t poisson_quantile(double mean) {
    constexpr double nearly_normal = 50.0, normal_quantile = 3.4;
    if (mean > nearly_normal) return static_cast<std::size_t>(mean + normal_quantile * std::sqrt(mean) + 2.0);
    double term = std::exp(-mean), above = 1.0 - term;
    std::size_t number = 0;
    while (above >= risk) {
        ++number;
        term *= mean / static_cast<double>(number);
        above -= term;
    }
    return number;
}

}  // namespace

FloorGuess::FloorGuess(const SearchSetup& setup, bool allowed)
    : setup_(setup), enabled_(allowed && setup.base_blocks.count() >= fewest_blocks) {}

std::size_t FloorGuess::likely_rank(std::size_t blocks) const {
    if (!enabled_) return setup_.k;
    const double share =
        std::min(1.0, static_cast<double>(blocks) / static_cast<double>(setup_.base_blocks.count()));
    const double mean = share * static_cast<double>(setup_.k);
    // Where much has been seen, less is left to chance: the variance is that of a binomial variable.
    const double chance = std::sqrt(1.0 - share);
    const double rank = mean + chance * (static_cast<double>(poisson_quantile(mean)) - mean);
    return std::clamp<std::size_t>(static_cast<std::size_t>(std::ceil(rank)), 1, setup_.k);
}

void FloorGuess::guess_from(const Tile& tile, const Scores& scores, const Bounds& bounds,
                            Candidates& candidates, std::vector<float>& row_limits, Scratch& scratch) const {
    const std::size_t rank = likely_rank(1);
    const std::size_t columns = tile.products.cols;
    if (!enabled_ || rank + 1 >= columns) return;
    scratch.bounds.resize(columns);
    scratch.order.resize(columns);
    for (std::size_t row = 0; row < tile.products.rows; ++row) {
        if (row_limits[row] != -infinity) continue;
        bounds.fill(tile, row, scratch.bounds.data());
        std::iota(scratch.order.begin(), scratch.order.end(), 0U);
        // One place further than the rank, since the row itself may be among those before it.
        const auto chosen = scratch.order.begin() + static_cast<std::ptrdiff_t>(rank);
        std::nth_element(
            scratch.order.begin(), chosen, scratch.order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return scratch.bounds[a] > scratch.bounds[b]; });
        const std::size_t i = setup_.query_blocks.item(tile.query_block, row);
        const std::size_t j = setup_.base_blocks.item(tile.base_block, *chosen);
        if (!setup_.is_pair(scores, i, j)) continue;
        candidates.start(i, scores.exact(i, j));
        row_limits[row] = candidates.limit(i);
    }
}

bool FloorGuess::is_due(std::size_t tiles) {
    return tiles >= 2 && std::has_single_bit(tiles);
}

}  // namespace embgeom

#include "embgeom/tiles.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "embgeom/blas.hpp"
#include "embgeom/scores.hpp"

namespace embgeom {
namespace {

constexpr std::size_t largest_block = 512;
constexpr std::size_t smallest_block = 16;

// As large as pays, but small enough for each worker to find several blocks to work on.
std::size_t choose_block(std::size_t rows, int workers) {
    std::size_t block = largest_block;
    while (block > smallest_block && rows < 4 * static_cast<std::size_t>(workers) * block) block /= 2;
    return block;
}

// Coordinates [begin, begin + width) of a row scaled to length 1. The scaling is done in float64 and rounded
// once, so no norm is too large or too small for it.
void pack_row(const float* row, double squared_norm, std::size_t begin, std::size_t width, float* packed) {
    const double inverse = squared_norm > 0.0 ? 1.0 / std::sqrt(squared_norm) : 0.0;
    for (std::size_t l = 0; l < width; ++l) packed[l] = static_cast<float>(row[begin + l] * inverse);
}

}  // namespace

Tiles::Tiles(RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
             const std::vector<double>& base_squared_norms, int workers)
    : queries_(queries),
      base_(base),
      query_squared_norms_(query_squared_norms),
      base_squared_norms_(base_squared_norms),
      block_(choose_block(std::max(queries.size, base.size), workers)),
      workspaces_(static_cast<std::size_t>(workers)) {
    const std::size_t width = std::min(product_depth, base.matrix.cols);
    for (auto& space : workspaces_) {
        space.queries.resize(block_ * width);
        space.base.resize(block_ * width);
        space.products.resize(block_ * block_);
    }
}

Tile Tiles::compute(std::size_t query_block, std::size_t base_block, const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    const std::size_t begin = query_block * block_;
    space.numbers.resize(std::min(block_, queries_.size - begin));
    std::iota(space.numbers.begin(), space.numbers.end(), begin);
    Tile tile = multiply(space, base_block, worker);
    tile.query_begin = begin;
    return tile;
}

Tile Tiles::compute_listed(const std::vector<std::size_t>& listed, std::size_t base_block,
                           const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    space.numbers = listed;
    return multiply(space, base_block, worker);
}

Tile Tiles::multiply(Workspace& space, std::size_t base_block, const Worker& worker) {
    const std::size_t d = base_.matrix.cols;
    const std::size_t queries = space.numbers.size();
    const std::size_t base_begin = base_block * block_;
    const std::size_t base_rows = std::min(block_, base_.size - base_begin);
    for (std::size_t l = 0; l < d; l += product_depth) {
        worker.checkpoint();
        const std::size_t width = std::min(product_depth, d - l);
        for (std::size_t r = 0; r < queries; ++r) {
            const std::size_t i = space.numbers[r];
            pack_row(queries_.row(i), query_squared_norms_[i], l, width, &space.queries[r * width]);
        }
        for (std::size_t r = 0; r < base_rows; ++r) {
            const std::size_t j = base_begin + r;
            pack_row(base_.row(j), base_squared_norms_[j], l, width, &space.base[r * width]);
        }
        blas::multiply_nt(queries, base_rows, width, space.queries.data(), width, space.base.data(), width,
                          l == 0 ? 0.0F : 1.0F, space.products.data(), block_);
    }
    return {0, queries, base_begin, base_rows, {space.products.data(), queries, base_rows, block_}};
}

}  // namespace embgeom

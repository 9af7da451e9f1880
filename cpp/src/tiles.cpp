#include "embgeom/tiles.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "embgeom/blas.hpp"
#include "embgeom/scores.hpp"

namespace embgeom {
namespace {

constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
constexpr std::size_t largest_block = 512;
constexpr std::size_t smallest_block = 16;
constexpr std::size_t workspace_bytes = std::size_t{64} << 20U;

// As large as pays (512), but small enough for all workers' workspaces to stay within 64 MiB and for
// each worker to find several blocks to work on.
std::size_t choose_block(std::size_t rows, std::size_t d, int workers) {
    const auto team = static_cast<std::size_t>(workers);
    std::size_t block = largest_block;
    while (block > smallest_block && team * block * (2 * d + block) * sizeof(float) > workspace_bytes)
        block /= 2;
    while (block > smallest_block && rows < 4 * team * block) block /= 2;
    return block;
}

// The division is done in float64 and rounded once, so no norm is too large or too small for it.
void pack_row(const float* row, double squared_norm, std::size_t d, float* packed) {
    const double inverse = squared_norm > 0.0 ? 1.0 / std::sqrt(squared_norm) : 0.0;
    for (std::size_t l = 0; l < d; ++l) packed[l] = static_cast<float>(row[l] * inverse);
}

}  // namespace

Tiles::Tiles(RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
             const std::vector<double>& base_squared_norms, int workers)
    : queries_(queries),
      base_(base),
      query_squared_norms_(query_squared_norms),
      base_squared_norms_(base_squared_norms),
      block_(choose_block(std::max(queries.size, base.size), base.matrix.cols, workers)),
      workspaces_(static_cast<std::size_t>(workers)) {
    for (auto& space : workspaces_) {
        space.queries.resize(block_ * base.matrix.cols);
        space.base.resize(block_ * base.matrix.cols);
        space.products.resize(block_ * block_);
        space.packed_query_block = none;
    }
}

Tile Tiles::compute(std::size_t query_block, std::size_t base_block, int worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker)];
    const std::size_t begin = query_block * block_;
    const std::size_t count = std::min(block_, queries_.size - begin);
    // Tasks come in order, so a worker often meets the same queries again.
    if (space.packed_query_block != query_block) {
        const std::size_t d = base_.matrix.cols;
        for (std::size_t i = 0; i < count; ++i) {
            pack_row(queries_.row(begin + i), query_squared_norms_[begin + i], d, &space.queries[i * d]);
        }
        space.packed_query_block = query_block;
    }
    return multiply(space, begin, count, base_block);
}

Tile Tiles::compute_listed(const std::vector<std::size_t>& listed, std::size_t base_block, int worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker)];
    const std::size_t d = base_.matrix.cols;
    for (std::size_t i = 0; i < listed.size(); ++i) {
        pack_row(queries_.row(listed[i]), query_squared_norms_[listed[i]], d, &space.queries[i * d]);
    }
    space.packed_query_block = none;
    return multiply(space, 0, listed.size(), base_block);
}

Tile Tiles::multiply(Workspace& space, std::size_t query_begin, std::size_t queries, std::size_t base_block) {
    const std::size_t d = base_.matrix.cols;
    const std::size_t base_begin = base_block * block_;
    const std::size_t base_rows = std::min(block_, base_.size - base_begin);
    for (std::size_t j = 0; j < base_rows; ++j) {
        pack_row(base_.row(base_begin + j), base_squared_norms_[base_begin + j], d, &space.base[j * d]);
    }
    for (std::size_t l = 0; l < d; l += product_depth) {
        blas::multiply_nt(queries, base_rows, std::min(product_depth, d - l), &space.queries[l], d,
                          &space.base[l], d, l == 0 ? 0.0F : 1.0F, space.products.data(), block_);
    }
    return {query_begin, queries, base_begin, base_rows, {space.products.data(), queries, base_rows, block_}};
}

}  // namespace embgeom

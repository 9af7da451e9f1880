#include "embgeom/tiles.hpp"

#include <algorithm>
#include <cmath>

#include "embgeom/blas.hpp"
#include "embgeom/bounds.hpp"
#include "embgeom/multiversion.hpp"

namespace embgeom {
namespace {

constexpr std::size_t best_block = 512;
constexpr std::size_t smallest_block = 16;
constexpr std::size_t block_bytes = std::size_t{3} << 20U;

EMBGEOM_MULTIVERSION
void scale(const float* row, float factor, std::size_t width, float* scaled) {
    for (std::size_t l = 0; l < width; ++l) scaled[l] = row[l] * factor;
}

// For rows so long or so short that the factor would leave the range of float32.
void scale_in_float64(const float* row, double factor, std::size_t width, float* scaled) {
    for (std::size_t l = 0; l < width; ++l) scaled[l] = static_cast<float>(row[l] * factor);
}

void prefetch(const float* row, std::size_t d) {
    constexpr std::size_t line = 64 / sizeof(float);
    for (std::size_t l = 0; l < d; l += line) __builtin_prefetch(row + l);
}

// The rows of a block scaled to length 1, each coordinate with a relative error of two roundings; piece
// after piece of their coordinates, as they are multiplied.
void pack(const RowSet& rows, const std::vector<double>& squared_norms, const Blocks& blocks,
          std::size_t block, std::vector<float>& packed) {
    const std::size_t d = rows.matrix.cols, size = blocks.size(block);
    for (std::size_t place = 0; place < size; ++place) {
        const std::size_t i = blocks.item(block, place);
        const float* row = rows.row(i);
        // Rows lie far apart, so the processor does not see the next one coming.
        if (place + 1 < size) prefetch(rows.row(blocks.item(block, place + 1)), d);
        const double factor = squared_norms[i] > 0.0 ? 1.0 / std::sqrt(squared_norms[i]) : 0.0;
        const bool in_range = factor < 0x1p100 && factor > 0x1p-100;
        for (std::size_t l = 0; l < d; l += product_depth) {
            const std::size_t width = std::min(product_depth, d - l);
            float* scaled = packed.data() + size * l + place * width;
            if (in_range) {
                scale(row + l, static_cast<float>(factor), width, scaled);
            } else {
                scale_in_float64(row + l, factor, width, scaled);
            }
        }
    }
}

}  // namespace

std::size_t Tiles::largest_block(std::size_t rows, std::size_t d, int workers) {
    std::size_t block = best_block;
    const auto too_large = [&] {
        const bool few_blocks = rows < 4 * static_cast<std::size_t>(workers) * block;
        return few_blocks || block * d * sizeof(float) > block_bytes;
    };
    while (block > smallest_block && too_large()) block /= 2;
    return block;
}

std::size_t Tiles::largest_square(std::size_t block, std::size_t d) {
    constexpr std::size_t workspace_bytes = std::size_t{12} << 20U, most = 4;
    return std::clamp<std::size_t>(workspace_bytes / (2 * block * d * sizeof(float)), 2, most);
}

Tiles::Tiles(RowSet queries, RowSet base, const Blocks& query_blocks, const Blocks& base_blocks,
             std::size_t square, const std::vector<double>& query_squared_norms,
             const std::vector<double>& base_squared_norms, int workers)
    : queries_(queries),
      base_(base),
      query_blocks_(query_blocks),
      base_blocks_(base_blocks),
      square_(square),
      query_squared_norms_(query_squared_norms),
      base_squared_norms_(base_squared_norms),
      workspaces_(static_cast<std::size_t>(workers)) {
    const std::size_t d = base.matrix.cols;
    for (auto& space : workspaces_) {
        space.queries.resize(square);
        space.base.resize(square);
        for (auto& packed : space.queries) packed.rows.resize(query_blocks.width() * d);
        for (auto& packed : space.base) packed.rows.resize(base_blocks.width() * d);
        space.products.resize(query_blocks.width() * base_blocks.width());
    }
}

Tile Tiles::compute(std::size_t query_block, std::size_t base_block, const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    Packed& queries = space.queries[query_block % square_];
    Packed& base = space.base[base_block % square_];
    if (queries.block != query_block) {
        pack(queries_, query_squared_norms_, query_blocks_, query_block, queries.rows);
        queries.block = query_block;
    }
    if (base.block != base_block) {
        pack(base_, base_squared_norms_, base_blocks_, base_block, base.rows);
        base.block = base_block;
    }
    const std::size_t d = base_.matrix.cols;
    const std::size_t rows = query_blocks_.size(query_block), columns = base_blocks_.size(base_block);
    const std::size_t stride = base_blocks_.width();
    for (std::size_t l = 0; l < d; l += product_depth) {
        worker.checkpoint();
        const std::size_t width = std::min(product_depth, d - l);
        blas::multiply_nt(rows, columns, width, queries.rows.data() + rows * l, width,
                          base.rows.data() + columns * l, width, l == 0 ? 0.0F : 1.0F, space.products.data(),
                          stride);
    }
    return {query_block, base_block, {space.products.data(), rows, columns, stride}};
}

}  // namespace embgeom

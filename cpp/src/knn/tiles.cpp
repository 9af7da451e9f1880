#include "embgeom/knn/tiles.hpp"

#include <algorithm>
#include <cmath>

#include "embgeom/base/multiversion.hpp"

namespace embgeom {
namespace {

// The constants here were tuned by benchmarks/kernels/bench_knn.py.
constexpr std::size_t best_block = 384;
constexpr std::size_t smallest_block = 24;
constexpr std::size_t block_bytes = std::size_t{3} << 20U;

EMBGEOM_MULTIVERSION
void scale(const float* row, float factor, std::size_t width, float* scaled) {
    for (std::size_t l = 0; l < width; ++l) scaled[l] = row[l] * factor;
}

// For rows so long or so short that the factor would leave the range of float32.
void scale_in_float64(const float* row, double factor, std::size_t width, float* scaled) {
    for (std::size_t l = 0; l < width; ++l) scaled[l] = static_cast<float>(row[l] * factor);
}

// The rows of a block scaled to length 1, each coordinate with a relative error of two roundings.
void pack(const RowSet& rows, const std::vector<double>& squared_norms, const Blocks& blocks,
          std::size_t block, Panels& panels) {
    // Rows lie far apart, so the processor cannot predict those of the next panel.
    constexpr std::size_t ahead = 16;
    const std::size_t size = blocks.size(block);
    panels.pack(size, [&](std::size_t place, std::size_t begin, std::size_t width, float* scaled) {
        const std::size_t i = blocks.item(block, place);
        if (place + ahead < size) prefetch(rows.row(blocks.item(block, place + ahead)) + begin, width);
        const double factor = squared_norms[i] > 0.0 ? 1.0 / std::sqrt(squared_norms[i]) : 0.0;
        if (factor < 0x1p100 && factor > 0x1p-100) {
            scale(rows.row(i) + begin, static_cast<float>(factor), width, scaled);
        } else {
            scale_in_float64(rows.row(i) + begin, factor, width, scaled);
        }
    });
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

std::size_t Tiles::largest_square(std::size_t block, std::size_t d, int workers) {
    constexpr std::size_t of_all = std::size_t{128} << 20U, most = 6;
    const std::size_t bytes = std::min(most_bytes, of_all / static_cast<std::size_t>(workers));
    return std::clamp<std::size_t>(bytes / (2 * block * d * sizeof(float)), 2, most);
}

Tiles::Tiles(RowSet queries, RowSet base, const Blocks& query_blocks, const Blocks& base_blocks,
             std::size_t square, const std::vector<double>& query_squared_norms,
             const std::vector<double>& base_squared_norms, int workers)
    : queries_(queries),
      base_(base),
      query_blocks_(query_blocks),
      base_blocks_(base_blocks),
      square_(square),
      stride_(Panels::padded(Side::right, base_blocks.width())),
      query_squared_norms_(query_squared_norms),
      base_squared_norms_(base_squared_norms),
      workspaces_(static_cast<std::size_t>(workers)) {
    const std::size_t d = base.matrix.cols;
    const std::size_t query_room = Panels::room(Side::left, query_blocks.width(), d);
    const std::size_t base_room = Panels::room(Side::right, base_blocks.width(), d);
    const std::size_t tile = Panels::padded(Side::left, query_blocks.width()) * stride_;
    for (auto& space : workspaces_) {
        space.memory.resize(tile + square * (query_room + base_room));
        space.products = space.memory.data();
        float* room = space.products + tile;
        for (std::size_t b = 0; b < square; ++b, room += query_room + base_room) {
            space.queries.push_back({Panels(Side::left, d, room)});
            space.base.push_back({Panels(Side::right, d, room + query_room)});
        }
    }
}

Tile Tiles::compute(std::size_t query_block, std::size_t base_block, const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    Packed& queries = space.queries[query_block % square_];
    Packed& base = space.base[base_block % square_];
    if (queries.block != query_block) {
        pack(queries_, query_squared_norms_, query_blocks_, query_block, queries.panels);
        queries.block = query_block;
    }
    if (base.block != base_block) {
        pack(base_, base_squared_norms_, base_blocks_, base_block, base.panels);
        base.block = base_block;
    }
    for (std::size_t l = 0; l < base_.matrix.cols; l += product_depth) {
        worker.checkpoint();
        multiply_piece(queries.panels, base.panels, l, space.products, stride_);
    }
    return {query_block, base_block, {space.products, queries.panels.count(), base.panels.count(), stride_}};
}

}  // namespace embgeom

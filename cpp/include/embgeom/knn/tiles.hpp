#pragma once

#include <cstddef>
#include <limits>
#include <vector>

#include "embgeom/base/aligned.hpp"
#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/knn/blocks.hpp"
#include "embgeom/linalg/panels.hpp"

namespace embgeom {

// A block of the matrix of products c_ij = q_i.b_j / (|q_i| |b_j|), float32: the queries of a query block
// against the rows of a base block.
struct Tile {
    std::size_t query_block, base_block;
    MatrixView<const float> products;
};

// Computes tiles of products of two sets of rows scaled to length 1 (zero rows stay zero). Scaling reads rows
// from far apart in memory, so each worker keeps the last packed blocks of either side, for callers that
// visit tiles in squares. Its workspace is 2 `square` blocks of rows, up to 16 MiB together (of all workers
// up to 128 MiB, but never less than 4 blocks for each, of at most 3 MiB), and a tile of about half a MiB.
class Tiles {
  public:
    static constexpr std::size_t most_bytes = std::size_t{16} << 20U;  // of the blocks of one worker

    // The block size that is fastest.
    static std::size_t largest_block(std::size_t rows, std::size_t d, int workers);

    // How many blocks of each side each of some workers can hold.
    static std::size_t largest_square(std::size_t block, std::size_t d, int workers);

    // Tiles are best visited in squares of `square` by `square` blocks that begin at multiples of it.
    Tiles(RowSet queries, RowSet base, const Blocks& query_blocks, const Blocks& base_blocks,
          std::size_t square, const std::vector<double>& query_squared_norms,
          const std::vector<double>& base_squared_norms, int workers);

    // The tile lies in the worker's workspace, and stays valid until the worker's next call.
    Tile compute(std::size_t query_block, std::size_t base_block, const Worker& worker);

  private:
    static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

    struct Packed {
        Panels panels;
        std::size_t block = none;
    };

    struct Workspace {
        AlignedVector<float> memory;        // of everything below, in one piece, so that it takes large pages
        std::vector<Packed> queries, base;  // (square) each
        float* products;
    };

    RowSet queries_, base_;
    Blocks query_blocks_, base_blocks_;
    std::size_t square_, stride_;
    const std::vector<double>& query_squared_norms_;
    const std::vector<double>& base_squared_norms_;
    std::vector<Workspace> workspaces_;
};

}  // namespace embgeom

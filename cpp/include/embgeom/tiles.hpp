#pragma once

#include <cstddef>
#include <vector>

#include "embgeom/matrix_view.hpp"
#include "embgeom/parallel.hpp"

namespace embgeom {

// A block of the matrix of products c_ij = q_i.b_j / (|q_i| |b_j|), float32: queries [query_begin,
// query_begin + queries) against base rows [base_begin, base_begin + base_rows).
struct Tile {
    std::size_t query_begin, queries;
    std::size_t base_begin, base_rows;
    MatrixView<const float> products;
};

// Computes tiles of products of two sets of rows scaled to length 1 (zero rows stay zero). Rows are scaled
// and multiplied a piece of their coordinates at a time, so a worker's workspace, about 2 MiB, does not grow
// with d.
class Tiles {
  public:
    Tiles(RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
          const std::vector<double>& base_squared_norms, int workers);

    std::size_t block() const { return block_; }
    std::size_t query_blocks() const { return (queries_.size + block_ - 1) / block_; }
    std::size_t base_blocks() const { return (base_.size + block_ - 1) / block_; }

    // The tile stays valid until the worker's next call.
    Tile compute(std::size_t query_block, std::size_t base_block, const Worker& worker);

    // Products of the listed queries (at most block() of them) with a block of base rows; the tile's queries
    // are numbered by their place in the list.
    Tile compute_listed(const std::vector<std::size_t>& listed, std::size_t base_block, const Worker& worker);

  private:
    struct Workspace {
        std::vector<float> queries, base, products;
        std::vector<std::size_t> numbers;
    };

    // Products of the queries that space.numbers lists.
    Tile multiply(Workspace& space, std::size_t base_block, const Worker& worker);

    RowSet queries_, base_;
    const std::vector<double>& query_squared_norms_;
    const std::vector<double>& base_squared_norms_;
    std::size_t block_;
    std::vector<Workspace> workspaces_;
};

}  // namespace embgeom

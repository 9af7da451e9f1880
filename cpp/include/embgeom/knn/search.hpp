#pragma once

#include <cstddef>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/knn/blocks.hpp"
#include "embgeom/knn/scores.hpp"

namespace embgeom {

// What all parts of one search know: which rows are compared, in which blocks, and which pairs count.
struct SearchSetup {
    RowSet queries, base;
    Blocks query_blocks, base_blocks;
    std::size_t k;
    // The queries are all base rows, in the same blocks: each tile is reduced both ways.
    bool self_join;
    // A query is the base row of the same row number, and not its own neighbor.
    bool exclude_self;

    bool is_pair(const Scores& scores, std::size_t i, std::size_t j) const {
        const bool self = exclude_self && queries.row_number(i) == base.row_number(j);
        return !self && scores.base_row_counts(j);
    }
};

}  // namespace embgeom

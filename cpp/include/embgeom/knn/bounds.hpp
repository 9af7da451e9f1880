#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/knn/blocks.hpp"
#include "embgeom/knn/scores.hpp"
#include "embgeom/knn/tiles.hpp"

namespace embgeom {

// The largest error of a float32 product c_ij of two rows of d coordinates scaled to length 1:
// (min(d, depth) + ceil(d / depth) + 6) u to first order for any order of summation within a piece, with
// u = 2^-24, and 20 u for the float32 arithmetic that turns it into a bound.
float product_error_bound(std::size_t d);

// Upper bounds of exact scores, in float32, from the products c_ij whose error is at most E:
//
//   cosine          c_ij, to be compared with limits that are E lower
//   inner product   |x_i| |y_j| (c_ij + E)                     in units of scale^2
//   Euclidean       2 |x_i| |y_j| (c_ij + E) - |y_j|^2         in units of scale^2
//
// `scale` is the power of two that brings the largest norm below 1, so that nothing overflows. For each
// query a bound is an increasing function of the exact score (Euclidean: of score + |x_i|^2).
class Bounds {
  public:
    // In a self-join the queries are the base rows, in the same blocks.
    Bounds(Metric metric, const Blocks& queries, const Blocks& base, bool self_join, std::size_t d,
           const std::vector<double>& query_squared_norms, const std::vector<double>& base_squared_norms);

    // A limit strictly below the bound of every row whose exact score for query i is at least `score`.
    float limit(std::size_t i, double score) const;

    // Lists in `found` the columns of a tile's row where the bound of the row's query is above `row_limit`,
    // or the bound of the column's query, for this row as a base row, is above its limit in `column_limits`.
    // The latter is for self-joins; elsewhere the limits are infinite. Returns how many were found; some
    // places after them may be written to.
    static constexpr std::size_t spare_places = 16;
    std::size_t find_above(const Tile& tile, std::size_t row, float row_limit, const float* column_limits,
                           std::uint32_t* found) const;

    // The bounds of the query of a tile's row, one for each column.
    void fill(const Tile& tile, std::size_t row, float* bounds) const;

  private:
    Metric metric_;
    bool self_join_;
    float error_;
    double scale_ = 1.0;
    double rounding_;
    Blocks queries_, base_;
    const std::vector<double>& query_squared_norms_;
    // By block and place; empty for the cosine.
    std::vector<float> query_factor_, base_factor_, base_offset_;
};

}  // namespace embgeom

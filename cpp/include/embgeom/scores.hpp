#pragma once

#include <cstddef>
#include <vector>

#include "embgeom/matrix_view.hpp"

namespace embgeom {

enum class Metric { cosine, inner_product, euclidean };

// How near row j of the base is to query i, twice over.
//
// The exact score, in float64, is what ranks neighbors (larger is nearer):
//   cosine          s_ij = x_i.y_j / sqrt(|x_i|^2 |y_j|^2)
//   inner product   s_ij = x_i.y_j
//   Euclidean       s_ij = -|x_i - y_j|^2
//
// The upper bound, in float32, comes from c_ij, the float32 product of the two rows scaled to length 1,
// whose error is at most `product_error`. It is never below the exact score in "bound units", an
// increasing function of s_ij for each i:
//   bound_ij = query_factor[i] * (base_factor[j] * (c_ij + product_error)) + base_offset[j]
//   cosine          1 * c + 0           (-infinity for a zero row, which is nobody's neighbor)
//   inner product   |x_i| |y_j| c       in units of scale^2
//   Euclidean       2 |x_i| |y_j| c - |y_j|^2 = s_ij + |x_i|^2, in units of scale^2
// `scale` is the power of two that brings the largest norm below 1, so that nothing overflows in float32.
class Scores {
  public:
    Scores(Metric metric, RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
           const std::vector<double>& base_squared_norms);

    double exact(std::size_t i, std::size_t j) const;

    // What users see: the cosine, the inner product, or the Euclidean distance negated.
    float similarity(double exact_score) const;

    // A float32 strictly below every bound of a pair whose exact score is at least `exact_score`.
    float below(std::size_t i, double exact_score) const;

    // A query without direction has no neighbors by cosine.
    bool has_neighbors(std::size_t i) const;

    std::vector<float> query_factor, base_factor, base_offset;
    float product_error;

  private:
    Metric metric_;
    RowSet queries_, base_;
    const std::vector<double>& query_squared_norms_;
    const std::vector<double>& base_squared_norms_;
    double scale_ = 1.0;
};

// The depth of one float32 product inside a tile: deeper rows are multiplied piece by piece, which
// keeps the proven error bound small (see docs/numerics.md).
constexpr std::size_t product_depth = 256;

// The largest error of c_ij for rows of d coordinates: (min(d, depth) + ceil(d / depth) + 4) u to first
// order for any order of summation, u = 2^-24, and 20 u for the float32 arithmetic that makes a bound
// of it.
float product_error_bound(std::size_t d);

inline float upper_bound(float query_factor, float base_factor, float base_offset, float product,
                         float error) {
    return query_factor * (base_factor * (product + error)) + base_offset;
}

// Where bounds of the products c[begin..end) exceed a limit. Both return the first group of
// `scan_width` positions, from `begin` on, in which some bound is above; `end` if none is.
constexpr std::size_t scan_width = 64;

// One query against consecutive base rows.
std::size_t find_above(const float* products, const float* base_factor, const float* base_offset, float error,
                       float query_factor, float limit, std::size_t begin, std::size_t end);

// Consecutive queries, each with its own limit, against one base row.
std::size_t find_above_queries(const float* products, const float* query_factor, const float* limits,
                               float error, float base_factor, float base_offset, std::size_t begin,
                               std::size_t end);

}  // namespace embgeom

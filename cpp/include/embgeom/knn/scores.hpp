#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/base/matrix_view.hpp"

namespace embgeom {

enum class Metric { cosine, inner_product, euclidean };

// How near row j of the base is to query i: a float64 score, larger is nearer. It is what ranks neighbors.
//
//   cosine          s_ij = x_i.y_j / sqrt(|x_i|^2 |y_j|^2)
//   inner product   s_ij = x_i.y_j
//   Euclidean       s_ij = -|x_i - y_j|^2
//
// Both norms belong to the caller. Cost: d multiply-adds.
class Scores {
  public:
    Scores(Metric metric, RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
           const std::vector<double>& base_squared_norms)
        : metric_(metric),
          queries_(queries),
          base_(base),
          query_squared_norms_(query_squared_norms),
          base_squared_norms_(base_squared_norms) {}

    double exact(std::size_t i, std::size_t j) const;

    // Scores of query i for `count` base rows, whose numbers it takes from `rows`; the same, and faster.
    void exact(std::size_t i, const std::int32_t* rows, std::size_t count, double* scores) const;

    // What users see: the cosine, the inner product, or the Euclidean distance negated. Rounding to float32
    // keeps the order, so scores of different similarities need no second look.
    float similarity(double score) const {
        return static_cast<float>(metric_ == Metric::euclidean ? -std::sqrt(-score) : score);
    }

    // The score of the next lower float32: below all scores of this similarity. Scores of that float32 itself
    // may lie on either side.
    double below(float similarity) const;

    // Rows without direction have no cosine: they have no neighbors, and are nobody's.
    bool query_counts(std::size_t i) const {
        return metric_ != Metric::cosine || query_squared_norms_[i] > 0.0;
    }
    bool base_row_counts(std::size_t j) const {
        return metric_ != Metric::cosine || base_squared_norms_[j] > 0.0;
    }

  private:
    // The score that a sum over coordinates makes: a dot product, or a squared distance.
    double from_sum(std::size_t i, std::size_t j, double sum) const;

    Metric metric_;
    RowSet queries_, base_;
    const std::vector<double>& query_squared_norms_;
    const std::vector<double>& base_squared_norms_;
};

}  // namespace embgeom

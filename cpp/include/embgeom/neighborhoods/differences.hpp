#pragma once

#include <cstddef>
#include <vector>

#include "embgeom/base/aligned.hpp"

namespace embgeom {

// Prefetches the cache lines of rows that will be needed soon, a few at a time between other work: rows of an
// embedding matrix lie far apart, and waiting for memory takes longer than the arithmetic on them.
class Prefetch {
  public:
    Prefetch() = default;
    Prefetch(const std::vector<const float*>& rows, std::size_t d)
        : rows_(rows.data()), count_(rows.size()), d_(d) {}

    std::size_t lines() const { return count_ * divide_up(d_, floats_in_line); }
    void ask(std::size_t lines);

  private:
    const float* const* rows_ = nullptr;
    std::size_t count_ = 0;
    std::size_t d_ = 0;
    std::size_t row_ = 0;
    std::size_t column_ = 0;
};

// The differences x - y_j (d) between a row x and k others y_j, in float64: differences of float32 are exact
// there up to one rounding. They are formed in a workspace, a piece of 256 coordinates at a time, and never
// kept.
class Differences {
  public:
    Differences(std::size_t k, std::size_t d);

    // Lower triangle of G (k, k), G_jl = (x - y_j).(x - y_l). Meanwhile all rows of `prefetch` are fetched.
    // Cost: k^2 d / 2 multiply-adds. On processors with AVX2 a small G comes from blocks that add up in
    // registers, a large one from BLAS.
    void fill_gram(const float* x, const float* const* y, double* gram, Prefetch prefetch);

    // |sum_j w_j (x - y_j)|, from the differences themselves: sqrt(w' G w) would lose half of the digits of a
    // small length. Cost: k d multiply-adds.
    double combined_length(const float* x, const float* const* y, const double* weights) const;

  private:
    double* workspace() { return workspace_.data(); }

    // A piece of x in float64, after the rows.
    double* origin() { return workspace() + k_ * stride_; }

    std::size_t k_, d_;
    std::size_t stride_;  // of a row of the workspace
    AlignedVector<double> workspace_;
};

}  // namespace embgeom

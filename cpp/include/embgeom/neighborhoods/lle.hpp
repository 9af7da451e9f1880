#pragma once

#include <cstdint>
#include <span>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/neighborhoods/neighborhood.hpp"

namespace embgeom {

enum class LleStatus : std::uint8_t {
    ok = 0,
    duplicate = 1,       // some neighbors equal each other, or the token
    rank_deficient = 2,  // without regularization the weights would not be unique (always so for k > d)
    coincident = 3,      // every neighbor equals the token: uniform weights
    no_neighbors = 4,    // the list holds a -1: no weights
    singular = 5,        // not positive definite even as regularized: no weights
};

struct LleResult {
    MatrixView<float> weights;       // (m, k), each row sums to 1; NaN where there are none
    std::span<float> residuals;      // (m), |x_i - sum_j w_j x_j|
    std::span<std::uint8_t> status;  // (m), of LleStatus
};

// Reconstruction weights of locally linear embedding: each token as the affine combination of its k
// neighbors that comes closest to it.
//
//   G_jl = (x_i - x_j).(x_i - x_l)     the Gram matrix (k, k) of the neighbors as seen from the token
//   (G + reg * trace(G) * I) w = 1,  w <- w / sum(w)
//   residual = |sum_j w_j (x_i - x_j)|
//
// All in float64; the differences of float32 rows are exact there up to one rounding. Cost for each
// token: k^2 d / 2 + k^3 / 3 multiply-adds (k^3 / 6 twice: for the rank, and for the weights). Workspace for
// each worker: 2 k^2 + 264 k float64.
void lle(const Neighborhoods& neighborhoods, double reg, int threads, Monitor& monitor,
         const LleResult& result);

}  // namespace embgeom

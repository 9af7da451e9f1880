#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/neighborhoods/neighborhood.hpp"

namespace embgeom {

struct IntrinsicDimensionResult {
    std::span<std::int32_t> n_components;       // (m), -1 without neighbors, 0 where all neighbors are equal
    std::span<float> participation_ratio;       // (m), NaN without neighbors
    std::span<float> explained_variance_ratio;  // (m), the share of variance of `n_components` components
    std::span<bool> decided_in_float64;         // (m), whether float32 could have been wrong
};

// Intrinsic dimension of each token's neighborhood: how many principal components its k neighbors need.
//
//   Z (k, d)  the neighbors minus their mean; l_1 >= l_2 >= ... the eigenvalues of Z'Z
//   n_components = min { c : l_1 + ... + l_c >= variance * sum(l) }
//   participation_ratio = sum(l)^2 / sum(l^2)
//
// `n_components` is the integer of float64 arithmetic, but for the odds that docs/numerics.md derives.
// Float32 finds it (see spectrum.hpp); where the share of c or of c - 1 components comes within the error
// bound of the threshold, float64 decides. A result of float32 has a participation_ratio with a relative
// error of about 2e-6, and an explained_variance_ratio within that bound. Cost for each token, with p =
// min(k, d): p k d / 2 + (2/3) p^3 multiply-adds in float32, and the same in float64 for the few tokens near
// the threshold (`decided_in_float64`). Workspace for each worker: about 14 (p^2 + 430 p) + 16 max(k, d)
// bytes, of which 8 p^2 + 2,600 p come once float64 is needed.
void intrinsic_dimension(const Neighborhoods& neighborhoods, double variance, int threads, Monitor& monitor,
                         const IntrinsicDimensionResult& result);

// What float32 finds for the neighbors listed, for tests: the shares of the c = 1, 2, ..., p largest
// eigenvalues, and the bounds of their errors, infinite where float64 would decide in any case.
void float32_shares(const MatrixView<const float>& x, const std::vector<std::int32_t>& list,
                    std::span<double> shares, std::span<double> bounds);

}  // namespace embgeom

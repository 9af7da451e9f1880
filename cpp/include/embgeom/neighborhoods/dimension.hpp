#pragma once

#include <cstdint>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/neighborhoods/neighborhood.hpp"

namespace embgeom {

struct DimensionResult {
    std::int32_t* components;    // (m), -1 without neighbors, 0 where all neighbors are equal
    float* participation_ratio;  // (m), NaN without neighbors
    float* explained;            // (m), the share of variance that `components` components reach
};

// Intrinsic dimension of each token's neighborhood: how many principal components its k neighbors need.
//
//   Z (k, d)  the neighbors minus their mean; l_1 >= l_2 >= ... the eigenvalues of Z'Z
//   components = min { c : l_1 + ... + l_c >= variance * sum(l) }
//   participation_ratio = sum(l)^2 / sum(l^2)
//
// `components` is the integer of float64 arithmetic. Float32 finds it (see spectrum.hpp); where the share of
// c or of c - 1 components comes within the error bound of the threshold, float64 decides. What float32
// found has a participation_ratio right to about 2e-6 relative, and an `explained` right to that bound.
// Cost for each token, with p = min(k, d): p k d / 2 + (2/3) p^3 multiply-adds in float32, and the same in
// float64 for the few tokens near the threshold. Workspace for each worker: p^2 + 512 k or 256 d float32,
// and, once it is needed, as many float64.
void intrinsic_dimension(const Neighborhoods& neighborhoods, double variance, int threads, Monitor& monitor,
                         const DimensionResult& result);

}  // namespace embgeom

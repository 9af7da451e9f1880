#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/base/aligned.hpp"

namespace embgeom {

// Estimates how far a Gram matrix in float32 is from the exact one: with vectors v of random signs, drawn
// from the neighbors' row numbers so that no two neighborhoods share them,
//
//     |C - Z'Z|_F^2  is about the mean of |C v - Z'(Z v)|^2
//
// where everything but C is float64. Bounds on single roundings cannot show this: those of a sum of many
// equal terms, as from equal neighbors, all have one sign, while usually they cancel. Signs see errors of few
// coordinates because the diagonal, which they could not tell from the rest, is exact but for one rounding
// (see docs/numerics.md). Cost: 8 products of matrix and vector with each of Z, Z' and C.
class GramProbe {
  public:
    // Resets the estimate, for a C of `order` rows made of the neighbors listed.
    void begin(std::size_t order, const std::vector<std::int32_t>& list);

    // C is a sum of Z'Z over pieces Z (count, order), or of Z Z' over pieces Z (order, width).
    void add_rows(const float* z, std::size_t count);
    void add_columns(const float* z, std::size_t width);

    // The estimate of |C - Z'Z|_F, for C (order, order) of which the lower triangle is given.
    double error(const float* c);

  private:
    static constexpr std::size_t probes = 8;

    std::size_t order_ = 0;
    AlignedVector<double> signs_;     // (probes, order)
    AlignedVector<double> products_;  // (probes, order): Z'Z v, at the end minus C v
    AlignedVector<double> factors_;   // (probes, width): Z'v of a piece
};

}  // namespace embgeom

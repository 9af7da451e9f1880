#pragma once

#include <cstddef>

namespace embgeom {

// Sums over the d coordinates of two rows, in float64 and in one fixed order: the result is a function
// of the two rows alone (and symmetric in them), whatever the processor, the thread or the place in a
// tile.

// sum_l a_l b_l. The product of two float32 is exact in float64.
double dot(const float* a, const float* b, std::size_t d);

// sum_l (a_l - b_l)^2.
double squared_distance(const float* a, const float* b, std::size_t d);

}  // namespace embgeom

#pragma once

#include <cstddef>

namespace embgeom {

// Sums over the coordinates of two float32 rows, in float64. Each is one fixed function of its input: eight
// partial sums, added up in a fixed tree, with the same bits on every x86-64 processor.

// sum_l a_l b_l
double dot(const float* a, const float* b, std::size_t d);

// sum_l (a_l - b_l)^2
double squared_distance(const float* a, const float* b, std::size_t d);

// The same for one row and up to eight others at a time, with the same bits: this keeps a processor busy,
// where one sum alone waits for its own last addition.
constexpr std::size_t rows_at_a_time = 8;
void dots(const float* a, const float* const* b, std::size_t count, std::size_t d, double* sums);
void squared_distances(const float* a, const float* const* b, std::size_t count, std::size_t d, double* sums);

}  // namespace embgeom

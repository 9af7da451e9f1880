#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "embgeom/base/matrix_view.hpp"

namespace embgeom {

// For each of N finite values how many are smaller, plus half of how many others are equal, from 0 to N - 1;
// and the places of the values in ascending order, equal ones as they stand. N < 2^32.
//
// Three passes of a radix sort over the bits. Cost: some 10 N steps. Workspace: 16 N bytes.
void rank(std::span<const float> values, std::span<std::int64_t> order, std::span<double> ranks);

// The rank correlation of m (m - 1) / 2 numbers, whose centered ranks are given, with the products x_i.x_j of
// the m rows of a matrix, i < j, in the order of i and then of j; 0 where all products are equal.
//
// Products are float32. Their ranks are those of their 2^16 even steps from the least to the greatest: equal
// ones are averaged, and so nothing is sorted. Where products are spread over s steps (their standard
// deviation), the correlation is too small by no more than about 1 / (24 s^2) of itself. Cost: m^2 d / 2
// multiply-adds and a few steps a pair. Workspace: 4 bytes a pair, 1 MiB, and 64 m numbers.
double rank_correlation(MatrixView<const float> x, std::span<const double> ranks);

}  // namespace embgeom

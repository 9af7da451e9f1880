#pragma once

#include <cstdint>
#include <span>

namespace embgeom {

// For each of N finite values how many are smaller, plus half of how many others are equal, from 0 to N - 1;
// and the places of the values in ascending order, equal ones as they stand. N < 2^32.
//
// Three passes of a radix sort over the bits. Cost: some 10 N steps. Workspace: 16 N bytes.
void rank(std::span<const float> values, std::span<std::int64_t> order, std::span<double> ranks);

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <limits>

namespace embgeom {

// Half the distance from 1 to the next larger float32: the largest relative error of one rounding.
constexpr double unit_roundoff = 0x1p-24;

constexpr float infinity = std::numeric_limits<float>::infinity();

constexpr std::size_t divide_up(std::size_t value, std::size_t unit) {
    return (value + unit - 1) / unit;
}

constexpr std::size_t round_up(std::size_t value, std::size_t unit) {
    return divide_up(value, unit) * unit;
}

}  // namespace embgeom

#pragma once

#include <cstddef>

#include "embgeom/base/arithmetic.hpp"

namespace embgeom {

// The columns of a matrix, cut into strips of nearly equal width, so that none is so narrow that its products
// are slow. A product of two matrices is computed strip by strip.
class Strips {
  public:
    Strips(std::size_t columns, std::size_t widest) : columns_(columns), count_(divide_up(columns, widest)) {}

    std::size_t count() const { return count_; }
    std::size_t begin(std::size_t strip) const { return strip * columns_ / count_; }
    std::size_t width(std::size_t strip) const { return begin(strip + 1) - begin(strip); }

  private:
    std::size_t columns_, count_;
};

}  // namespace embgeom

#pragma once

#include <cstddef>

#include "embgeom/base/parallel.hpp"

namespace embgeom {

// Shows many parallel loops, each over a slab of rows, as one that counts rows.
class Walk : public Monitor {
  public:
    Walk(Monitor& monitor, std::size_t total) : monitor_(monitor), total_(total) {}

    void report(const char*, std::size_t, std::size_t) override {
        monitor_.report("multiply", done_, total_);
    }
    void advance(std::size_t rows) {
        done_ += rows;
        monitor_.report("multiply", done_, total_);
    }

  private:
    Monitor& monitor_;
    std::size_t total_, done_ = 0;
};

}  // namespace embgeom

#pragma once

#include <cstddef>

#include "embgeom/base/arithmetic.hpp"

namespace embgeom {

// Numbers 0 to items - 1 dealt out to blocks as cards are dealt to players, eight at a time: block b holds
// the runs b, b + count(), b + 2 count(), ... of eight consecutive numbers. So every block is an even sample
// of the whole, from which the others can be predicted; and the rows of a run share pages of memory. The
// number of blocks is odd, since rows that lie a power of two apart would compete for the same cache lines.
class Blocks {
  public:
    static constexpr std::size_t run = 8;

    // `largest`, a multiple of eight, is the most that a block may hold.
    Blocks(std::size_t items, std::size_t largest)
        : items_(items),
          runs_(divide_up(items, run)),
          count_(divide_up(items, largest) | 1U),
          width_(divide_up(runs_, count_) * run) {}

    std::size_t count() const { return count_; }

    // Places for items in each block; the last places of some are empty.
    std::size_t width() const { return width_; }

    std::size_t size(std::size_t block) const {
        const std::size_t places = (runs_ + count_ - 1 - block) / count_ * run;
        // The last run may be short.
        const bool has_last = runs_ > 0 && (runs_ - 1) % count_ == block;
        return places - (has_last ? runs_ * run - items_ : 0);
    }

    std::size_t item(std::size_t block, std::size_t place) const {
        return (block + place / run * count_) * run + place % run;
    }

  private:
    std::size_t items_, runs_, count_, width_;
};

}  // namespace embgeom

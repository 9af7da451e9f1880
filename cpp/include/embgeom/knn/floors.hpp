#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/knn/bounds.hpp"
#include "embgeom/knn/candidates.hpp"
#include "embgeom/knn/scores.hpp"
#include "embgeom/knn/search.hpp"
#include "embgeom/knn/tiles.hpp"

namespace embgeom {

// Guesses the floors of queries (see candidates.hpp) long before k rows have been found. Blocks are even
// samples of the base, so how many of a query's k nearest rows lie in the blocks seen so far is nearly a
// Poisson variable, or varies less: the row of a rank that this number hardly exceeds is a floor. It does
// exceed it for one query in some thousands; `Candidates::finish` reports that query, and it is searched
// again without guesses.
class FloorGuess {
  public:
    struct Scratch {
        std::vector<float> bounds;
        std::vector<std::uint32_t> order;
    };

    // With too few blocks there is nothing to guess from, and k is the rank throughout.
    FloorGuess(const SearchSetup& setup, bool allowed);

    bool enabled() const { return enabled_; }

    // The rank, at most k, that a row among the k nearest has within `blocks` blocks of the base, nearly
    // always.
    std::size_t likely_rank(std::size_t blocks) const;

    // Gives each query of a tile that has no floor yet (`row_limits` holds -infinity) one from this tile
    // alone, and updates its limit.
    void guess_from(const Tile& tile, const Scores& scores, const Bounds& bounds, Candidates& candidates,
                    std::vector<float>& row_limits, Scratch& scratch) const;

    // After 2, 4, 8, ... tiles the floors of a block's queries are guessed again, from everything it has
    // seen.
    static bool is_due(std::size_t tiles);

  private:
    const SearchSetup& setup_;
    bool enabled_;
};

}  // namespace embgeom

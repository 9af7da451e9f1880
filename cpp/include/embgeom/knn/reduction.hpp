#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "embgeom/knn/bounds.hpp"
#include "embgeom/knn/candidates.hpp"
#include "embgeom/knn/floors.hpp"
#include "embgeom/knn/scores.hpp"
#include "embgeom/knn/search.hpp"
#include "embgeom/knn/tiles.hpp"

namespace embgeom {

// Reduces tiles of products into candidates: finds the places whose bound is above a limit, scores those
// pairs exactly while their rows are still in the cache, and hands them over to the queries. In a self-join a
// tile counts twice: its rows are queries, and so are its columns. cpp/README.md draws the states of a tile.
class Reduction {
  public:
    Reduction(const SearchSetup& setup, const Scores& scores, const Bounds& bounds, const FloorGuess& guess,
              Candidates& candidates, int workers);

    // May be called for different tiles at the same time, by different workers.
    void reduce(const Tile& tile, const Worker& worker);

  private:
    struct Hit {
        std::uint32_t row, column;  // of the tile
        double score;
    };

    struct Workspace {
        std::vector<float> row_limits, column_limits;
        std::vector<std::uint32_t> found;
        std::vector<std::vector<Hit>> hits;  // by strip
        std::vector<Hit> by_row, by_column;
        std::vector<std::uint32_t> starts;
        FloorGuess::Scratch guess;
        Candidates::Scratch cut;
    };

    // How many tiles of a block of queries were begun and done. One worker at a time may change their
    // candidates.
    struct BlockState {
        std::mutex mutex;
        std::size_t begun = 0, done = 0;
    };

    class BothBlocks;

    bool counts_twice(const Tile& tile) const {
        return setup_.self_join && tile.query_block != tile.base_block;
    }
    void begin(const Tile& tile, Workspace& space);
    std::size_t keep_pairs(const Tile& tile, std::size_t row, std::size_t count, Workspace& space) const;
    void score_hits(const Tile& tile, Workspace& space) const;
    void hand_over(const Tile& tile, Workspace& space);
    static void sort_hits(Workspace& space, std::size_t places, std::uint32_t Hit::* place,
                          std::vector<Hit>& sorted);
    void offer(const Blocks& blocks, std::size_t block, const Blocks& other_blocks, std::size_t other,
               std::uint32_t Hit::* place, std::uint32_t Hit::* other_place, const std::vector<Hit>& sorted,
               Workspace& space);
    void end(const Tile& tile, Workspace& space);
    void tighten(std::size_t block, Workspace& space);
    void copy_limits(const Tile& tile, Workspace& space) const;

    const SearchSetup& setup_;
    const Scores& scores_;
    const Bounds& bounds_;
    const FloorGuess& guess_;
    Candidates& candidates_;
    std::size_t strip_;  // columns in a strip of a tile
    std::vector<BlockState> states_;
    std::vector<Workspace> workspaces_;
};

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

#include "embgeom/knn/bounds.hpp"
#include "embgeom/knn/candidates.hpp"
#include "embgeom/knn/scores.hpp"
#include "embgeom/knn/tiles.hpp"

namespace embgeom {

// What a reduction needs to know of the search that it belongs to.
struct ReductionSetup {
    RowSet queries;
    Blocks query_blocks, base_blocks;
    std::size_t k;
    bool self_join;
    // A query is the base row of its row number, and not its own neighbor.
    bool exclude_self;
    // Whether floors may be guessed from the part of the base seen so far.
    bool guess;
};

// Reduces tiles of products into candidates: finds the places whose bound is above a limit, scores those
// pairs exactly while their rows are still in the cache, and hands them to the queries concerned. In a
// self-join each tile counts twice: its rows are queries, and so are its columns.
class Reduction {
  public:
    Reduction(const ReductionSetup& setup, const Scores& scores, const Bounds& bounds, Candidates& candidates,
              int workers);

    // May be called for different tiles at the same time.
    void reduce(const Tile& tile, const Worker& worker);

  private:
    struct Hit {
        std::uint32_t row, column;  // of the tile
        double score;
    };

    struct Workspace {
        std::vector<float> row_limits, column_limits, bounds;
        std::vector<std::uint32_t> found;
        std::vector<std::vector<Hit>> hits;  // by strip
        std::vector<Hit> by_row, by_column;
        std::vector<std::uint32_t> starts;
        Candidates::Scratch scratch;
    };

    // The queries of a block, and how many tiles they have met: taken by one worker at a time.
    struct BlockState {
        std::mutex mutex;
        std::size_t begun = 0, done = 0;
    };

    class BothBlocks;

    bool counts_twice(const Tile& tile) const {
        return setup_.self_join && tile.query_block != tile.base_block;
    }
    bool is_pair(std::size_t i, std::size_t j) const;
    std::size_t likely_rank(std::size_t tiles) const;
    void begin(const Tile& tile, Workspace& space);
    void guess_floors(const Tile& tile, Workspace& space);
    std::size_t keep_pairs(const Tile& tile, std::size_t row, std::size_t count, Workspace& space) const;
    void score_hits(const Tile& tile, Workspace& space) const;
    void hand_over(const Tile& tile, Workspace& space);
    static void sort_hits(Workspace& space, std::size_t places, std::uint32_t Hit::* place,
                          std::vector<Hit>& sorted);
    void offer(std::size_t block, std::size_t i, std::size_t j, double score, Workspace& space);
    void end(const Tile& tile, Workspace& space);
    void tighten(std::size_t block, Workspace& space);
    void copy_limits(const Tile& tile, Workspace& space) const;

    ReductionSetup setup_;
    const Scores& scores_;
    const Bounds& bounds_;
    Candidates& candidates_;
    std::size_t strip_;  // columns in a strip of a tile
    std::vector<BlockState> states_;
    std::vector<Workspace> workspaces_;
};

}  // namespace embgeom

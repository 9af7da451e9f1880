#include "embgeom/knn/reduction.hpp"

#include <algorithm>
#include <numeric>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/dot.hpp"

namespace embgeom {
namespace {

// The constants here were tuned by benchmarks/kernels/bench_knn.py.

// Hits are handed over in batches, so that limits rise while a tile full of hits is reduced.
constexpr std::size_t batch = 8192;

// The base rows of a strip of columns: what a second-level cache of 512 KiB holds besides everything else.
constexpr std::size_t strip_bytes = std::size_t{288} << 10U;

}  // namespace

// Locks the one or two blocks of queries that a tile concerns, in order of their numbers.
class Reduction::BothBlocks {
  public:
    BothBlocks(Reduction& reduction, const Tile& tile) {
        const auto [low, high] = std::minmax(tile.query_block, tile.base_block);
        if (!reduction.counts_twice(tile)) {
            first_ = std::unique_lock(reduction.states_[tile.query_block].mutex);
            return;
        }
        first_ = std::unique_lock(reduction.states_[low].mutex);
        second_ = std::unique_lock(reduction.states_[high].mutex);
    }

  private:
    std::unique_lock<std::mutex> first_, second_;
};

Reduction::Reduction(const SearchSetup& setup, const Scores& scores, const Bounds& bounds,
                     const FloorGuess& guess, Candidates& candidates, int workers)
    : setup_(setup),
      scores_(scores),
      bounds_(bounds),
      guess_(guess),
      candidates_(candidates),
      strip_(std::max<std::size_t>(1, strip_bytes / (sizeof(float) * setup.queries.matrix.cols))),
      states_(setup.query_blocks.count()),
      workspaces_(static_cast<std::size_t>(workers)) {
    for (auto& space : workspaces_) {
        space.row_limits.resize(setup.query_blocks.width());
        space.column_limits.assign(setup.base_blocks.width(), infinity);
        space.found.resize(setup.base_blocks.width() + Bounds::spare_places);
        space.hits.resize(divide_up(setup.base_blocks.width(), strip_));
        space.by_row.reserve(batch + setup.base_blocks.width());
        space.by_column.reserve(batch + setup.base_blocks.width());
    }
}

void Reduction::reduce(const Tile& tile, const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    begin(tile, space);
    std::size_t hits = 0;
    for (std::size_t row = 0; row < tile.products.rows; ++row) {
        const std::size_t count = bounds_.find_above(tile, row, space.row_limits[row],
                                                     space.column_limits.data(), space.found.data());
        hits += keep_pairs(tile, row, count, space);
        if (hits >= batch) {
            worker.checkpoint();
            hand_over(tile, space);
            hits = 0;
        }
    }
    if (hits > 0) hand_over(tile, space);
    end(tile, space);
}

void Reduction::copy_limits(const Tile& tile, Workspace& space) const {
    for (std::size_t c = 0; c < tile.products.rows; ++c)
        space.row_limits[c] = candidates_.limit(setup_.query_blocks.item(tile.query_block, c));
    if (!setup_.self_join) return;
    for (std::size_t c = 0; c < tile.products.cols; ++c) {
        space.column_limits[c] =
            counts_twice(tile) ? candidates_.limit(setup_.base_blocks.item(tile.base_block, c)) : infinity;
    }
}

void Reduction::begin(const Tile& tile, Workspace& space) {
    const BothBlocks lock(*this, tile);
    ++states_[tile.query_block].begun;
    if (counts_twice(tile)) ++states_[tile.base_block].begun;
    copy_limits(tile, space);
    guess_.guess_from(tile, scores_, bounds_, candidates_, space.row_limits, space.guess);
}

std::size_t Reduction::keep_pairs(const Tile& tile, std::size_t row, std::size_t count,
                                  Workspace& space) const {
    const std::size_t i = setup_.query_blocks.item(tile.query_block, row);
    std::size_t pairs = 0;
    for (std::size_t c = 0; c < count; ++c) {
        const std::uint32_t column = space.found[c];
        if (!setup_.is_pair(scores_, i, setup_.base_blocks.item(tile.base_block, column))) continue;
        space.hits[column / strip_].push_back({static_cast<std::uint32_t>(row), column, 0.0});
        ++pairs;
    }
    return pairs;
}

// The base rows of a strip stay in the second-level cache while the hits of all queries are scored.
void Reduction::score_hits(const Tile& tile, Workspace& space) const {
    std::int32_t rows[rows_at_a_time];
    double scores[rows_at_a_time];
    for (auto& hits : space.hits) {
        for (std::size_t begin = 0, end = 0; begin < hits.size(); begin = end) {
            while (end < hits.size() && end < begin + rows_at_a_time && hits[end].row == hits[begin].row) {
                const std::size_t j = setup_.base_blocks.item(tile.base_block, hits[end].column);
                rows[end - begin] = static_cast<std::int32_t>(j);
                ++end;
            }
            const std::size_t i = setup_.query_blocks.item(tile.query_block, hits[begin].row);
            scores_.exact(i, rows, end - begin, scores);
            for (std::size_t h = begin; h < end; ++h) hits[h].score = scores[h - begin];
        }
    }
}

void Reduction::hand_over(const Tile& tile, Workspace& space) {
    score_hits(tile, space);
    sort_hits(space, tile.products.rows, &Hit::row, space.by_row);
    if (counts_twice(tile)) sort_hits(space, tile.products.cols, &Hit::column, space.by_column);
    for (auto& hits : space.hits) hits.clear();
    const BothBlocks lock(*this, tile);
    offer(setup_.query_blocks, tile.query_block, setup_.base_blocks, tile.base_block, &Hit::row, &Hit::column,
          space.by_row, space);
    if (counts_twice(tile)) {
        offer(setup_.base_blocks, tile.base_block, setup_.query_blocks, tile.query_block, &Hit::column,
              &Hit::row, space.by_column, space);
    }
    copy_limits(tile, space);
}

// Sorts the hits of all strips by a place that is below `places`.
void Reduction::sort_hits(Workspace& space, std::size_t places, std::uint32_t Hit::* place,
                          std::vector<Hit>& sorted) {
    auto& starts = space.starts;
    starts.assign(places + 1, 0);
    for (const auto& hits : space.hits) {
        for (const Hit& hit : hits) ++starts[hit.*place + 1];
    }
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    sorted.resize(starts.back());
    for (const auto& hits : space.hits) {
        for (const Hit& hit : hits) sorted[starts[hit.*place]++] = hit;
    }
}

// Offers hits, sorted by the place of a query in its block, to the queries. Buffers lie far apart in memory,
// so each is visited once for all its hits.
void Reduction::offer(const Blocks& blocks, std::size_t block, const Blocks& other_blocks, std::size_t other,
                      std::uint32_t Hit::* place, std::uint32_t Hit::* other_place,
                      const std::vector<Hit>& sorted, Workspace& space) {
    constexpr std::size_t ahead = 24;
    const std::size_t rank = guess_.likely_rank(states_[block].begun);
    for (std::size_t begin = 0, end = 0, fetched = 0; begin < sorted.size(); begin = end) {
        while (end < sorted.size() && sorted[end].*place == sorted[begin].*place) ++end;
        for (; fetched < std::min(end + ahead, sorted.size()); ++fetched) {
            if (fetched == 0 || sorted[fetched].*place != sorted[fetched - 1].*place)
                candidates_.prefetch(blocks.item(block, sorted[fetched].*place));
        }
        const std::size_t i = blocks.item(block, sorted[begin].*place);
        const auto entry = [&](std::size_t h) {
            const Hit& hit = sorted[begin + h];
            const std::size_t j = other_blocks.item(other, hit.*other_place);
            return Candidates::Scored{hit.score, static_cast<std::int32_t>(j)};
        };
        while ((begin += candidates_.insert(i, end - begin, entry)) < end)
            candidates_.cut(i, rank, space.cut);
    }
}

void Reduction::end(const Tile& tile, Workspace& space) {
    if (!guess_.enabled()) return;
    const BothBlocks lock(*this, tile);
    ++states_[tile.query_block].done;
    tighten(tile.query_block, space);
    if (!counts_twice(tile)) return;
    ++states_[tile.base_block].done;
    tighten(tile.base_block, space);
}

void Reduction::tighten(std::size_t block, Workspace& space) {
    const BlockState& state = states_[block];
    if (!FloorGuess::is_due(state.done)) return;
    const std::size_t rank = guess_.likely_rank(state.begun);
    for (std::size_t c = 0; c < setup_.query_blocks.size(block); ++c)
        candidates_.tighten(setup_.query_blocks.item(block, c), rank, space.cut);
}

}  // namespace embgeom

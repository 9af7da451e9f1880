#include "embgeom/reduction.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

namespace embgeom {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// Hits are handed over in batches, so that limits rise while a tile full of hits is reduced.
constexpr std::size_t batch = 8192;

// How often a guess may be too high.
constexpr double risk = 1.0 / 3000.0;

// The smallest number that a Poisson variable exceeds with a probability below `risk`.
std::size_t poisson_quantile(double mean) {
    constexpr double nearly_normal = 50.0, normal_quantile = 3.4;
    if (mean > nearly_normal) return static_cast<std::size_t>(mean + normal_quantile * std::sqrt(mean) + 2.0);
    double term = std::exp(-mean), above = 1.0 - term;
    std::size_t number = 0;
    while (above >= risk) {
        ++number;
        term *= mean / static_cast<double>(number);
        above -= term;
    }
    return number;
}

// Calls visit(item, later) for each item, `later` being one whose turn comes soon.
template <class Item, class Visit>
void for_each_with_later(const std::vector<Item>& items, Visit visit) {
    constexpr std::size_t ahead = 24;
    for (std::size_t h = 0; h < items.size(); ++h)
        visit(items[h], items[std::min(h + ahead, items.size() - 1)]);
}

}  // namespace

// The states of the one or two blocks of queries that a tile concerns, locked in order of their numbers.
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

Reduction::Reduction(const ReductionSetup& setup, const Scores& scores, const Bounds& bounds,
                     Candidates& candidates, int workers)
    : setup_(setup),
      scores_(scores),
      bounds_(bounds),
      candidates_(candidates),
      states_(setup.query_blocks.count()),
      workspaces_(static_cast<std::size_t>(workers)) {
    for (auto& space : workspaces_) {
        space.row_limits.resize(setup.query_blocks.width());
        space.column_limits.assign(setup.base_blocks.width(), infinity);
        space.bounds.resize(setup.base_blocks.width());
        space.found.resize(setup.base_blocks.width());
        space.rows.resize(setup.base_blocks.width());
        space.scores.resize(setup.base_blocks.width());
        space.hits.reserve(batch + setup.base_blocks.width());
    }
}

void Reduction::reduce(const Tile& tile, const Worker& worker) {
    Workspace& space = workspaces_[static_cast<std::size_t>(worker.id())];
    begin(tile, space);
    for (std::size_t row = 0; row < tile.products.rows; ++row) {
        const std::size_t count = bounds_.find_above(
            tile.products.row(row), tile.query_block, row, tile.base_block, tile.products.cols,
            space.row_limits[row], space.column_limits.data(), space.found.data());
        if (count > 0) score_hits(tile, row, count, space);
        if (space.hits.size() >= batch) {
            worker.checkpoint();
            hand_over(tile, space);
        }
    }
    hand_over(tile, space);
    end(tile, space);
}

bool Reduction::is_pair(std::size_t i, std::size_t j) const {
    const bool self = setup_.exclude_self && setup_.queries.row_number(i) == j;
    return !self && scores_.base_row_counts(j);
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
    if (setup_.guess) guess_floors(tile, space);
}

// The rank within `tiles` blocks of the base, k at most, that a row can hardly miss if it is among the k
// nearest of all: how many of the k fall into these blocks is nearly a Poisson variable, or less variable.
std::size_t Reduction::likely_rank(std::size_t tiles) const {
    const double share =
        std::min(1.0, static_cast<double>(tiles) / static_cast<double>(setup_.base_blocks.count()));
    const double mean = share * static_cast<double>(setup_.k);
    // Where much has been seen, less is left to chance: the variance is that of a binomial variable.
    const double chance = std::sqrt(1.0 - share);
    const double rank = mean + chance * (static_cast<double>(poisson_quantile(mean)) - mean);
    return std::clamp<std::size_t>(static_cast<std::size_t>(std::ceil(rank)), 1, setup_.k);
}

// Gives queries that have no floor yet one from their first tile.
void Reduction::guess_floors(const Tile& tile, Workspace& space) {
    const std::size_t rank = likely_rank(1);
    const std::size_t columns = tile.products.cols;
    if (rank + 1 >= columns) return;
    for (std::size_t row = 0; row < tile.products.rows; ++row) {
        if (space.row_limits[row] != -infinity) continue;
        bounds_.fill(tile.products.row(row), tile.query_block, row, tile.base_block, columns,
                     space.bounds.data());
        auto& places = space.found;
        std::iota(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(columns), 0U);
        // One place further than the rank, since the row itself may be among those before it.
        const auto chosen = places.begin() + static_cast<std::ptrdiff_t>(rank);
        std::nth_element(places.begin(), chosen, places.begin() + static_cast<std::ptrdiff_t>(columns),
                         [&](std::uint32_t a, std::uint32_t b) { return space.bounds[a] > space.bounds[b]; });
        const std::size_t i = setup_.query_blocks.item(tile.query_block, row);
        const std::size_t j = setup_.base_blocks.item(tile.base_block, *chosen);
        if (!is_pair(i, j)) continue;
        candidates_.start(i, scores_.exact(i, j));
        space.row_limits[row] = candidates_.limit(i);
    }
}

void Reduction::score_hits(const Tile& tile, std::size_t row, std::size_t count, Workspace& space) const {
    const std::size_t i = setup_.query_blocks.item(tile.query_block, row);
    std::size_t pairs = 0;
    for (std::size_t c = 0; c < count; ++c) {
        const std::size_t j = setup_.base_blocks.item(tile.base_block, space.found[c]);
        space.rows[pairs] = static_cast<std::int32_t>(j);
        space.found[pairs] = space.found[c];
        pairs += is_pair(i, j) ? 1 : 0;
    }
    scores_.exact(i, space.rows.data(), pairs, space.scores.data());
    for (std::size_t c = 0; c < pairs; ++c)
        space.hits.push_back({static_cast<std::uint32_t>(row), space.found[c], space.scores[c]});
}

// Hits come row by row. Their buffers lie far apart in memory, so each is visited once for all its hits.
void Reduction::hand_over(const Tile& tile, Workspace& space) {
    if (space.hits.empty()) return;
    if (counts_twice(tile)) sort_by_column(tile, space);
    const BothBlocks lock(*this, tile);
    const auto query = [&](const Hit& hit) { return setup_.query_blocks.item(tile.query_block, hit.row); };
    const auto base_row = [&](const Hit& hit) {
        return setup_.base_blocks.item(tile.base_block, hit.column);
    };
    for_each_with_later(space.hits, [&](const Hit& hit, const Hit& later) {
        candidates_.prefetch(query(later));
        offer(tile.query_block, query(hit), base_row(hit), hit.score, space);
    });
    if (counts_twice(tile)) {
        for_each_with_later(space.hits_by_column, [&](const Hit& hit, const Hit& later) {
            candidates_.prefetch(base_row(later));
            offer(tile.base_block, base_row(hit), query(hit), hit.score, space);
        });
    }
    space.hits.clear();
    copy_limits(tile, space);
}

void Reduction::sort_by_column(const Tile& tile, Workspace& space) const {
    auto& starts = space.starts;
    starts.assign(tile.products.cols + 1, 0);
    for (const Hit& hit : space.hits) ++starts[hit.column + 1];
    std::partial_sum(starts.begin(), starts.end(), starts.begin());
    space.hits_by_column.resize(space.hits.size());
    for (const Hit& hit : space.hits) space.hits_by_column[starts[hit.column]++] = hit;
}

void Reduction::offer(std::size_t block, std::size_t i, std::size_t j, double score, Workspace& space) {
    const Candidates::Scored entry{score, static_cast<std::int32_t>(j)};
    if (!candidates_.takes(i, entry)) return;
    if (candidates_.full(i)) {
        candidates_.cut(i, setup_.guess ? likely_rank(states_[block].begun) : setup_.k, space.scratch);
        if (!candidates_.takes(i, entry)) return;
    }
    candidates_.insert(i, entry);
}

void Reduction::end(const Tile& tile, Workspace& space) {
    if (!setup_.guess) return;
    const BothBlocks lock(*this, tile);
    ++states_[tile.query_block].done;
    tighten(tile.query_block, space);
    if (!counts_twice(tile)) return;
    ++states_[tile.base_block].done;
    tighten(tile.base_block, space);
}

// After 2, 4, 8, ... tiles the floors of a block are guessed anew, from all that it has seen.
void Reduction::tighten(std::size_t block, Workspace& space) {
    const BlockState& state = states_[block];
    if (state.done < 2 || !std::has_single_bit(state.done)) return;
    const std::size_t rank = likely_rank(state.begun);
    for (std::size_t c = 0; c < setup_.query_blocks.size(block); ++c)
        candidates_.cut(setup_.query_blocks.item(block, c), rank, space.scratch);
}

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/knn/bounds.hpp"
#include "embgeom/knn/scores.hpp"

namespace embgeom {

// Where the buffers of queries lie: in rows of two matrices that belong to the caller, in the order of the
// queries or where `places` says.
struct Buffers {
    MatrixView<std::int32_t> rows;
    MatrixView<float> similarities;
    std::optional<std::span<const std::int64_t>> places = std::nullopt;

    std::size_t place(std::size_t i) const { return places ? static_cast<std::size_t>((*places)[i]) : i; }
    std::int32_t* rows_of(std::size_t i) const { return rows.row(place(i)); }
    float* similarities_of(std::size_t i) const { return similarities.row(place(i)); }
};

// The rows that may be among the k nearest of each query: a buffer for each query, in no order, that is
// cut back to its best entries when it is full.
//
// A query's floor is a score and a row number; only what is better (a larger score, or an equal one and a
// smaller row) is taken, and whatever was dropped is not. It rises to the k-th best entry, when the buffer is
// cut or looked through; or to one of a lower rank, a guess that may prove too high: then fewer than k rows
// at or above it are left at the end, and `finish` says so.
//
// The buffers hold similarities rounded to float32. That is enough to tell which is larger unless they
// are equal; the few that are equal are scored again.
class Candidates {
  public:
    using Key = std::uint64_t;  // similarity and row: the smaller key is the better entry

    struct Scored {
        double score;
        std::int32_t row;

        // The order of neighbors: nearer first, then the smaller row number.
        friend bool operator<(const Scored& a, const Scored& b) {
            return a.score != b.score ? a.score > b.score : a.row < b.row;
        }
    };

    struct Scratch {
        std::vector<Key> keys, sorted;
        std::vector<float> similarities;
        std::vector<Scored> tied;
    };

    Candidates(const Scores& scores, const Bounds& bounds, const Buffers& buffers, std::size_t queries,
               std::size_t k);

    // A row whose bound is at most limit(i) is below the floor. Infinite for a query without neighbors.
    float limit(std::size_t i) const { return limits_[i]; }

    // Inserts those of the entries entry(0) to entry(count - 1) that are above the floor, as long as there is
    // room. Returns how many were looked at: fewer than `count` if the buffer has to be cut for the next.
    template <class Entry>
    std::size_t insert(std::size_t i, std::size_t count, Entry entry) {
        std::int32_t* rows = buffers_.rows_of(i);
        float* similarities = buffers_.similarities_of(i);
        const Scored floor = floors_[i];
        std::size_t place = counts_[i], seen = 0;
        for (; seen < count; ++seen) {
            const Scored offered = entry(seen);
            if (!(offered < floor)) continue;
            if (place == buffers_.rows.cols) break;
            rows[place] = offered.row;
            similarities[place] = scores_.similarity(offered.score);
            ++place;
        }
        counts_[i] = place;
        return seen;
    }

    // Brings the place of the next insertion into the cache: buffers are many and far apart.
    void prefetch(std::size_t i) const {
        __builtin_prefetch(buffers_.rows_of(i) + counts_[i], 1);
        __builtin_prefetch(buffers_.similarities_of(i) + counts_[i], 1);
    }

    // Keeps the best `keep` entries at most. The floor becomes the last of them, or a value between it and
    // the best entry that is dropped.
    void cut(std::size_t i, std::size_t keep, Scratch& scratch);

    // Raises the floor to just below the entry of a rank, and leaves the buffer as it is.
    void tighten(std::size_t i, std::size_t rank, Scratch& scratch);

    // Guesses, before anything is inserted, that rows of a lower score are not among the k nearest.
    void start(std::size_t i, double score);

    // Writes the k nearest in order to the head of the buffer, -1 and NaN after the last. False if fewer are
    // at or above the floor, and rows that were dropped may belong to them.
    bool finish(std::size_t i, Scratch& scratch);

  private:
    void set_floor(std::size_t i, const Scored& floor);
    Scored settle_boundary(std::size_t i, std::size_t keep, Scratch& scratch) const;
    void fill_keys(std::size_t i, std::vector<Key>& keys) const;
    void order_equal_keys(std::size_t i, std::vector<Key>& keys, std::vector<Scored>& tied) const;

    const Scores& scores_;
    const Bounds& bounds_;
    Buffers buffers_;
    std::size_t k_;
    std::vector<std::size_t> counts_;
    std::vector<Scored> floors_;
    std::vector<float> limits_;
};

}  // namespace embgeom

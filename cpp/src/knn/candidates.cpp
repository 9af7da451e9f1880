#include "embgeom/knn/candidates.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

#include "embgeom/base/arithmetic.hpp"

namespace embgeom {
namespace {

constexpr Candidates::Scored no_floor{-std::numeric_limits<double>::infinity(),
                                      std::numeric_limits<std::int32_t>::max()};

// Bits of a float32 as an integer that falls as the float rises. Adding 0 turns -0.0 into 0.0.
std::uint32_t descending(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value + 0.0F);
    return (bits & 0x80000000U) != 0 ? bits : ~bits & 0x7FFFFFFFU;
}

float from_descending(std::uint32_t bits) {
    return std::bit_cast<float>((bits & 0x80000000U) != 0 ? bits : ~bits & 0x7FFFFFFFU);
}

std::uint32_t similarity_of(Candidates::Key key) {
    return static_cast<std::uint32_t>(key >> 32U);
}

std::int32_t row_of(Candidates::Key key) {
    return static_cast<std::int32_t>(key & 0xFFFFFFFFU);
}

Candidates::Key with_row(Candidates::Key key, std::int32_t row) {
    return (key & ~Candidates::Key{0xFFFFFFFFU}) | static_cast<std::uint32_t>(row);
}

// Sorts by similarity alone, least significant digits first; digits that all keys share take no pass.
void sort_by_similarity(std::vector<Candidates::Key>& keys, std::vector<Candidates::Key>& spare) {
    constexpr unsigned digit_bits = 11;
    constexpr std::size_t buckets = std::size_t{1} << digit_bits;
    constexpr std::size_t few = 200;  // tuned by benchmarks/kernels/bench_knn.py
    if (keys.size() < few) {
        std::sort(keys.begin(), keys.end());
        return;
    }
    spare.resize(keys.size());
    for (unsigned shift = 32; shift < 64; shift += digit_bits) {
        const auto digit = [&](Candidates::Key key) { return (key >> shift) & (buckets - 1); };
        std::array<std::uint32_t, buckets> starts{};
        for (const Candidates::Key key : keys) ++starts[digit(key)];
        if (starts[digit(keys.front())] == keys.size()) continue;
        std::exclusive_scan(starts.begin(), starts.end(), starts.begin(), 0U);
        for (const Candidates::Key key : keys) spare[starts[digit(key)]++] = key;
        keys.swap(spare);
    }
}

}  // namespace

Candidates::Candidates(const Scores& scores, const Bounds& bounds, const Buffers& buffers,
                       std::size_t queries, std::size_t k)
    : scores_(scores),
      bounds_(bounds),
      buffers_(buffers),
      k_(k),
      counts_(queries, 0),
      floors_(queries, no_floor),
      limits_(queries, -infinity) {
    for (std::size_t i = 0; i < queries; ++i) {
        if (!scores.query_counts(i)) limits_[i] = infinity;
    }
}

void Candidates::set_floor(std::size_t i, const Scored& floor) {
    if (!(floor < floors_[i])) return;
    floors_[i] = floor;
    limits_[i] = bounds_.limit(i, floor.score);
}

void Candidates::start(std::size_t i, double score) {
    // Entries that are in the buffer already may lie below.
    if (counts_[i] == 0) set_floor(i, {score, std::numeric_limits<std::int32_t>::max()});
}

void Candidates::fill_keys(std::size_t i, std::vector<Key>& keys) const {
    keys.resize(counts_[i]);
    const std::int32_t* rows = buffers_.rows_of(i);
    const float* similarities = buffers_.similarities_of(i);
    for (std::size_t c = 0; c < counts_[i]; ++c) {
        keys[c] = (Key{descending(similarities[c])} << 32U) | static_cast<std::uint32_t>(rows[c]);
    }
}

void Candidates::cut(std::size_t i, std::size_t keep, Scratch& scratch) {
    if (counts_[i] <= keep) return;
    auto& keys = scratch.keys;
    fill_keys(i, keys);
    const auto last = keys.begin() + static_cast<std::ptrdiff_t>(keep) - 1;
    std::nth_element(keys.begin(), last, keys.end());
    // The floor must be no better than the last entry kept, and no worse than any that goes. The next float32
    // below the last similarity is both if no other entry has either of the two similarities.
    const std::uint32_t boundary = similarity_of(*last);
    const std::uint32_t next = descending(std::nextafter(from_descending(boundary), -infinity));
    const auto near = std::count_if(keys.begin(), keys.end(), [&](Key key) {
        return similarity_of(key) >= boundary && similarity_of(key) <= next;
    });
    const Scored floor = near > 1 ? settle_boundary(i, keep, scratch)
                                  : Scored{scores_.below(from_descending(boundary)), row_of(*last)};
    std::int32_t* rows = buffers_.rows_of(i);
    float* similarities = buffers_.similarities_of(i);
    for (std::size_t c = 0; c < keep; ++c) {
        rows[c] = row_of(keys[c]);
        similarities[c] = from_descending(similarity_of(keys[c]));
    }
    counts_[i] = keep;
    set_floor(i, floor);
}

void Candidates::tighten(std::size_t i, std::size_t rank, Scratch& scratch) {
    if (counts_[i] <= rank) return;
    auto& values = scratch.similarities;
    const float* similarities = buffers_.similarities_of(i);
    values.assign(similarities, similarities + counts_[i]);
    const auto last = values.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
    std::nth_element(values.begin(), last, values.end(), std::greater<>());
    set_floor(i, {scores_.below(*last), no_floor.row});
}

// Of the entries whose similarity equals that of the last one kept, the exact scores decide which stay.
Candidates::Scored Candidates::settle_boundary(std::size_t i, std::size_t keep, Scratch& scratch) const {
    auto& keys = scratch.keys;
    const auto last = keys.begin() + static_cast<std::ptrdiff_t>(keep) - 1;
    const std::uint32_t boundary = similarity_of(*last);
    const auto better =
        std::partition(keys.begin(), last + 1, [&](Key key) { return similarity_of(key) < boundary; });
    auto& tied = scratch.tied;
    tied.clear();
    for (auto key = better; key != keys.end(); ++key) {
        if (similarity_of(*key) != boundary) continue;
        tied.push_back({scores_.exact(i, static_cast<std::size_t>(row_of(*key))), row_of(*key)});
    }
    const auto staying = last + 1 - better;
    std::nth_element(tied.begin(), tied.begin() + staying - 1, tied.end());
    std::transform(tied.begin(), tied.begin() + staying, better,
                   [&](const Scored& entry) { return with_row(Key{boundary} << 32U, entry.row); });
    return tied[static_cast<std::size_t>(staying) - 1];
}

// Among entries of one similarity the exact scores decide.
void Candidates::order_equal_keys(std::size_t i, std::vector<Key>& keys, std::vector<Scored>& tied) const {
    const std::size_t wanted = std::min(k_, keys.size());
    for (std::size_t begin = 0; begin < wanted;) {
        std::size_t end = begin + 1;
        while (end < keys.size() && similarity_of(keys[end]) == similarity_of(keys[begin])) ++end;
        if (end > begin + 1) {
            tied.clear();
            for (std::size_t c = begin; c < end; ++c)
                tied.push_back(
                    {scores_.exact(i, static_cast<std::size_t>(row_of(keys[c]))), row_of(keys[c])});
            std::sort(tied.begin(), tied.end());
            for (std::size_t c = begin; c < end; ++c) keys[c] = with_row(keys[c], tied[c - begin].row);
        }
        begin = end;
    }
}

bool Candidates::finish(std::size_t i, Scratch& scratch) {
    auto& keys = scratch.keys;
    fill_keys(i, keys);
    sort_by_similarity(keys, scratch.sorted);
    order_equal_keys(i, keys, scratch.tied);
    const std::size_t written = std::min(k_, keys.size());
    std::int32_t* rows = buffers_.rows_of(i);
    float* similarities = buffers_.similarities_of(i);
    for (std::size_t c = 0; c < written; ++c) {
        rows[c] = row_of(keys[c]);
        similarities[c] = from_descending(similarity_of(keys[c]));
    }
    std::fill(rows + written, rows + k_, -1);
    std::fill(similarities + written, similarities + k_, std::numeric_limits<float>::quiet_NaN());
    if (floors_[i].score == no_floor.score) return true;
    if (written < k_) return false;
    // A floor that was raised without a cut leaves entries below it, where others were dropped.
    const std::int32_t last = row_of(keys[k_ - 1]);
    return !(floors_[i] < Scored{scores_.exact(i, static_cast<std::size_t>(last)), last});
}

}  // namespace embgeom

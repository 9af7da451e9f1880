#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "embgeom/matrix_view.hpp"

namespace embgeom {

// The base rows that may be neighbors of each query, best bounds first in no order: a buffer for each
// query that is cut back to its best `keep` entries whenever it is full.
//
// Invariant: every base row offered or passed over so far that is not in query i's buffer has a bound
// of at most limit(i). So a caller may pass over whatever is not above the limit.
class Candidates {
  public:
    using Entry = std::pair<float, std::int32_t>;  // bound, base row

    // The buffers lie in `rows` and `bounds`, (queries, capacity); both belong to the caller.
    Candidates(MatrixView<std::int32_t> rows, MatrixView<float> bounds, std::size_t keep)
        : rows_(rows),
          bounds_(bounds),
          keep_(keep),
          counts_(rows.rows, 0),
          limits_(rows.rows, -std::numeric_limits<float>::infinity()) {}

    float limit(std::size_t i) const { return limits_[i]; }
    const float* limits() const { return limits_.data(); }
    std::size_t count(std::size_t i) const { return counts_[i]; }
    const std::int32_t* rows(std::size_t i) const { return rows_.row(i); }

    // A query that shall have no candidates.
    void close(std::size_t i) { limits_[i] = std::numeric_limits<float>::infinity(); }

    void insert(std::size_t i, std::int32_t row, float bound, std::vector<Entry>& scratch) {
        if (!(bound > limits_[i])) return;
        if (counts_[i] == rows_.cols) {
            cut(i, scratch);
            if (!(bound > limits_[i])) return;
        }
        rows_.row(i)[counts_[i]] = row;
        bounds_.row(i)[counts_[i]] = bound;
        ++counts_[i];
    }

    void cut(std::size_t i, std::vector<Entry>& scratch) {
        if (counts_[i] <= keep_) return;
        scratch.resize(counts_[i]);
        for (std::size_t c = 0; c < counts_[i]; ++c) scratch[c] = {bounds_.row(i)[c], rows_.row(i)[c]};
        const auto kept_end = scratch.begin() + static_cast<std::ptrdiff_t>(keep_);
        std::nth_element(scratch.begin(), kept_end, scratch.end(),
                         [](const Entry& a, const Entry& b) { return a.first > b.first; });
        limits_[i] = std::max(limits_[i], kept_end->first);
        for (std::size_t c = 0; c < keep_; ++c) {
            bounds_.row(i)[c] = scratch[c].first;
            rows_.row(i)[c] = scratch[c].second;
        }
        counts_[i] = keep_;
    }

  private:
    MatrixView<std::int32_t> rows_;
    MatrixView<float> bounds_;
    std::size_t keep_;
    std::vector<std::size_t> counts_;
    std::vector<float> limits_;
};

}  // namespace embgeom

#include "embgeom/similarity/ranks.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "embgeom/base/error.hpp"
#include "embgeom/linalg/blas.hpp"

namespace embgeom {
namespace {

// The bits of a value, so that larger values have larger bits, and where it stands.
struct Keyed {
    std::uint32_t key, place;
};

std::uint32_t key_of(float value) {
    // Both zeros are equal.
    const auto bits = std::bit_cast<std::uint32_t>(value == 0.0F ? 0.0F : value);
    return bits >> 31U != 0 ? ~bits : bits | 0x80000000U;
}

constexpr std::size_t digits = 3;
constexpr std::array<unsigned, digits> shifts = {0, 11, 22};
constexpr std::size_t buckets = 2048;

std::size_t bucket(std::uint32_t key, std::size_t digit) {
    return (key >> shifts[digit]) % buckets;
}

constexpr std::size_t rows_per_tile = 64;
constexpr std::size_t steps = std::size_t{1} << 16U;

// The values of one step: how many there are, and the sum of what stands beside them.
struct Step {
    double sum = 0.0, count = 0.0;
};

std::vector<float> products_of_pairs(MatrixView<const float> x) {
    std::vector<float> pairs(x.rows * (x.rows - 1) / 2), tile(rows_per_tile * x.rows);
    auto next = pairs.begin();
    for (std::size_t first = 0; first < x.rows; first += rows_per_tile) {
        const std::size_t height = std::min(rows_per_tile, x.rows - first), width = x.rows - first;
        blas::multiply_nt(height, width, x.cols, x.row(first), x.stride, x.row(first), x.stride, 0.0F,
                          tile.data(), width);
        for (std::size_t r = 0; r < height; ++r) {
            const float* row = tile.data() + r * width;
            next = std::copy(row + r + 1, row + width, next);
        }
    }
    return pairs;
}

}  // namespace

double rank_correlation(MatrixView<const float> x, std::span<const double> ranks) {
    const std::vector<float> pairs = products_of_pairs(x);
    if (pairs.size() != ranks.size()) throw InvalidInput("there must be one rank for each pair of rows");
    const auto [least, greatest] = std::minmax_element(pairs.begin(), pairs.end());
    if (pairs.empty() || *least == *greatest) return 0.0;
    const double begin = *least, scale = static_cast<double>(steps - 1) / (*greatest - begin);
    std::vector<Step> all(steps);
    double squares_of_ranks = 0.0;
    for (std::size_t i = 0; i < pairs.size(); ++i) {
        const double place = (static_cast<double>(pairs[i]) - begin) * scale;
        Step& step = all[std::min(static_cast<std::size_t>(place), steps - 1)];
        step.sum += ranks[i];
        step.count += 1.0;
        squares_of_ranks += ranks[i] * ranks[i];
    }
    double below = 0.0, product = 0.0, squares = 0.0;
    for (const Step& step : all) {
        const double rank = below + (step.count - static_cast<double>(pairs.size())) / 2.0;
        product += rank * step.sum;
        squares += step.count * rank * rank;
        below += step.count;
    }
    const double lengths = std::sqrt(squares) * std::sqrt(squares_of_ranks);
    return lengths > 0.0 ? std::clamp(product / lengths, -1.0, 1.0) : 0.0;
}

void rank(std::span<const float> values, std::span<std::int64_t> order, std::span<double> ranks) {
    const std::size_t n = values.size();
    if (n > std::numeric_limits<std::uint32_t>::max())
        throw InvalidInput("more than 2^32 values to be ranked");
    auto from = std::make_unique_for_overwrite<Keyed[]>(n), into = std::make_unique_for_overwrite<Keyed[]>(n);
    std::array<std::array<std::size_t, buckets>, digits> begins{};
    for (std::size_t i = 0; i < n; ++i) {
        const std::uint32_t key = key_of(values[i]);
        from[i] = {key, static_cast<std::uint32_t>(i)};
        for (std::size_t d = 0; d < digits; ++d) ++begins[d][bucket(key, d)];
    }
    for (std::size_t d = 0; d < digits; ++d) {
        std::size_t next = 0;
        for (std::size_t& begin : begins[d]) next += std::exchange(begin, next);
        for (std::size_t i = 0; i < n; ++i) into[begins[d][bucket(from[i].key, d)]++] = from[i];
        std::swap(from, into);
    }
    for (std::size_t begin = 0, end = 0; begin < n; begin = end) {
        while (end < n && from[end].key == from[begin].key) ++end;
        const double middle = static_cast<double>(begin) + static_cast<double>(end - begin - 1) / 2.0;
        for (std::size_t i = begin; i < end; ++i) {
            order[i] = from[i].place;
            ranks[from[i].place] = middle;
        }
    }
}

}  // namespace embgeom

#include "embgeom/similarity/ranks.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <limits>
#include <memory>
#include <utility>

#include "embgeom/base/error.hpp"

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

}  // namespace

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

#include "embgeom/base/rows.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "embgeom/base/dot.hpp"
#include "embgeom/base/error.hpp"
#include "embgeom/base/multiversion.hpp"

namespace embgeom {
namespace {

constexpr std::size_t rows_per_task = 256;  // tuned by benchmarks/kernels/bench_rows.py

[[noreturn]] void throw_not_finite(MatrixView<const float> x, const char* name, std::size_t row) {
    const float* values = x.row(row);
    std::size_t column = 0;
    while (column + 1 < x.cols && std::isfinite(values[column])) ++column;
    throw InvalidInput(std::string(name) + ": row " + std::to_string(row) + ", column " +
                       std::to_string(column) + " holds " +
                       (std::isnan(values[column]) ? "NaN" : "an infinity") +
                       ": every value must be finite; drop the row or repair it");
}

void lower(std::atomic<std::size_t>& least, std::size_t value) {
    std::size_t seen = least;
    while (value < seen && !least.compare_exchange_weak(seen, value)) {
    }
}

// What a row is recognized by.
struct Fingerprint {
    std::uint64_t hash;
    bool finite;
};

// One random number for each coordinate. They differ from process to process, so that nobody can write a
// file whose rows all meet in one place; equality, and so the result, does not depend on them.
std::vector<std::uint32_t> random_keys(std::size_t d) {
    static const std::uint64_t start =
        (std::uint64_t{std::random_device{}()} << 32U) | std::random_device{}();
    std::mt19937_64 random(start);
    std::vector<std::uint32_t> keys(d);
    for (std::uint32_t& key : keys) key = static_cast<std::uint32_t>(random() >> 32U);
    return keys;
}

// The hash NH of Black et al. (UMAC, 1999): sum over pairs of coordinates of (bits_l + key_l) (bits_m +
// key_m) modulo 2^64, the coordinates' bits and the keys added modulo 2^32. Two different rows meet with a
// probability of at most 2^-32, and no term waits for another. Adding 0 turns -0.0 into 0.0.
EMBGEOM_MULTIVERSION
Fingerprint fingerprint_of(const float* row, const std::uint32_t* keys, std::size_t d) {
    constexpr std::uint32_t exponent = 0x7F800000U;
    const std::size_t half = d / 2;
    std::uint64_t hash = 0;
    std::uint32_t bad = 0;
    for (std::size_t l = 0; l < half; ++l) {
        const auto a = std::bit_cast<std::uint32_t>(row[l] + 0.0F);
        const auto b = std::bit_cast<std::uint32_t>(row[half + l] + 0.0F);
        hash += std::uint64_t{a + keys[l]} * std::uint64_t{b + keys[half + l]};
        bad |= static_cast<std::uint32_t>((a & exponent) == exponent) |
               static_cast<std::uint32_t>((b & exponent) == exponent);
    }
    if (d % 2 != 0) {
        const auto a = std::bit_cast<std::uint32_t>(row[d - 1] + 0.0F);
        hash += std::uint64_t{a} * (std::uint64_t{keys[d - 1]} << 32U | 1U);
        bad |= static_cast<std::uint32_t>((a & exponent) == exponent);
    }
    return {hash, bad == 0};
}

bool equal_rows(const float* a, const float* b, std::size_t d) {
    constexpr std::size_t block = 32;
    std::size_t l = 0;
    for (; l + block <= d; l += block) {
        unsigned different = 0;
        for (std::size_t m = l; m < l + block; ++m) different |= static_cast<unsigned>(a[m] != b[m]);
        if (different != 0) return false;
    }
    return std::equal(a + l, a + d, b + l);
}

// The distinct rows seen so far, in an open-addressing table at most half full; rows of one hash are compared
// by value.
class DistinctRows {
  public:
    DistinctRows(MatrixView<const float> x, const std::vector<std::uint64_t>& hashes)
        : x_(x), hashes_(hashes), places_(std::bit_ceil(2 * x.rows + 1), -1) {}

    // The first row equal to row i, which is i itself where none was seen.
    std::int64_t first_equal(std::size_t i) {
        const std::size_t mask = places_.size() - 1;
        for (std::size_t place = spread(hashes_[i]) & mask;; place = (place + 1) & mask) {
            const std::int64_t met = places_[place];
            if (met < 0) return places_[place] = static_cast<std::int64_t>(i);
            const auto row = static_cast<std::size_t>(met);
            if (hashes_[row] == hashes_[i] && equal_rows(x_.row(row), x_.row(i), x_.cols)) return met;
        }
    }

  private:
    // The low bits of a hash are those of the low bits of the coordinates, which rounded values lack.
    static std::uint64_t spread(std::uint64_t hash) { return (hash * 0x9E3779B97F4A7C15U) >> 24U; }

    MatrixView<const float> x_;
    const std::vector<std::uint64_t>& hashes_;
    std::vector<std::int64_t> places_;
};

}  // namespace

std::vector<double> squared_norms(MatrixView<const float> x, const char* name, int threads,
                                  Monitor& monitor) {
    std::vector<double> norms(x.rows);
    parallel_ranges("scan rows", x.rows, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        for (std::size_t i = begin; i < end; ++i) norms[i] = dot(x.row(i), x.row(i), x.cols);
                    });
    // The square of a finite float32 is far inside the range of float64, so a sum is finite only where
    // every value is.
    const auto bad = std::find_if(norms.begin(), norms.end(), [](double v) { return !std::isfinite(v); });
    if (bad != norms.end()) throw_not_finite(x, name, static_cast<std::size_t>(bad - norms.begin()));
    return norms;
}

void check_finite(MatrixView<const float> x, const char* name, int threads, Monitor& monitor) {
    squared_norms(x, name, threads, monitor);
}

std::vector<std::int64_t> first_equal_rows(MatrixView<const float> x, const char* name, int threads,
                                           Monitor& monitor) {
    const std::vector<std::uint32_t> keys = random_keys(x.cols);
    std::vector<std::uint64_t> hashes(x.rows);
    std::atomic<std::size_t> bad{x.rows};
    parallel_ranges("find equal rows", x.rows, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        for (std::size_t i = begin; i < end; ++i) {
                            const Fingerprint print = fingerprint_of(x.row(i), keys.data(), x.cols);
                            hashes[i] = print.hash;
                            if (!print.finite) lower(bad, i);
                        }
                    });
    if (bad < x.rows) throw_not_finite(x, name, bad);
    DistinctRows distinct(x, hashes);
    std::vector<std::int64_t> first(x.rows);
    for (std::size_t i = 0; i < x.rows; ++i) {
        if (i % rows_per_task == 0) monitor.report("compare equal rows", i, x.rows);
        first[i] = distinct.first_equal(i);
    }
    return first;
}

}  // namespace embgeom

#include "embgeom/base/rows.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <numeric>
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

// The low bits of a hash are those of the low bits of the coordinates, which rounded values lack.
std::uint64_t spread(std::uint64_t hash) {
    return (hash * 0x9E3779B97F4A7C15U) >> 24U;
}

// The distinct rows seen so far, in an open-addressing table at most half full; rows of one hash are compared
// by value.
class DistinctRows {
  public:
    // Rows are numbers of the set; `hashes` are theirs.
    DistinctRows(RowSet rows, const std::vector<std::uint64_t>& hashes)
        : rows_(rows), hashes_(hashes), places_(std::bit_ceil(2 * rows.size + 1), -1) {}

    // The first row equal to row i, which is i itself where none was seen.
    std::size_t first_equal(std::size_t i) {
        const std::size_t mask = places_.size() - 1;
        for (std::size_t place = spread(hashes_[i]) & mask;; place = (place + 1) & mask) {
            const std::int64_t met = places_[place];
            if (met < 0) {
                places_[place] = static_cast<std::int64_t>(i);
                return i;
            }
            const auto row = static_cast<std::size_t>(met);
            if (hashes_[row] == hashes_[i] && equal_rows(rows_.row(row), rows_.row(i), rows_.matrix.cols))
                return row;
        }
    }

  private:
    RowSet rows_;
    const std::vector<std::uint64_t>& hashes_;
    std::vector<std::int64_t> places_;
};

// Sets first[i] of each row i of the set, by its number in the matrix. Returns the least number in the set of
// a row that is not finite; first is then not set.
std::size_t find_first_equal(RowSet rows, std::vector<std::int64_t>& first, int threads, Monitor& monitor) {
    const std::vector<std::uint32_t> keys = random_keys(rows.matrix.cols);
    std::vector<std::uint64_t> hashes(rows.size);
    std::atomic<std::size_t> bad{rows.size};
    parallel_ranges("find equal rows", rows.size, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        for (std::size_t i = begin; i < end; ++i) {
                            const Fingerprint print =
                                fingerprint_of(rows.row(i), keys.data(), rows.matrix.cols);
                            hashes[i] = print.hash;
                            if (!print.finite) lower(bad, i);
                        }
                    });
    if (bad < rows.size) return bad;
    DistinctRows distinct(rows, hashes);
    for (std::size_t i = 0; i < rows.size; ++i) {
        if (i % rows_per_task == 0) monitor.report("compare equal rows", i, rows.size);
        first[rows.row_number(i)] = static_cast<std::int64_t>(rows.row_number(distinct.first_equal(i)));
    }
    return rows.size;
}

// The rows that may share their value with another: all that do, and a few that only seem to.
std::vector<std::int64_t> rows_of_shared_values(const std::vector<double>& values) {
    constexpr std::size_t places_per_row = 8;
    const std::size_t places = std::bit_ceil(places_per_row * values.size() + 1);
    const auto place = [&](double value) {
        // Of round numbers only the high bits differ.
        const auto bits = std::bit_cast<std::uint64_t>(value);
        return spread(bits ^ bits >> 32U) & (places - 1);
    };
    std::vector<std::uint8_t> met(places, 0);
    for (const double value : values) {
        std::uint8_t& times = met[place(value)];
        times = static_cast<std::uint8_t>(std::min(times + 1, 2));
    }
    std::vector<std::int64_t> rows;
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (met[place(values[i])] > 1) rows.push_back(static_cast<std::int64_t>(i));
    }
    return rows;
}

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
    std::vector<std::int64_t> first(x.rows);
    const std::size_t bad = find_first_equal(RowSet::all(x), first, threads, monitor);
    if (bad < x.rows) throw_not_finite(x, name, bad);
    return first;
}

std::vector<std::int64_t> first_equal_rows(MatrixView<const float> x,
                                           const std::vector<double>& squared_norms, int threads,
                                           Monitor& monitor) {
    std::vector<std::int64_t> first(x.rows);
    std::iota(first.begin(), first.end(), 0);
    const std::vector<std::int64_t> sharing = rows_of_shared_values(squared_norms);
    find_first_equal(RowSet::selected(x, sharing), first, threads, monitor);
    return first;
}

}  // namespace embgeom

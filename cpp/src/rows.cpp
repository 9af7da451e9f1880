#include "embgeom/rows.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <unordered_map>

#include "embgeom/dot.hpp"
#include "embgeom/error.hpp"

namespace embgeom {
namespace {

constexpr std::size_t rows_per_task = 256;

[[noreturn]] void throw_not_finite(MatrixView<const float> x, const char* name, std::size_t row) {
    const float* values = x.row(row);
    std::size_t column = 0;
    while (column + 1 < x.cols && std::isfinite(values[column])) ++column;
    throw InvalidInput(std::string(name) + ": row " + std::to_string(row) + ", column " +
                       std::to_string(column) + " holds " +
                       (std::isnan(values[column]) ? "NaN" : "an infinity") +
                       ": every value must be finite; drop the row or repair it");
}

// A multiplicative hash over the bits of the values; adding 0 turns -0.0 into 0.0.
// Its start differs from process to process, so that nobody can write a file whose rows all meet in one
// place; equality, and so the result, does not depend on it.
std::uint64_t row_hash(const float* row, std::size_t d) {
    static const std::uint64_t start =
        (std::uint64_t{std::random_device{}()} << 32U) | std::random_device{}();
    std::uint64_t hash = start;
    for (std::size_t l = 0; l < d; ++l) {
        hash = (hash ^ std::bit_cast<std::uint32_t>(row[l] + 0.0F)) * 0xD6E8FEB86659FD93U;
        hash ^= hash >> 32U;
    }
    return hash;
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

std::vector<std::int64_t> first_equal_rows(MatrixView<const float> x, int threads, Monitor& monitor) {
    std::vector<std::uint64_t> hashes(x.rows);
    parallel_ranges("find equal rows", x.rows, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        for (std::size_t i = begin; i < end; ++i) hashes[i] = row_hash(x.row(i), x.cols);
                    });
    // The table holds the distinct rows met so far; rows of one hash are told apart by their values.
    std::unordered_multimap<std::uint64_t, std::int64_t> distinct;
    distinct.reserve(x.rows);
    std::vector<std::int64_t> first(x.rows);
    for (std::size_t i = 0; i < x.rows; ++i) {
        if (i % rows_per_task == 0) monitor.report("compare equal rows", i, x.rows);
        const float* row = x.row(i);
        const auto [begin, end] = distinct.equal_range(hashes[i]);
        const auto equal = std::find_if(begin, end, [&](const auto& entry) {
            return std::equal(row, row + x.cols, x.row(static_cast<std::size_t>(entry.second)));
        });
        first[i] = equal != end ? equal->second : static_cast<std::int64_t>(i);
        if (equal == end) distinct.emplace(hashes[i], first[i]);
    }
    return first;
}

}  // namespace embgeom

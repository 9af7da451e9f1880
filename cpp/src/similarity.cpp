#include "embgeom/similarity.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "embgeom/blas.hpp"
#include "embgeom/error.hpp"
#include "embgeom/rows.hpp"

namespace embgeom {
namespace {

constexpr std::size_t tile_width = 256;
constexpr std::size_t rows_per_piece = 512;
constexpr std::size_t coordinates_per_task = 64;
constexpr std::size_t rows_per_task = 256;

// One matrix as unit rows, which are made a piece at a time: u_il = (x_il - mean_l) / |x_i - mean|.
struct UnitRows {
    RowSet rows;
    std::vector<double> mean;     // (d)
    std::vector<double> inverse;  // (n), 1 / |x_i - mean|; 0 for a row without direction

    std::size_t width() const { return rows.matrix.cols; }

    void pack(std::size_t row_begin, std::size_t row_end, std::size_t begin, std::size_t end,
              double* packed) const {
        for (std::size_t i = row_begin; i < row_end; ++i) {
            const float* row = rows.row(i);
            for (std::size_t l = begin; l < end; ++l) {
                *packed++ = (static_cast<double>(row[l]) - mean[l]) * inverse[i];
            }
        }
    }
};

// Calls add(row, begin, end) over all rows for each range of coordinates, in one order for each coordinate.
template <class Add>
void for_each_row_by_coordinates(const char* phase, const UnitRows& unit, int threads, Monitor& monitor,
                                 Add add) {
    parallel_ranges(phase, unit.width(), coordinates_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker& worker) {
                        for (std::size_t i = 0; i < unit.rows.size; ++i) {
                            if (i % 4096 == 0) worker.checkpoint();
                            add(i, begin, end);
                        }
                    });
}

void fill_mean(UnitRows& unit, int threads, Monitor& monitor) {
    for_each_row_by_coordinates("center", unit, threads, monitor,
                                [&](std::size_t i, std::size_t begin, std::size_t end) {
                                    const float* row = unit.rows.row(i);
                                    for (std::size_t l = begin; l < end; ++l)
                                        unit.mean[l] += static_cast<double>(row[l]);
                                });
    for (double& value : unit.mean) value /= static_cast<double>(unit.rows.size);
}

void fill_inverse_norms(UnitRows& unit, int threads, Monitor& monitor) {
    double mean_square = 0.0;
    for (const double value : unit.mean) mean_square += value * value;
    parallel_ranges("measure rows", unit.rows.size, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        for (std::size_t i = begin; i < end; ++i) {
                            const float* row = unit.rows.row(i);
                            double square = 0.0;
                            for (std::size_t l = 0; l < unit.width(); ++l) {
                                const double centered = static_cast<double>(row[l]) - unit.mean[l];
                                square += centered * centered;
                            }
                            // A row that differs from the mean by rounding alone has no direction.
                            const bool has_direction = square > 1e-24 * mean_square;
                            unit.inverse[i] = has_direction ? 1.0 / std::sqrt(square) : 0.0;
                        }
                    });
}

UnitRows make_unit_rows(const RowSet& rows, const char* name, bool center, int threads, Monitor& monitor) {
    check_finite(rows.matrix, name, threads, monitor);
    UnitRows unit{rows, std::vector<double>(rows.matrix.cols, 0.0), std::vector<double>(rows.size)};
    if (center) fill_mean(unit, threads, monitor);
    fill_inverse_norms(unit, threads, monitor);
    return unit;
}

// Leaves rows without direction in either matrix out of both; returns how many are left.
std::size_t drop_rows_without_direction(UnitRows& a, UnitRows& b) {
    std::size_t used = 0;
    for (std::size_t i = 0; i < a.rows.size; ++i) {
        const bool both = a.inverse[i] > 0.0 && b.inverse[i] > 0.0;
        if (!both) a.inverse[i] = b.inverse[i] = 0.0;
        used += both ? 1 : 0;
    }
    return used;
}

// |A'B|_F^2 over n rows. With `symmetric`, A is B and only tiles on and above the diagonal are computed.
double squared_product_norm(const char* phase, const UnitRows& a, const UnitRows& b, bool symmetric,
                            int threads, Monitor& monitor) {
    struct Place {
        std::size_t a_begin, b_begin;
    };
    std::vector<Place> places;
    for (std::size_t p = 0; p < a.width(); p += tile_width) {
        for (std::size_t q = symmetric ? p : 0; q < b.width(); q += tile_width) places.push_back({p, q});
    }
    std::vector<double> norms(places.size());
    struct Workspace {
        std::vector<double> a_piece, b_piece, product;
    };
    const Workspace empty{std::vector<double>(rows_per_piece * tile_width),
                          std::vector<double>(rows_per_piece * tile_width),
                          {}};
    std::vector<Workspace> spaces(static_cast<std::size_t>(threads), empty);
    parallel_for(phase, places.size(), threads, monitor, [&](std::size_t task, const Worker& worker) {
        const auto [a_begin, b_begin] = places[task];
        const std::size_t a_end = std::min(a_begin + tile_width, a.width());
        const std::size_t b_end = std::min(b_begin + tile_width, b.width());
        const std::size_t a_width = a_end - a_begin, b_width = b_end - b_begin;
        auto& [a_piece, b_piece, product] = spaces[static_cast<std::size_t>(worker.id())];
        product.assign(a_width * b_width, 0.0);
        for (std::size_t begin = 0; begin < a.rows.size; begin += rows_per_piece) {
            worker.checkpoint();
            const std::size_t end = std::min(begin + rows_per_piece, a.rows.size);
            a.pack(begin, end, a_begin, a_end, a_piece.data());
            b.pack(begin, end, b_begin, b_end, b_piece.data());
            blas::add_multiply_tn(a_width, b_width, end - begin, a_piece.data(), a_width, b_piece.data(),
                                  b_width, product.data(), b_width);
        }
        for (const double value : product) norms[task] += value * value;
    });
    double sum = 0.0;
    for (std::size_t task = 0; task < places.size(); ++task) {
        const bool stands_for_two = symmetric && places[task].a_begin != places[task].b_begin;
        sum += (stands_for_two ? 2.0 : 1.0) * norms[task];
    }
    return sum;
}

// |sum_i u_i|^2
double squared_sum_norm(const UnitRows& unit, int threads, Monitor& monitor) {
    std::vector<double> sums(unit.width(), 0.0);
    for_each_row_by_coordinates(
        "add rows", unit, threads, monitor, [&](std::size_t i, std::size_t begin, std::size_t end) {
            const float* row = unit.rows.row(i);
            for (std::size_t l = begin; l < end; ++l) {
                sums[l] += (static_cast<double>(row[l]) - unit.mean[l]) * unit.inverse[i];
            }
        });
    double sum = 0.0;
    for (const double value : sums) sum += value * value;
    return sum;
}

// What is left of n sum(v^2) - sum(v)^2, or zero where that is rounding alone.
double spread(double pairs, double sum_of_squares, double sum) {
    const double difference = pairs * sum_of_squares - sum * sum;
    return difference > 1e-12 * pairs * sum_of_squares ? difference : 0.0;
}

}  // namespace

double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor) {
    UnitRows unit_a = make_unit_rows(a, "a", options.center, threads, monitor);
    UnitRows unit_b = make_unit_rows(b, "b", options.center, threads, monitor);
    const std::size_t used = drop_rows_without_direction(unit_a, unit_b);
    if (used < 3) {
        throw InvalidInput("only " + std::to_string(used) + " of " + std::to_string(a.size) +
                           " rows have a direction in both matrices: a correlation over pairs needs 3");
    }
    const auto n = static_cast<double>(used);
    const double diagonal = options.include_diagonal ? 0.0 : n;
    const double pairs = n * n - diagonal;
    const double sum_a = squared_sum_norm(unit_a, threads, monitor) - diagonal;
    const double sum_b = squared_sum_norm(unit_b, threads, monitor) - diagonal;
    const double squares_a =
        squared_product_norm("multiply a'a", unit_a, unit_a, true, threads, monitor) - diagonal;
    const double squares_b =
        squared_product_norm("multiply b'b", unit_b, unit_b, true, threads, monitor) - diagonal;
    const double products =
        squared_product_norm("multiply a'b", unit_a, unit_b, false, threads, monitor) - diagonal;

    const double spread_a = spread(pairs, squares_a, sum_a);
    const double spread_b = spread(pairs, squares_b, sum_b);
    if (spread_a == 0.0 || spread_b == 0.0) {
        throw InvalidInput(
            std::string("all pairs of rows of the ") + (spread_a == 0.0 ? "first" : "second") +
            " matrix have the same cosine similarity: its correlation with anything is undefined");
    }
    const double correlation =
        (pairs * products - sum_a * sum_b) / (std::sqrt(spread_a) * std::sqrt(spread_b));
    return std::clamp(correlation, -1.0, 1.0);
}

}  // namespace embgeom

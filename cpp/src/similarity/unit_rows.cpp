#include "embgeom/similarity/unit_rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "embgeom/base/multiversion.hpp"
#include "embgeom/base/rows.hpp"
#include "embgeom/similarity/row_sums.hpp"

namespace embgeom {
namespace {

// Sums over a row run in this many lanes, added up in one order.
constexpr std::size_t lanes = 8;

template <class T>
inline __attribute__((always_inline)) void deviate(const float* x, const double* center, double inverse,
                                                   const double* mean, std::size_t width, T* packed) {
    for (std::size_t l = 0; l < width; ++l) {
        packed[l] = static_cast<T>((static_cast<double>(x[l]) - center[l]) * inverse - mean[l]);
    }
}

EMBGEOM_MULTIVERSION
void deviate_float(const float* x, const double* center, double inverse, const double* mean,
                   std::size_t width, float* packed) {
    deviate(x, center, inverse, mean, width, packed);
}

EMBGEOM_MULTIVERSION
void deviate_double(const float* x, const double* center, double inverse, const double* mean,
                    std::size_t width, double* packed) {
    deviate(x, center, inverse, mean, width, packed);
}

double sum_of_lanes(const double* sum) {
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

// sums[l] += sum over `count` rows of inverse (x_l - center_l), four rows to each walk over the sums.
EMBGEOM_MULTIVERSION
void add_four_rows(const float* const* x, const double* inverse, const double* center, std::size_t width,
                   double* sums) {
    const float *x0 = x[0], *x1 = x[1], *x2 = x[2], *x3 = x[3];
    const double i0 = inverse[0], i1 = inverse[1], i2 = inverse[2], i3 = inverse[3];
    for (std::size_t l = 0; l < width; ++l) {
        const double c = center[l];
        const double low = (static_cast<double>(x0[l]) - c) * i0 + (static_cast<double>(x1[l]) - c) * i1;
        const double high = (static_cast<double>(x2[l]) - c) * i2 + (static_cast<double>(x3[l]) - c) * i3;
        sums[l] += low + high;
    }
}

EMBGEOM_MULTIVERSION
double squared_distance_to(const float* x, const double* center, std::size_t width) {
    double sum[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= width; l += lanes) {
        for (std::size_t k = 0; k < lanes; ++k) {
            const double difference = static_cast<double>(x[l + k]) - center[l + k];
            sum[k] += difference * difference;
        }
    }
    for (std::size_t k = 0; l < width; ++l, ++k) {
        const double difference = static_cast<double>(x[l]) - center[l];
        sum[k] += difference * difference;
    }
    return sum_of_lanes(sum);
}

struct AlongAndSquare {
    double along, square;
};

EMBGEOM_MULTIVERSION
AlongAndSquare measure_row(const float* x, const double* center, double inverse, const double* mean,
                           std::size_t width) {
    // Deviations first, then their sums: the compiler makes vectors of either loop, but not of both in one.
    constexpr std::size_t piece = 32 * lanes;
    double e[piece], along[lanes] = {}, square[lanes] = {};
    for (std::size_t begin = 0; begin < width; begin += piece) {
        const std::size_t count = std::min(piece, width - begin);
        const double* direction = mean + begin;
        deviate(x + begin, center + begin, inverse, direction, count, e);
        std::size_t l = 0;
        for (; l + lanes <= count; l += lanes) {
            for (std::size_t k = 0; k < lanes; ++k) along[k] += e[l + k] * direction[l + k];
            for (std::size_t k = 0; k < lanes; ++k) square[k] += e[l + k] * e[l + k];
        }
        for (std::size_t k = 0; l < count; ++l, ++k) {
            along[k] += e[l] * direction[l];
            square[k] += e[l] * e[l];
        }
    }
    return {sum_of_lanes(along), sum_of_lanes(square)};
}

// sums += sum over rows [begin, end) of inverse_i (x_i - center).
void add_rows(const UnitRows& unit, std::size_t begin, std::size_t end, double* sums) {
    for (std::size_t i = begin; i < end; i += 4) {
        const float* rows[4];
        double factors[4];
        for (std::size_t r = 0; r < 4; ++r) {
            const std::size_t row = std::min(i + r, end - 1);
            rows[r] = unit.rows.row(row);
            factors[r] = i + r >= end ? 0.0 : unit.inverse[row];
        }
        add_four_rows(rows, factors, unit.center.data(), unit.width(), sums);
    }
}

UnitRows start(const RowSet& rows, const char* name, int threads, Monitor& monitor) {
    // Where all rows are used, their norms show it.
    if (rows.selection) check_finite(rows.matrix, name, threads, monitor);
    const std::vector<double> zero(rows.matrix.cols, 0.0);
    return {rows, zero, std::vector<double>(rows.size), zero};
}

bool is_zero(const UnitRows& unit, std::size_t i) {
    const float* x = unit.rows.row(i);
    return std::all_of(x, x + unit.width(), [](float value) { return value == 0.0F; });
}

// A row that has no direction to begin with: centering must not give it one.
bool is_zero_in_either(const UnitPair& pair, std::size_t i) {
    return is_zero(pair.a, i) || is_zero(pair.b, i);
}

double sum_of_squares(const std::vector<double>& values) {
    double sum = 0.0;
    for (const double value : values) sum += value * value;
    return sum;
}

// Divides sums of rows, those of a first, into the mean of either matrix.
void set_means(const std::vector<double>& sums, std::size_t count, std::vector<double>& a,
               std::vector<double>& b) {
    const double divisor = static_cast<double>(std::max(count, std::size_t{1}));
    const std::size_t width = a.size();
    for (std::size_t l = 0; l < width; ++l) a[l] = sums[l] / divisor;
    for (std::size_t l = 0; l < b.size(); ++l) b[l] = sums[width + l] / divisor;
}

// Sets both centers to the mean of the rows that are zero in neither matrix.
void fill_centers(UnitPair& pair, int threads, Monitor& monitor) {
    const auto add = [&](std::size_t begin, std::size_t end, double* sums) {
        for (std::size_t i = begin; i < end; ++i) {
            pair.a.inverse[i] = pair.b.inverse[i] = is_zero_in_either(pair, i) ? 0.0 : 1.0;
        }
        add_rows(pair.a, begin, end, sums);
        add_rows(pair.b, begin, end, sums + pair.a.width());
    };
    const std::vector<double> sums =
        sum_rows("center", pair.a.rows.size, pair.a.width() + pair.b.width(), threads, monitor, add);
    const auto used = std::count(pair.a.inverse.begin(), pair.a.inverse.end(), 1.0);
    set_means(sums, static_cast<std::size_t>(used), pair.a.center, pair.b.center);
}

// NaN where a value is not finite: the squares of finite float32 values are far inside the range of float64.
double inverse_norm(const UnitRows& unit, double center_square, std::size_t i) {
    const double square = squared_distance_to(unit.rows.row(i), unit.center.data(), unit.width());
    if (!std::isfinite(square)) return std::numeric_limits<double>::quiet_NaN();
    // A row that differs from the mean by rounding alone has no direction.
    return square > 1e-24 * center_square ? 1.0 / std::sqrt(square) : 0.0;
}

// Fills the inverse norms of both matrices, and returns the sums of their unit rows, those of a first.
std::vector<double> fill_inverse_norms(UnitPair& pair, int threads, Monitor& monitor) {
    const double center_a = sum_of_squares(pair.a.center), center_b = sum_of_squares(pair.b.center);
    const auto add = [&](std::size_t begin, std::size_t end, double* sums) {
        for (std::size_t i = begin; i < end; ++i) {
            const double of_a = inverse_norm(pair.a, center_a, i);
            const double of_b = inverse_norm(pair.b, center_b, i);
            const bool neither = of_a == 0.0 || of_b == 0.0 || is_zero_in_either(pair, i);
            const bool unknown = std::isnan(of_a + of_b);
            pair.a.inverse[i] = unknown ? of_a + of_b : neither ? 0.0 : of_a;
            pair.b.inverse[i] = unknown ? of_a + of_b : neither ? 0.0 : of_b;
        }
        add_rows(pair.a, begin, end, sums);
        add_rows(pair.b, begin, end, sums + pair.a.width());
    };
    return sum_rows("measure rows", pair.a.rows.size, pair.a.width() + pair.b.width(), threads, monitor, add);
}

}  // namespace

void UnitRows::pack(std::size_t i, std::size_t begin, std::size_t count, float* packed) const {
    if (inverse[i] == 0.0) {
        std::fill_n(packed, count, 0.0F);
        return;
    }
    pack_from(&mean[begin], i, begin, count, packed);
}

void UnitRows::pack(std::size_t i, std::size_t begin, std::size_t count, double* packed) const {
    if (inverse[i] == 0.0) {
        std::fill_n(packed, count, 0.0);
        return;
    }
    pack_from(&mean[begin], i, begin, count, packed);
}

void UnitRows::pack_from(const double* from, std::size_t i, std::size_t begin, std::size_t count,
                         float* packed) const {
    deviate_float(rows.row(i) + begin, &center[begin], inverse[i], from, count, packed);
}

void UnitRows::pack_from(const double* from, std::size_t i, std::size_t begin, std::size_t count,
                         double* packed) const {
    deviate_double(rows.row(i) + begin, &center[begin], inverse[i], from, count, packed);
}

UnitPair make_unit_pair(const RowSet& a, const RowSet& b, bool center, int threads, Monitor& monitor) {
    UnitPair pair{start(a, "a", threads, monitor), start(b, "b", threads, monitor), 0};
    if (center) fill_centers(pair, threads, monitor);
    const std::vector<double> sums = fill_inverse_norms(pair, threads, monitor);
    std::size_t unknown = 0;
    for (const double inverse : pair.a.inverse) {
        unknown += std::isnan(inverse) ? 1 : 0;
        pair.used += inverse > 0.0 ? 1 : 0;
    }
    if (unknown > 0) {
        check_finite(a.matrix, "a", threads, monitor);
        check_finite(b.matrix, "b", threads, monitor);
    }
    set_means(sums, pair.used, pair.a.mean, pair.b.mean);
    return pair;
}

Deviations measure_deviations(const UnitPair& pair, int threads, Monitor& monitor) {
    const auto measure = [](const UnitRows& unit, std::size_t i) {
        return measure_row(unit.rows.row(i), unit.center.data(), unit.inverse[i], unit.mean.data(),
                           unit.width());
    };
    const auto add = [&](std::size_t begin, std::size_t end, double* sums) {
        for (std::size_t i = begin; i < end; ++i) {
            if (pair.a.inverse[i] == 0.0) continue;
            const AlongAndSquare of_a = measure(pair.a, i), of_b = measure(pair.b, i);
            sums[0] += of_a.along * of_a.along;
            sums[1] += of_a.along * of_b.along;
            sums[2] += of_b.along * of_b.along;
            sums[3] += of_a.square;
            sums[4] += of_b.square;
        }
    };
    const std::vector<double> sums =
        sum_rows("measure deviations", pair.a.rows.size, 5, threads, monitor, add);
    return {sums[0], sums[1], sums[2], sums[3], sums[4]};
}

}  // namespace embgeom

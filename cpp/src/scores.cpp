#include "embgeom/scores.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "embgeom/dot.hpp"
#include "embgeom/multiversion.hpp"

namespace embgeom {
namespace {

constexpr double unit_roundoff = 0x1p-24;

// What underflow can take from a bound, factors included, is less than this by far.
constexpr double underflow_allowance = 1e-37;

float upward(double value) {
    return std::nextafter(static_cast<float>(value), std::numeric_limits<float>::infinity());
}

double largest_norm(const std::vector<double>& squared_norms) {
    const auto largest = std::max_element(squared_norms.begin(), squared_norms.end());
    return largest == squared_norms.end() ? 0.0 : std::sqrt(*largest);
}

}  // namespace

float product_error_bound(std::size_t d) {
    const std::size_t pieces = (d + product_depth - 1) / product_depth;
    const double roundings = static_cast<double>(std::min(d, product_depth) + pieces + 4);
    const double error = roundings * unit_roundoff / (1.0 - roundings * unit_roundoff);
    return upward(error + 20.0 * unit_roundoff);
}

Scores::Scores(Metric metric, RowSet queries, RowSet base, const std::vector<double>& query_squared_norms,
               const std::vector<double>& base_squared_norms)
    : query_factor(queries.size, 1.0F),
      base_factor(base.size, 1.0F),
      base_offset(base.size, 0.0F),
      product_error(product_error_bound(base.matrix.cols)),
      metric_(metric),
      queries_(queries),
      base_(base),
      query_squared_norms_(query_squared_norms),
      base_squared_norms_(base_squared_norms) {
    if (metric == Metric::cosine) {
        for (std::size_t j = 0; j < base.size; ++j) {
            if (base_squared_norms[j] == 0.0) base_offset[j] = -std::numeric_limits<float>::infinity();
        }
        return;
    }
    const double largest = std::max(largest_norm(query_squared_norms), largest_norm(base_squared_norms));
    if (largest > 0.0) scale_ = std::ldexp(1.0, -std::ilogb(largest) - 1);
    const bool euclidean = metric == Metric::euclidean;
    for (std::size_t i = 0; i < queries.size; ++i) {
        query_factor[i] =
            static_cast<float>((euclidean ? 2.0 : 1.0) * scale_ * std::sqrt(query_squared_norms[i]));
    }
    for (std::size_t j = 0; j < base.size; ++j) {
        base_factor[j] = static_cast<float>(scale_ * std::sqrt(base_squared_norms[j]));
        const double offset = euclidean ? -scale_ * scale_ * base_squared_norms[j] : 0.0;
        base_offset[j] = upward(offset * (1.0 - 8.0 * unit_roundoff) + underflow_allowance);
    }
}

double Scores::exact(std::size_t i, std::size_t j) const {
    const float* x = queries_.row(i);
    const float* y = base_.row(j);
    const std::size_t d = base_.matrix.cols;
    switch (metric_) {
        case Metric::cosine:
            return dot(x, y, d) / std::sqrt(query_squared_norms_[i] * base_squared_norms_[j]);
        case Metric::inner_product:
            return dot(x, y, d);
        case Metric::euclidean:
            return -squared_distance(x, y, d);
    }
    return 0.0;
}

float Scores::similarity(double exact_score) const {
    return static_cast<float>(metric_ == Metric::euclidean ? -std::sqrt(-exact_score) : exact_score);
}

float Scores::below(std::size_t i, double exact_score) const {
    double bound = exact_score;
    if (metric_ == Metric::inner_product) bound *= scale_ * scale_;
    if (metric_ == Metric::euclidean) {
        // The sum cancels where the query is far longer than the row, so its float64 rounding counts as well.
        const double rounding = static_cast<double>(base_.matrix.cols + 8) * 0x1p-52;
        bound += query_squared_norms_[i] - rounding * (query_squared_norms_[i] - exact_score);
        bound *= scale_ * scale_;
    }
    return std::nextafter(static_cast<float>(bound), -std::numeric_limits<float>::infinity());
}

bool Scores::has_neighbors(std::size_t i) const {
    return metric_ != Metric::cosine || query_squared_norms_[i] > 0.0;
}

// Whether any bound of a group is above the limit is found without a branch inside the group, which
// compilers turn into vector compares; the caller looks at the single positions of the few groups that
// pass.
EMBGEOM_MULTIVERSION
std::size_t find_above(const float* products, const float* base_factor, const float* base_offset, float error,
                       float query_factor, float limit, std::size_t begin, std::size_t end) {
    for (; begin < end; begin += scan_width) {
        const std::size_t stop = std::min(end, begin + scan_width);
        int above = 0;
        for (std::size_t j = begin; j < stop; ++j) {
            above |= upper_bound(query_factor, base_factor[j], base_offset[j], products[j], error) > limit;
        }
        if (above != 0) return begin;
    }
    return end;
}

EMBGEOM_MULTIVERSION
std::size_t find_above_queries(const float* products, const float* query_factor, const float* limits,
                               float error, float base_factor, float base_offset, std::size_t begin,
                               std::size_t end) {
    for (; begin < end; begin += scan_width) {
        const std::size_t stop = std::min(end, begin + scan_width);
        int above = 0;
        for (std::size_t i = begin; i < stop; ++i) {
            above |= upper_bound(query_factor[i], base_factor, base_offset, products[i], error) > limits[i];
        }
        if (above != 0) return begin;
    }
    return end;
}

}  // namespace embgeom

#include "embgeom/knn/bounds.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/panels.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)
#include <immintrin.h>
#endif

namespace embgeom {
namespace {

// What underflow can take from a bound, factors included, is less than this by far.
constexpr double underflow_allowance = 1e-37;

// Columns are tested in groups: whether any of a group passes needs no branch, so compilers make vector
// compares of it. Tuned by benchmarks/kernels/bench_knn.py.
constexpr std::size_t group = 16;

float upward(double value) {
    return std::nextafter(static_cast<float>(value), infinity);
}

double largest_norm(const std::vector<double>& squared_norms) {
    const auto largest = std::max_element(squared_norms.begin(), squared_norms.end());
    return largest == squared_norms.end() ? 0.0 : std::sqrt(*largest);
}

inline float bound(float query_factor, float base_factor, float base_offset, float product, float error) {
    return query_factor * (base_factor * (product + error)) + base_offset;
}

EMBGEOM_MULTIVERSION
std::size_t find_products_above(const float* products, std::size_t begin, std::size_t end, float row_limit,
                                const float* column_limits, std::uint32_t* found) {
    std::size_t count = 0;
    for (; begin < end; begin += group) {
        const std::size_t stop = std::min(end, begin + group);
        int above = 0;
        for (std::size_t c = begin; c < stop; ++c) {
            above |=
                static_cast<int>(products[c] > row_limit) | static_cast<int>(products[c] > column_limits[c]);
        }
        if (above == 0) continue;
        for (std::size_t c = begin; c < stop; ++c) {
            found[count] = static_cast<std::uint32_t>(c);
            count += static_cast<std::size_t>(products[c] > row_limit) |
                     static_cast<std::size_t>(products[c] > column_limits[c]);
        }
    }
    return count;
}

#if defined(EMBGEOM_HAS_AVX2_CODE)
EMBGEOM_AVX2 std::size_t find_products_above_avx2(const float* products, std::size_t begin, std::size_t end,
                                                  float row_limit, const float* column_limits,
                                                  std::uint32_t* found) {
    constexpr std::size_t width = 8;
    const __m256 limit = _mm256_set1_ps(row_limit);
    std::size_t count = 0;
    for (; begin + width <= end; begin += width) {
        const __m256 values = _mm256_loadu_ps(products + begin);
        const __m256 above =
            _mm256_or_ps(_mm256_cmp_ps(values, limit, _CMP_GT_OQ),
                         _mm256_cmp_ps(values, _mm256_loadu_ps(column_limits + begin), _CMP_GT_OQ));
        for (auto mask = static_cast<unsigned>(_mm256_movemask_ps(above)); mask != 0; mask &= mask - 1)
            found[count++] =
                static_cast<std::uint32_t>(begin) + static_cast<std::uint32_t>(std::countr_zero(mask));
    }
    return count + find_products_above(products, begin, end, row_limit, column_limits, found + count);
}

EMBGEOM_AVX512 std::size_t find_products_above_avx512(const float* products, std::size_t begin,
                                                      std::size_t end, float row_limit,
                                                      const float* column_limits, std::uint32_t* found) {
    constexpr std::size_t width = 16;
    static_assert(width <= Bounds::spare_places);
    const __m512 limit = _mm512_set1_ps(row_limit);
    __m512i columns =
        _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(begin)),
                         _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    std::size_t count = 0;
    for (; begin + width <= end; begin += width) {
        const __m512 values = _mm512_loadu_ps(products + begin);
        const auto above = static_cast<__mmask16>(
            _mm512_cmp_ps_mask(values, limit, _CMP_GT_OQ) |
            _mm512_cmp_ps_mask(values, _mm512_loadu_ps(column_limits + begin), _CMP_GT_OQ));
        // Storing the chosen ones alone is slow on some processors; what is stored after them is overwritten.
        _mm512_storeu_si512(found + count, _mm512_maskz_compress_epi32(above, columns));
        count += static_cast<std::size_t>(std::popcount(static_cast<unsigned>(above)));
        columns = _mm512_add_epi32(columns, _mm512_set1_epi32(static_cast<int>(width)));
    }
    return count + find_products_above(products, begin, end, row_limit, column_limits, found + count);
}
#endif

// One row of a tile, as a query and as a base row, and the rows of the base block in both roles.
struct Factors {
    float error;
    float row_query_factor, row_base_factor, row_base_offset;
    const float *query_factor, *base_factor, *base_offset;
};

EMBGEOM_MULTIVERSION
std::size_t find_bounds_above(const float* products, std::size_t begin, std::size_t end, const Factors& f,
                              float row_limit, const float* column_limits, std::uint32_t* found) {
    const auto passes = [&](std::size_t c) __attribute__((always_inline)) {
        const float row = bound(f.row_query_factor, f.base_factor[c], f.base_offset[c], products[c], f.error);
        const float column =
            bound(f.query_factor[c], f.row_base_factor, f.row_base_offset, products[c], f.error);
        return static_cast<int>(row > row_limit) | static_cast<int>(column > column_limits[c]);
    };
    std::size_t count = 0;
    for (; begin < end; begin += group) {
        const std::size_t stop = std::min(end, begin + group);
        int above = 0;
        for (std::size_t c = begin; c < stop; ++c) above |= passes(c);
        if (above == 0) continue;
        for (std::size_t c = begin; c < stop; ++c) {
            found[count] = static_cast<std::uint32_t>(c);
            count += static_cast<std::size_t>(passes(c));
        }
    }
    return count;
}

// value(item) for each item, by block and place.
template <class Value>
std::vector<float> by_place(const Blocks& blocks, Value value) {
    std::vector<float> values(blocks.count() * blocks.width(), 0.0F);
    for (std::size_t b = 0; b < blocks.count(); ++b) {
        for (std::size_t c = 0; c < blocks.size(b); ++c)
            values[b * blocks.width() + c] = value(blocks.item(b, c));
    }
    return values;
}

}  // namespace

float product_error_bound(std::size_t d) {
    const std::size_t pieces = divide_up(d, product_depth);
    const double roundings = static_cast<double>(std::min(d, product_depth) + pieces + 6);
    const double error = roundings * unit_roundoff / (1.0 - roundings * unit_roundoff);
    return upward(error + 20.0 * unit_roundoff);
}

Bounds::Bounds(Metric metric, const Blocks& queries, const Blocks& base, bool self_join, std::size_t d,
               const std::vector<double>& query_squared_norms, const std::vector<double>& base_squared_norms)
    : metric_(metric),
      self_join_(self_join),
      error_(product_error_bound(d)),
      rounding_(static_cast<double>(d + 8) * 0x1p-52),
      queries_(queries),
      base_(base),
      query_squared_norms_(query_squared_norms) {
    if (metric == Metric::cosine) return;
    const double largest = std::max(largest_norm(query_squared_norms), largest_norm(base_squared_norms));
    if (largest > 0.0) scale_ = std::ldexp(1.0, -std::ilogb(largest) - 1);
    const bool euclidean = metric == Metric::euclidean;
    const double twice = euclidean ? 2.0 : 1.0;
    query_factor_ = by_place(queries, [&](std::size_t i) {
        return static_cast<float>(twice * scale_ * std::sqrt(query_squared_norms[i]));
    });
    base_factor_ = by_place(
        base, [&](std::size_t j) { return static_cast<float>(scale_ * std::sqrt(base_squared_norms[j])); });
    base_offset_ = by_place(base, [&](std::size_t j) {
        const double offset = euclidean ? -scale_ * scale_ * base_squared_norms[j] : 0.0;
        return upward(offset * (1.0 - 8.0 * unit_roundoff) + underflow_allowance);
    });
}

float Bounds::limit(std::size_t i, double score) const {
    double below = score;
    if (metric_ == Metric::cosine) below -= static_cast<double>(error_);
    if (metric_ == Metric::inner_product) below *= scale_ * scale_;
    if (metric_ == Metric::euclidean) {
        // The sum cancels where the query is far longer than the row, so its float64 rounding counts as well.
        below += query_squared_norms_[i] - rounding_ * (query_squared_norms_[i] - score);
        below *= scale_ * scale_;
    }
    return std::nextafter(static_cast<float>(below), -infinity);
}

std::size_t Bounds::find_above(const Tile& tile, std::size_t row, float row_limit, const float* column_limits,
                               std::uint32_t* found) const {
    const float* products = tile.products.row(row);
    const std::size_t size = tile.products.cols;
    if (metric_ == Metric::cosine) {
#if defined(EMBGEOM_HAS_AVX2_CODE)
        if (have_avx512())
            return find_products_above_avx512(products, 0, size, row_limit, column_limits, found);
        if (have_avx2()) return find_products_above_avx2(products, 0, size, row_limit, column_limits, found);
#endif
        return find_products_above(products, 0, size, row_limit, column_limits, found);
    }
    const std::size_t i = tile.query_block * queries_.width() + row;
    const std::size_t j = tile.base_block * base_.width();
    const Factors factors{.error = error_,
                          .row_query_factor = query_factor_[i],
                          .row_base_factor = self_join_ ? base_factor_[i] : 0.0F,
                          .row_base_offset = self_join_ ? base_offset_[i] : 0.0F,
                          .query_factor = self_join_ ? &query_factor_[j] : &base_factor_[j],
                          .base_factor = &base_factor_[j],
                          .base_offset = &base_offset_[j]};
    return find_bounds_above(products, 0, size, factors, row_limit, column_limits, found);
}

void Bounds::fill(const Tile& tile, std::size_t row, float* bounds) const {
    const float* products = tile.products.row(row);
    const std::size_t size = tile.products.cols;
    std::copy(products, products + size, bounds);
    if (metric_ == Metric::cosine) return;
    const std::size_t i = tile.query_block * queries_.width() + row;
    const std::size_t j = tile.base_block * base_.width();
    for (std::size_t c = 0; c < size; ++c)
        bounds[c] = bound(query_factor_[i], base_factor_[j + c], base_offset_[j + c], products[c], error_);
}

}  // namespace embgeom

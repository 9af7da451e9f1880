#include "embgeom/panels.hpp"

#include "embgeom/blas.hpp"
#include "embgeom/multiversion.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)
#include <immintrin.h>
#endif

namespace embgeom {
namespace {

constexpr std::size_t left_panel = 6, right_panel = 16, lanes = 8;

bool multiplies_itself() {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    static const bool itself = have_avx2() && __builtin_cpu_supports("avx512f") == 0;
    return itself;
#else
    return false;
#endif
}

std::size_t panel_of(Side side) {
    if (!multiplies_itself()) return 1;
    return side == Side::left ? left_panel : right_panel;
}

#if defined(EMBGEOM_HAS_AVX2_CODE)

// Transposes eight rows of eight coordinates: out[l] holds coordinate l of rows 0 to 7.
EMBGEOM_AVX2 inline void transpose(const float* const (&rows)[lanes], std::size_t l, __m256 (&out)[lanes]) {
    __m256 pairs[lanes], fours[lanes];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < lanes; r += 2) {
        const __m256 a = _mm256_loadu_ps(rows[r] + l), b = _mm256_loadu_ps(rows[r + 1] + l);
        pairs[r] = _mm256_unpacklo_ps(a, b);
        pairs[r + 1] = _mm256_unpackhi_ps(a, b);
    }
#pragma GCC unroll 2
    for (std::size_t r = 0; r < lanes; r += 4) {
#pragma GCC unroll 2
        for (std::size_t h = 0; h < 2; ++h) {
            fours[r + 2 * h] = _mm256_shuffle_ps(pairs[r + h], pairs[r + 2 + h], 0x44);
            fours[r + 2 * h + 1] = _mm256_shuffle_ps(pairs[r + h], pairs[r + 2 + h], 0xEE);
        }
    }
#pragma GCC unroll 4
    for (std::size_t r = 0; r < 4; ++r) {
        out[r] = _mm256_permute2f128_ps(fours[r], fours[r + 4], 0x20);
        out[r + 4] = _mm256_permute2f128_ps(fours[r], fours[r + 4], 0x31);
    }
}

// Interleaves up to eight rows of `width` coordinates, `stride` apart in `out`. Where the stride is below
// eight, each store reaches into the next coordinate's place, which is written after it; so the last ones are
// written one by one.
EMBGEOM_AVX2 void interleave_rows(const float* rows, std::size_t count, std::size_t width, std::size_t stride,
                                  float* out) {
    const float* from[lanes];
    for (std::size_t r = 0; r < lanes; ++r) from[r] = rows + std::min(r, count - 1) * width;
    std::size_t l = 0;
    for (; l + lanes < width; l += lanes) {
        __m256 transposed[lanes];
        transpose(from, l, transposed);
#pragma GCC unroll 8
        for (std::size_t c = 0; c < lanes; ++c) _mm256_storeu_ps(out + (l + c) * stride, transposed[c]);
    }
    for (; l < width; ++l) {
        for (std::size_t r = 0; r < count; ++r) out[l * stride + r] = from[r][l];
    }
}

// Six rows by eight times `Vectors` columns of the product, whose sums stay in registers.
template <std::size_t Vectors>
EMBGEOM_AVX2 void multiply_panels(std::size_t width, const float* left, const float* right, float* products,
                                  std::size_t stride, bool add) {
    constexpr std::size_t ahead = 32;  // coordinates of the left panel, which come from the second cache
    __m256 sums[left_panel][Vectors];
#pragma GCC unroll 6
    for (std::size_t r = 0; r < left_panel; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] = _mm256_setzero_ps();
    }
    for (std::size_t r = 0; r < left_panel; ++r) {
        __builtin_prefetch(products + r * stride, 1);
        __builtin_prefetch(products + r * stride + lanes * Vectors - 1, 1);
    }
#pragma GCC unroll 8
    for (std::size_t l = 0; l < width; ++l) {
        if (l % 2 == 0) __builtin_prefetch(left + (l + ahead) * left_panel);
        __m256 columns[Vectors];
#pragma GCC unroll 2
        for (std::size_t v = 0; v < Vectors; ++v)
            columns[v] = _mm256_loadu_ps(right + l * right_panel + v * lanes);
#pragma GCC unroll 6
        for (std::size_t r = 0; r < left_panel; ++r) {
            const __m256 row = _mm256_broadcast_ss(left + l * left_panel + r);
#pragma GCC unroll 2
            for (std::size_t v = 0; v < Vectors; ++v)
                sums[r][v] = _mm256_fmadd_ps(row, columns[v], sums[r][v]);
        }
    }
#pragma GCC unroll 6
    for (std::size_t r = 0; r < left_panel; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < Vectors; ++v) {
            float* place = products + r * stride + v * lanes;
            _mm256_storeu_ps(place, add ? _mm256_add_ps(_mm256_loadu_ps(place), sums[r][v]) : sums[r][v]);
        }
    }
}

#endif

}  // namespace

Panels::Panels(Side side, std::size_t most, std::size_t d)
    : side_(side),
      d_(d),
      panel_(panel_of(side)),
      rows_(panel_ * std::min(d, product_depth)),
      values_(padded(side, most) * d) {}

std::size_t Panels::padded(Side side, std::size_t count) {
    const std::size_t panel = panel_of(side);
    return (count + panel - 1) / panel * panel;
}

void Panels::interleave(std::size_t width, float* out) const {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (multiplies_itself()) {
        for (std::size_t r = 0; r < panel_; r += lanes)
            interleave_rows(rows_.data() + r * width, std::min(lanes, panel_ - r), width, panel_, out + r);
        return;
    }
#endif
    std::copy_n(rows_.data(), width, out);
}

void multiply_piece(const Panels& left, const Panels& right, std::size_t begin, float* products,
                    std::size_t stride) {
    const std::size_t width = std::min(product_depth, left.d_ - begin);
    const float *a = left.piece(begin), *b = right.piece(begin);
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (multiplies_itself()) {
        for (std::size_t j = 0; j < right.count_; j += right_panel) {
            const bool half = right.count_ - j <= lanes;
            const auto multiply = half ? multiply_panels<1> : multiply_panels<2>;
            for (std::size_t i = 0; i < left.count_; i += left_panel)
                multiply(width, a + i * width, b + j * width, products + i * stride + j, stride, begin > 0);
        }
        return;
    }
#endif
    blas::multiply_nt(left.count_, right.count_, width, a, width, b, width, begin == 0 ? 0.0F : 1.0F,
                      products, stride);
}

}  // namespace embgeom

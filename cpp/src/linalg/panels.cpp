#include "embgeom/linalg/panels.hpp"

#include <cstring>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/product_kernel.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)
#include <immintrin.h>
#endif

namespace embgeom {
namespace {

// The columns of one panel, `Panel` of them, of a matrix of `depth` rows.
template <std::size_t Panel>
void copy_columns(const float* matrix, std::size_t stride, std::size_t depth, float* out) {
    for (std::size_t l = 0; l < depth; ++l)
        std::memcpy(out + l * Panel, matrix + l * stride, Panel * sizeof(float));
}

struct Kernel {
    PanelSizes panels;
    ProductKernel* multiply;
    decltype(&copy_columns<1>) copy_left, copy_right;
};

template <PanelSizes panels>
Kernel kernel_of(ProductKernel* multiply) {
    return {panels, multiply, copy_columns<panels.left>, copy_columns<panels.right>};
}

void multiply_single_rows(std::size_t left_count, std::size_t right_count, std::size_t width,
                          const float* left, const float* right, float* products, std::size_t stride,
                          bool add) {
    blas::multiply_nt(left_count, right_count, width, left, width, right, width, add ? 1.0F : 0.0F, products,
                      stride);
}

#if defined(EMBGEOM_HAS_AVX2_CODE)

constexpr std::size_t lanes = 8;

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

// Interleaves up to eight rows of `width` coordinates, `stride` apart in `out`. Stores are of eight, so each
// may reach past the rows' end into the next coordinate's place; the last ones are written one by one.
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

// From the last rows to the first: what a store wrote into the next coordinate's first places is written
// over.
EMBGEOM_AVX2 void interleave_panel(const float* rows, std::size_t count, std::size_t width, float* out) {
    for (std::size_t r = (count - 1) / lanes * lanes + lanes; r > 0; r -= lanes) {
        const std::size_t first = r - lanes;
        interleave_rows(rows + first * width, std::min(lanes, count - first), width, count, out + first);
    }
}

#endif

Kernel best_kernel() {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (have_avx512()) return kernel_of<avx512_panels>(multiply_avx512);
    if (have_avx2()) return kernel_of<avx2_panels>(multiply_avx2);
#endif
    return kernel_of<PanelSizes{1, 1}>(multiply_single_rows);
}

const Kernel& kernel() {
    static const Kernel best = best_kernel();
    return best;
}

std::size_t panel_of(Side side) {
    return side == Side::left ? kernel().panels.left : kernel().panels.right;
}

}  // namespace

std::size_t Panels::room(Side side, std::size_t most, std::size_t d) {
    return padded(side, most) * d;
}

Panels::Panels(Side side, std::size_t d, float* room)
    : side_(side), d_(d), panel_(panel_of(side)), rows_(panel_ * std::min(d, product_depth)), values_(room) {}

std::size_t Panels::padded(Side side, std::size_t count) {
    return round_up(count, panel_of(side));
}

void Panels::interleave(const float* rows, std::size_t width, float* out) const {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (panel_ > 1) {
        interleave_panel(rows, panel_, width, out);
        return;
    }
#endif
    std::copy_n(rows, width, out);
}

void Panels::pack_rows(std::size_t count, const float* matrix) {
    count_ = count;
    for (std::size_t panel = 0; panel < count; panel += panel_) {
        const float* rows = matrix + panel * d_;
        if (count - panel < panel_) {
            std::fill(std::copy_n(rows, (count - panel) * d_, rows_.data()), rows_.data() + panel_ * d_,
                      0.0F);
            rows = rows_.data();
        }
        interleave(rows, d_, values_ + panel * d_);
    }
}

void Panels::pack_columns(std::size_t count, const float* matrix, std::size_t stride) {
    count_ = count;
    const auto copy = side_ == Side::left ? kernel().copy_left : kernel().copy_right;
    std::size_t panel = 0;
    for (; panel + panel_ <= count; panel += panel_) copy(matrix + panel, stride, d_, values_ + panel * d_);
    if (panel < count) {
        float* out = values_ + panel * d_;
        for (std::size_t l = 0; l < d_; ++l, out += panel_) {
            std::copy_n(matrix + l * stride + panel, count - panel, out);
            std::fill_n(out + count - panel, panel_ - (count - panel), 0.0F);
        }
    }
}

void multiply_piece(const Panels& left, const Panels& right, std::size_t begin, float* products,
                    std::size_t stride) {
    const std::size_t width = std::min(product_depth, left.d_ - begin);
    kernel().multiply(left.count_, right.count_, width, left.piece(begin), right.piece(begin), products,
                      stride, begin > 0);
}

// Left rows that stay in the second-level cache meet one right panel after another.
void add_lower_triangle(const Panels& left, const Panels& right, float* c, std::size_t stride) {
    constexpr std::size_t block = 384;
    const Kernel& best = kernel();
    const std::size_t columns = best.panels.right > 1 ? best.panels.right : 96, width = left.d_;
    for (std::size_t begin = 0; begin < left.count_; begin += block) {
        const std::size_t end = std::min(begin + block, left.count_);
        for (std::size_t j = 0; j < end; j += columns) {
            const std::size_t i = std::max(begin, j / best.panels.left * best.panels.left);
            best.multiply(end - i, std::min(columns, right.count_ - j), width, left.values_ + i * width,
                          right.values_ + j * width, c + i * stride + j, stride, true);
        }
    }
}

std::size_t triangle_room(std::size_t count, std::size_t stride) {
    return Panels::padded(Side::left, count) * stride + Panels::padded(Side::right, count);
}

}  // namespace embgeom

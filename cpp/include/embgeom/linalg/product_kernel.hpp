#pragma once

#include <cstddef>

#include "embgeom/base/multiversion.hpp"

namespace embgeom {

// The inner part of panels.hpp's product, for one piece of `width` coordinates: for all rows i on the left
// and j on the right
//
//     products_ij (+)= sum_l left_il right_jl
//
// Both sides are packed in panels, coordinate by coordinate within a panel. A left panel has as many rows as
// a block of sums kept in registers; a right panel two vectors of columns. GCC splits vectors that a function
// is not compiled for before it inlines, so each instruction set has a file of its own, with its own flags.
using ProductKernel = void(std::size_t left_count, std::size_t right_count, std::size_t width,
                           const float* left, const float* right, float* products, std::size_t stride,
                           bool add);

struct PanelSizes {
    std::size_t left, right;
};

#if defined(EMBGEOM_HAS_AVX2_CODE)
constexpr PanelSizes avx2_panels{6, 16};
ProductKernel multiply_avx2;

constexpr PanelSizes avx512_panels{12, 32};
ProductKernel multiply_avx512;
#endif

// `Rows` rows by `Vectors` vectors of columns.
template <class Vector, std::size_t Rows, std::size_t Vectors>
[[gnu::always_inline]] inline void multiply_panels(std::size_t width, const float* left, const float* right,
                                                   float* products, std::size_t stride, bool add) {
    constexpr std::size_t columns = sizeof(Vector) / sizeof(float);
    // Left panels come from the second-level cache, twelve floats with each line that is fetched ahead. Tuned
    // by benchmarks/kernels/bench_knn.py.
    constexpr std::size_t ahead = 192 / Rows, every = 12 / Rows;
    Vector sums[Rows][Vectors] = {};
    for (std::size_t r = 0; r < Rows; ++r) {
        __builtin_prefetch(products + r * stride, 1);
        __builtin_prefetch(products + r * stride + columns * Vectors - 1, 1);
    }
#pragma GCC unroll 8
    for (std::size_t l = 0; l < width; ++l) {
        if (l % every == 0) __builtin_prefetch(left + (l + ahead) * Rows);
        Vector coordinates[Vectors];
#pragma GCC unroll 2
        for (std::size_t v = 0; v < Vectors; ++v)
            __builtin_memcpy(&coordinates[v], right + (2 * l + v) * columns, sizeof(Vector));
#pragma GCC unroll 12
        for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
            for (std::size_t v = 0; v < Vectors; ++v) sums[r][v] += left[l * Rows + r] * coordinates[v];
        }
    }
#pragma GCC unroll 12
    for (std::size_t r = 0; r < Rows; ++r) {
#pragma GCC unroll 2
        for (std::size_t v = 0; v < Vectors; ++v) {
            float* place = products + r * stride + v * columns;
            Vector sum = sums[r][v], before;
            if (add) {
                __builtin_memcpy(&before, place, sizeof before);
                sum += before;
            }
            __builtin_memcpy(place, &sum, sizeof sum);
        }
    }
}

// A right panel is multiplied with all left panels while it lies in the first-level cache. The last one may
// be half full.
template <class Vector, PanelSizes panels>
[[gnu::always_inline]] inline void multiply_all(std::size_t left_count, std::size_t right_count,
                                                std::size_t width, const float* left, const float* right,
                                                float* products, std::size_t stride, bool add) {
    for (std::size_t j = 0; j < right_count; j += panels.right) {
        for (std::size_t i = 0; i < left_count; i += panels.left) {
            const float *a = left + i * width, *b = right + j * width;
            float* place = products + i * stride + j;
            if (right_count - j > panels.right / 2) {
                multiply_panels<Vector, panels.left, 2>(width, a, b, place, stride, add);
            } else {
                multiply_panels<Vector, panels.left, 1>(width, a, b, place, stride, add);
            }
        }
    }
}

}  // namespace embgeom

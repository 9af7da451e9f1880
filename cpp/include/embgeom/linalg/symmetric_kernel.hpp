#pragma once

#include <cstddef>

#include "embgeom/base/multiversion.hpp"

namespace embgeom {

// The inner loops of tridiagonal_form. A symmetric matrix is given by what lies below its diagonal, packed in
// panels of four rows, and within a panel in blocks of sixteen columns: a product reads memory in order,
// once. The diagonal is halved; columns beyond it, and rows beyond the last, hold zeros.
struct SymmetricPanels {
    static constexpr std::size_t rows = 4, columns = 16;
};

struct SymmetricKernel {
    // y = (L + L') x for the L in `panels` (n, n); x and y have room for whole blocks, x with zeros there.
    void (*multiply)(std::size_t n, const float* panels, const float* x, float* y);
    // products_m = rows_m . x for `count` rows, `stride` apart, of which `n` elements count.
    void (*project)(std::size_t count, std::size_t n, const float* rows, std::size_t stride, const float* x,
                    float* products);
    // y -= sum_m factors_m rows_m
    void (*subtract)(std::size_t count, std::size_t n, const float* rows, std::size_t stride,
                     const float* factors, float* y);
};

#if defined(EMBGEOM_HAS_AVX2_CODE)
extern const SymmetricKernel symmetric_avx2, symmetric_avx512;
#endif

template <class Vector>
struct SymmetricLoops {
    static constexpr std::size_t lanes = sizeof(Vector) / sizeof(float);

    [[gnu::always_inline]] static Vector load(const float* from) {
        Vector values;
        __builtin_memcpy(&values, from, sizeof values);
        return values;
    }

    [[gnu::always_inline]] static float sum(const Vector& values) {
        float total = 0.0F;
        for (std::size_t lane = 0; lane < lanes; ++lane) total += values[lane];
        return total;
    }

    [[gnu::always_inline]] static void multiply_panel(std::size_t row, const float* panel, const float* x,
                                                      float* y) {
        constexpr std::size_t rows = SymmetricPanels::rows, columns = SymmetricPanels::columns;
        constexpr std::size_t vectors = columns / lanes, ahead = 8 * rows * columns;
        Vector sums[vectors][rows] = {}, factors[rows];
#pragma GCC unroll 4
        for (std::size_t r = 0; r < rows; ++r) factors[r] = x[row + r] - Vector{};
        for (std::size_t begin = 0; begin <= row; begin += columns, panel += rows * columns) {
#pragma GCC unroll 4
            for (std::size_t r = 0; r < rows; ++r) __builtin_prefetch(panel + ahead + r * columns);
#pragma GCC unroll 4
            for (std::size_t v = 0; v < vectors; ++v) {
                const Vector across = load(x + begin + v * lanes);
                Vector down = load(y + begin + v * lanes);
#pragma GCC unroll 4
                for (std::size_t r = 0; r < rows; ++r) {
                    const Vector values = load(panel + r * columns + v * lanes);
                    down += values * factors[r];
                    sums[v][r] += values * across;
                }
                __builtin_memcpy(y + begin + v * lanes, &down, sizeof down);
            }
        }
#pragma GCC unroll 4
        for (std::size_t r = 0; r < rows; ++r) {
            Vector total = sums[0][r];
            for (std::size_t v = 1; v < vectors; ++v) total += sums[v][r];
            y[row + r] += sum(total);
        }
    }

    static void multiply(std::size_t n, const float* panels, const float* x, float* y) {
        constexpr std::size_t rows = SymmetricPanels::rows, columns = SymmetricPanels::columns;
        for (std::size_t i = 0; i < n; ++i) y[i] = 0.0F;
        for (std::size_t row = 0; row < n; row += rows) {
            multiply_panel(row, panels, x, y);
            panels += (row / columns + 1) * rows * columns;
        }
    }

    template <std::size_t Rows>
    [[gnu::always_inline]] static void project_rows(std::size_t n, const float* rows, std::size_t stride,
                                                    const float* x, float* products) {
        Vector sums[Rows] = {};
        std::size_t l = 0;
        for (; l + lanes <= n; l += lanes) {
            const Vector values = load(x + l);
#pragma GCC unroll 4
            for (std::size_t r = 0; r < Rows; ++r) sums[r] += load(rows + r * stride + l) * values;
        }
        for (std::size_t r = 0; r < Rows; ++r) {
            float product = sum(sums[r]);
            for (std::size_t rest = l; rest < n; ++rest) product += rows[r * stride + rest] * x[rest];
            products[r] = product;
        }
    }

    static void project(std::size_t count, std::size_t n, const float* rows, std::size_t stride,
                        const float* x, float* products) {
        std::size_t m = 0;
        for (; m + 4 <= count; m += 4) project_rows<4>(n, rows + m * stride, stride, x, products + m);
        for (; m < count; ++m) project_rows<1>(n, rows + m * stride, stride, x, products + m);
    }

    template <std::size_t Rows>
    [[gnu::always_inline]] static void subtract_rows(std::size_t n, const float* rows, std::size_t stride,
                                                     const float* factors, float* y) {
        std::size_t l = 0;
        for (; l + lanes <= n; l += lanes) {
            Vector values = load(y + l);
#pragma GCC unroll 8
            for (std::size_t r = 0; r < Rows; ++r) values -= load(rows + r * stride + l) * factors[r];
            __builtin_memcpy(y + l, &values, sizeof values);
        }
        for (; l < n; ++l) {
            for (std::size_t r = 0; r < Rows; ++r) y[l] -= rows[r * stride + l] * factors[r];
        }
    }

    static void subtract(std::size_t count, std::size_t n, const float* rows, std::size_t stride,
                         const float* factors, float* y) {
        std::size_t m = 0;
        for (; m + 8 <= count; m += 8) subtract_rows<8>(n, rows + m * stride, stride, factors + m, y);
        for (; m + 4 <= count; m += 4) subtract_rows<4>(n, rows + m * stride, stride, factors + m, y);
        for (; m < count; ++m) subtract_rows<1>(n, rows + m * stride, stride, factors + m, y);
    }

    static constexpr SymmetricKernel kernel{multiply, project, subtract};
};

}  // namespace embgeom

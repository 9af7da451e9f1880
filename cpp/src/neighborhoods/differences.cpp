#include "embgeom/neighborhoods/differences.hpp"

#include <algorithm>
#include <cmath>

#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)
#include <immintrin.h>
#endif

namespace embgeom {
namespace {

constexpr std::size_t lanes = 4;  // float64 in a vector

// Coordinates in a piece. A sum of lanes costs as much as a dozen coordinates, so short pieces do not pay,
// although they would fit into the nearest cache. Tuned by benchmarks/kernels/bench_lle.py.
constexpr std::size_t piece = 256;

// Up to this many rows, blocks in registers are faster than BLAS, which packs its operands first. Tuned by
// benchmarks/kernels/bench_lle.py.
[[maybe_unused]] constexpr std::size_t block_limit = 200;

void fill_plain(const double* x, const float* y, std::size_t width, double* out) {
    for (std::size_t l = 0; l < width; ++l) out[l] = x[l] - static_cast<double>(y[l]);
}

// sum_l (sum_j w_j (x_l - y_jl))^2, the coordinates in pieces that stay in the nearest cache.
double square_plain(const float* x, const float* const* y, const double* weights, std::size_t k,
                    std::size_t d) {
    double square = 0.0;
    for (std::size_t begin = 0; begin < d; begin += 64) {
        double sum[64] = {};
        const std::size_t width = std::min<std::size_t>(64, d - begin);
        for (std::size_t j = 0; j < k; ++j) {
            for (std::size_t l = 0; l < width; ++l) {
                sum[l] +=
                    weights[j] * (static_cast<double>(x[begin + l]) - static_cast<double>(y[j][begin + l]));
            }
        }
        for (const double value : sum) square += value * value;
    }
    return square;
}

#if defined(EMBGEOM_HAS_AVX2_CODE)

EMBGEOM_AVX2 inline __m256d load_wide(const float* x) {
    return _mm256_cvtps_pd(_mm_loadu_ps(x));
}

EMBGEOM_AVX2 inline double sum_of_lanes(__m256d v) {
    const __m128d half = _mm_add_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return _mm_cvtsd_f64(_mm_add_sd(half, _mm_unpackhi_pd(half, half)));
}

EMBGEOM_AVX2 void fill_avx2(const double* x, const float* y, std::size_t width, double* out) {
    std::size_t l = 0;
    for (; l + lanes <= width; l += lanes) {
        _mm256_store_pd(out + l, _mm256_sub_pd(_mm256_load_pd(x + l), load_wide(y + l)));
    }
    fill_plain(x + l, y + l, width - l, out + l);
}

// The products of `Rows` rows with `Columns` others, added to their places in the Gram matrix. Each sum of
// lanes stays in a register; there are sixteen, and a multiply-add is to be begun while the seven before it
// are still under way.
template <std::size_t Rows, std::size_t Columns>
EMBGEOM_AVX2 void add_rectangle(const double* a, const double* b, std::size_t stride, std::size_t width,
                                double* gram, std::size_t k) {
    __m256d sum[Rows][Columns];
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t c = 0; c < Columns; ++c) sum[r][c] = _mm256_setzero_pd();
    }
    for (std::size_t l = 0; l < width; l += lanes) {
        __m256d column[Columns];
        for (std::size_t c = 0; c < Columns; ++c) column[c] = _mm256_load_pd(b + c * stride + l);
        for (std::size_t r = 0; r < Rows; ++r) {
            const __m256d row = _mm256_load_pd(a + r * stride + l);
            for (std::size_t c = 0; c < Columns; ++c) sum[r][c] = _mm256_fmadd_pd(row, column[c], sum[r][c]);
        }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t c = 0; c < Columns; ++c) gram[r * k + c] += sum_of_lanes(sum[r][c]);
    }
}

// The same for the products of `Rows` rows with each other: a lower triangle.
template <std::size_t Rows>
EMBGEOM_AVX2 void add_triangle(const double* a, std::size_t stride, std::size_t width, double* gram,
                               std::size_t k) {
    __m256d sum[Rows][Rows];
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t c = 0; c <= r; ++c) sum[r][c] = _mm256_setzero_pd();
    }
    for (std::size_t l = 0; l < width; l += lanes) {
        __m256d row[Rows];
        for (std::size_t r = 0; r < Rows; ++r) {
            row[r] = _mm256_load_pd(a + r * stride + l);
            for (std::size_t c = 0; c <= r; ++c) sum[r][c] = _mm256_fmadd_pd(row[r], row[c], sum[r][c]);
        }
    }
    for (std::size_t r = 0; r < Rows; ++r) {
        for (std::size_t c = 0; c <= r; ++c) gram[r * k + c] += sum_of_lanes(sum[r][c]);
    }
}

// Blocks of three rows until what is left divides by four: then all rectangles have three or four rows and
// two or three columns (but for five rows in all).
std::size_t rows_of_block(std::size_t left) {
    if (left < 3) return left;
    return left % 4 == 0 ? 4 : 3;
}

EMBGEOM_AVX2 void add_block(const double* a, const double* b, std::size_t rows, std::size_t columns,
                            std::size_t stride, std::size_t width, double* gram, std::size_t k) {
    if (rows == 4 && columns == 3) return add_rectangle<4, 3>(a, b, stride, width, gram, k);
    if (rows == 4) return add_rectangle<4, 2>(a, b, stride, width, gram, k);
    if (rows == 3) return add_rectangle<3, 3>(a, b, stride, width, gram, k);
    return add_rectangle<2, 3>(a, b, stride, width, gram, k);
}

EMBGEOM_AVX2 void add_diagonal_block(const double* a, std::size_t rows, std::size_t stride, std::size_t width,
                                     double* gram, std::size_t k) {
    if (rows == 4) return add_triangle<4>(a, stride, width, gram, k);
    if (rows == 3) return add_triangle<3>(a, stride, width, gram, k);
    if (rows == 2) return add_triangle<2>(a, stride, width, gram, k);
    return add_triangle<1>(a, stride, width, gram, k);
}

// G += A A' for A (k, width); `width` divides by the number of lanes.
EMBGEOM_AVX2 void add_gram_avx2(const double* a, std::size_t k, std::size_t stride, std::size_t width,
                                double* gram, Prefetch& prefetch, std::size_t lines_per_block) {
    for (std::size_t i = 0; i < k;) {
        const std::size_t rows = rows_of_block(k - i);
        prefetch.ask(lines_per_block);
        add_diagonal_block(a + i * stride, rows, stride, width, gram + i * k + i, k);
        for (std::size_t j = 0; j < i;) {
            prefetch.ask(lines_per_block);
            const std::size_t left = i - j;
            const std::size_t columns = left == 4 || left == 2 ? 2 : 3;
            add_block(a + i * stride, a + j * stride, rows, columns, stride, width, gram + i * k + j, k);
            j += columns;
        }
        i += rows;
    }
}

EMBGEOM_AVX2 double square_avx2(const float* x, const float* const* y, const double* weights, std::size_t k,
                                std::size_t d) {
    constexpr std::size_t vectors = 4;
    __m256d square = _mm256_setzero_pd();
    std::size_t begin = 0;
    for (; begin + vectors * lanes <= d; begin += vectors * lanes) {
        __m256d origin[vectors], sum[vectors];
        for (std::size_t v = 0; v < vectors; ++v) {
            origin[v] = load_wide(x + begin + v * lanes);
            sum[v] = _mm256_setzero_pd();
        }
        for (std::size_t j = 0; j < k; ++j) {
            const __m256d weight = _mm256_broadcast_sd(weights + j);
            const float* row = y[j] + begin;
            for (std::size_t v = 0; v < vectors; ++v) {
                const __m256d difference = _mm256_sub_pd(origin[v], load_wide(row + v * lanes));
                sum[v] = _mm256_fmadd_pd(weight, difference, sum[v]);
            }
        }
        for (std::size_t v = 0; v < vectors; ++v) square = _mm256_fmadd_pd(sum[v], sum[v], square);
    }
    double rest = 0.0;
    for (; begin < d; ++begin) {
        double sum = 0.0;
        for (std::size_t j = 0; j < k; ++j) {
            sum += weights[j] * (static_cast<double>(x[begin]) - static_cast<double>(y[j][begin]));
        }
        rest += sum * sum;
    }
    return sum_of_lanes(square) + rest;
}

bool blocks_pay(std::size_t k) {
    return have_avx2() && k <= block_limit;
}

void fill_row(const double* x, const float* y, std::size_t width, double* out) {
    if (have_avx2()) return fill_avx2(x, y, width, out);
    fill_plain(x, y, width, out);
}

double square_of_sum(const float* x, const float* const* y, const double* weights, std::size_t k,
                     std::size_t d) {
    return have_avx2() ? square_avx2(x, y, weights, k, d) : square_plain(x, y, weights, k, d);
}

#else

bool blocks_pay(std::size_t) {
    return false;
}
void add_gram_avx2(const double*, std::size_t, std::size_t, std::size_t, double*, Prefetch&, std::size_t) {}
constexpr auto fill_row = fill_plain;
constexpr auto square_of_sum = square_plain;

#endif

}  // namespace

void Prefetch::ask(std::size_t lines) {
    for (; lines > 0 && row_ < count_; --lines) {
        __builtin_prefetch(rows_[row_] + column_, 0, 2);
        column_ += floats_in_line;
        if (column_ >= d_) {
            column_ = 0;
            ++row_;
        }
    }
}

Differences::Differences(std::size_t k, std::size_t d)
    : k_(k),
      d_(d),
      // An odd number of cache lines: rows that lie a power of two apart would meet in few places of a cache.
      stride_(round_up(std::min(piece, d), 2 * doubles_in_line) + doubles_in_line),
      workspace_((k + 1) * stride_) {}

void Differences::fill_gram(const float* x, const float* const* y, double* gram, Prefetch prefetch) {
    std::fill_n(gram, k_ * k_, 0.0);
    const bool blocks = blocks_pay(k_);
    // A cache has room for a few requests only, so they are spread over the rows and the blocks of all
    // pieces.
    const std::size_t pieces = divide_up(d_, piece);
    const std::size_t steps = pieces * (blocks ? k_ + k_ * k_ / 24 + k_ / 4 : k_);
    const std::size_t lines_per_step = prefetch.lines() / steps + 1;
    for (std::size_t begin = 0; begin < d_; begin += piece) {
        const std::size_t width = std::min(piece, d_ - begin), full = round_up(width, lanes);
        std::copy_n(x + begin, width, origin());
        for (std::size_t j = 0; j < k_; ++j) {
            double* row = workspace() + j * stride_;
            fill_row(origin(), y[j] + begin, width, row);
            std::fill(row + width, row + full, 0.0);
            prefetch.ask(lines_per_step);
        }
        if (blocks) {
            add_gram_avx2(workspace(), k_, stride_, full, gram, prefetch, lines_per_step);
        } else {
            blas::gram_of_rows(k_, width, workspace(), stride_, 1.0, gram, k_);
        }
    }
    prefetch.ask(prefetch.lines());
}

double Differences::combined_length(const float* x, const float* const* y, const double* weights) const {
    return std::sqrt(square_of_sum(x, y, weights, k_, d_));
}

}  // namespace embgeom

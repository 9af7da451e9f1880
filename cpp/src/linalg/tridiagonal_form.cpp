#include "embgeom/linalg/tridiagonal_form.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/symmetric_kernel.hpp"

namespace embgeom {
namespace {

constexpr std::size_t block = 32;  // tuned by benchmarks/kernels/bench_dimension.py

// None where a processor has no wide vectors: there LAPACK is faster.
const SymmetricKernel* best_kernel() {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (have_avx512()) return &symmetric_avx512;
    if (have_avx2()) return &symmetric_avx2;
#endif
    return nullptr;
}

// Packs the leading n rows and columns.
void pack(const float* c, std::size_t stride, std::size_t n, float* panels) {
    constexpr std::size_t rows = SymmetricPanels::rows, columns = SymmetricPanels::columns;
    for (std::size_t first = 0; first < n; first += rows) {
        const std::size_t last = first / columns * columns;  // the first column of the diagonal's block
        for (std::size_t r = 0; r < rows; ++r) {
            const std::size_t i = first + r;
            float* out = panels + r * columns;
            if (i >= n) {
                for (std::size_t l = 0; l <= last; l += columns) std::fill_n(out + l * rows, columns, 0.0F);
                continue;
            }
            const float* row = c + i * stride;
            for (std::size_t l = 0; l < last; l += columns)
                std::memcpy(out + l * rows, row + l, columns * sizeof(float));
            out += last * rows;
            std::copy_n(row + last, i - last, out);
            out[i - last] = 0.5F * row[i];
            std::fill(out + (i - last) + 1, out + columns, 0.0F);
        }
        panels += (last + columns) * rows;
    }
}

// Sixteen partial sums in a fixed order can be vectorized.
EMBGEOM_MULTIVERSION
double sum_of_squares(const float* row, std::size_t n) {
    constexpr std::size_t lanes = 16;
    double partial[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= n; l += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const auto value = static_cast<double>(row[l + lane]);
            partial[lane] += value * value;
        }
    }
    for (; l < n; ++l) partial[0] += static_cast<double>(row[l]) * static_cast<double>(row[l]);
    return std::accumulate(partial, partial + lanes, 0.0);
}

EMBGEOM_MULTIVERSION
void scale(float* row, std::size_t n, double factor) {
    for (std::size_t l = 0; l < n; ++l) row[l] = static_cast<float>(static_cast<double>(row[l]) * factor);
}

EMBGEOM_MULTIVERSION
void combine(const float* __restrict y, float scale, const float* __restrict x, float shift, std::size_t n,
             float* __restrict w) {
    for (std::size_t l = 0; l < n; ++l) w[l] = scale * y[l] - shift * x[l];
}

// Replaces a row by the v, v_last = 1, for which (1 - tau v v') row has only its last element. Returns tau.
double reflect(float* row, std::size_t n, float& last) {
    const auto before = static_cast<double>(row[n - 1]);
    const double others = sum_of_squares(row, n - 1);
    last = row[n - 1];
    row[n - 1] = 1.0F;
    if (others == 0.0) return 0.0;
    const double after = -std::copysign(std::sqrt(before * before + others), before);
    scale(row, n - 1, 1.0 / (before - after));
    last = static_cast<float>(after);
    return (after - before) / after;
}

// Exchanges rows i and j > i, and the columns with them, of a symmetric matrix, lower triangle given.
void exchange(float* c, std::size_t n, std::size_t i, std::size_t j) {
    for (std::size_t l = 0; l < i; ++l) std::swap(c[i * n + l], c[j * n + l]);
    for (std::size_t l = i + 1; l < j; ++l) std::swap(c[l * n + i], c[j * n + l]);
    for (std::size_t l = j + 1; l < n; ++l) std::swap(c[l * n + i], c[l * n + j]);
    std::swap(c[i * (n + 1)], c[j * (n + 1)]);
}

// Brings a block's worth of the largest elements of the diagonal to its end, where reflections begin: a large
// element that stays takes part in the roundings of all before it.
void bring_largest_last(float* c, std::size_t n, std::vector<float>& diagonal) {
    diagonal.resize(n);
    for (std::size_t i = 0; i < n; ++i) diagonal[i] = c[i * (n + 1)];
    for (std::size_t last = n; last-- > n - std::min(block, n);) {
        const auto end = diagonal.begin() + static_cast<std::ptrdiff_t>(last) + 1;
        const auto largest =
            static_cast<std::size_t>(std::max_element(diagonal.begin(), end) - diagonal.begin());
        if (largest == last) continue;
        exchange(c, n, largest, last);
        std::swap(diagonal[largest], diagonal[last]);
    }
}

// The reduction of one matrix. Of a block, what is done are rows from the last upwards, each replaced by its
// reflection v, and the w of each.
class Reduction {
  public:
    Reduction(const SymmetricKernel& kernel, std::size_t n, float* c, TridiagonalSpace& space)
        : kernel_(kernel), n_(n), c_(c), space_(space) {
        const std::size_t padded = round_up(n, SymmetricPanels::columns);
        space.panels.resize(padded * (padded + SymmetricPanels::columns) / 2);
        space.reflected.resize(block * n);
        space.of_rows.resize(block);
        space.of_reflected.resize(block);
        space.x.assign(padded, 0.0F);
        space.y.assign(padded, 0.0F);
    }

    void run(float* diagonal, float* off_diagonal) {
        // Large eigenvalues come to the end of the matrix with the first reflections. What is left is brought
        // up to date soon, for as long as it is not, each product with it rounds as if they were still there.
        std::size_t size = 1;
        for (end_ = n_; end_ > 0; end_ = begin_, size = std::min(2 * size, block)) {
            begin_ = end_ - std::min(size, end_);
            pack(c_, n_, end_, space_.panels.data());
            for (std::size_t i = end_; i-- > begin_;) {
                bring_up_to_date(i);
                diagonal[i] = row(i)[i];
                if (i > 0) fill_reflected(i, reflect(row(i), i, off_diagonal[i - 1]));
            }
            blas::subtract_products(begin_, end_ - begin_, row(begin_), n_, reflected(begin_), n_, c_, n_);
        }
    }

  private:
    float* row(std::size_t i) { return c_ + i * n_; }
    float* reflected(std::size_t i) { return space_.reflected.data() + (i - begin_) * n_; }

    void bring_up_to_date(std::size_t i) {
        const std::size_t done = end_ - 1 - i;
        for (std::size_t m = 0; m < done; ++m) {
            space_.of_rows[m] = row(i + 1 + m)[i];
            space_.of_reflected[m] = reflected(i + 1 + m)[i];
        }
        subtract_done(i, i + 1, row(i));
    }

    // w = tau (C v - tau / 2 (v.C v) v)
    void fill_reflected(std::size_t i, double tau) {
        const std::size_t done = end_ - 1 - i;
        float *x = space_.x.data(), *y = space_.y.data();
        std::copy_n(row(i), i, x);
        std::fill(x + i, x + round_up(end_, SymmetricPanels::columns), 0.0F);
        kernel_.multiply(end_, space_.panels.data(), x, y);
        kernel_.project(done, i, row(i + 1), n_, x, space_.of_rows.data());
        kernel_.project(done, i, reflected(i + 1), n_, x, space_.of_reflected.data());
        subtract_done(i, i, y);
        float product = 0.0F;
        kernel_.project(1, i, y, n_, x, &product);
        const double shift = 0.5 * tau * tau * static_cast<double>(product);
        combine(y, static_cast<float>(tau), x, static_cast<float>(shift), i, reflected(i));
    }

    // Subtracts the done v and w of row i's block, `n` elements of each, times what was found of the other.
    void subtract_done(std::size_t i, std::size_t n, float* from) {
        const std::size_t done = end_ - 1 - i;
        kernel_.subtract(done, n, row(i + 1), n_, space_.of_reflected.data(), from);
        kernel_.subtract(done, n, reflected(i + 1), n_, space_.of_rows.data(), from);
    }

    const SymmetricKernel& kernel_;
    std::size_t n_;
    float* c_;
    TridiagonalSpace& space_;
    std::size_t begin_ = 0, end_ = 0;  // of the block
};

}  // namespace

void tridiagonal_form(std::size_t n, float* c, float* diagonal, float* off_diagonal,
                      TridiagonalSpace& space) {
    static const SymmetricKernel* const kernel = best_kernel();
    bring_largest_last(c, n, space.reflected);
    if (kernel == nullptr) {
        blas::tridiagonal_form(n, c, diagonal, off_diagonal, space.reflected);
    } else {
        Reduction(*kernel, n, c, space).run(diagonal, off_diagonal);
    }
}

}  // namespace embgeom

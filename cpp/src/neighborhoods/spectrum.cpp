#include "embgeom/neighborhoods/spectrum.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/panels.hpp"
#include "embgeom/linalg/tridiagonal_form.hpp"

namespace embgeom {
namespace {

EMBGEOM_MULTIVERSION
void add_row(const float* __restrict row, std::size_t d, double* __restrict sum, float* __restrict least,
             float* __restrict most) {
    for (std::size_t l = 0; l < d; ++l) {
        sum[l] += static_cast<double>(row[l]);
        least[l] = row[l] < least[l] ? row[l] : least[l];
        most[l] = row[l] > most[l] ? row[l] : most[l];
    }
}

EMBGEOM_MULTIVERSION
void center_row(const float* __restrict row, const double* __restrict mean, double scale, std::size_t width,
                float* __restrict centered) {
    for (std::size_t l = 0; l < width; ++l)
        centered[l] = static_cast<float>((static_cast<double>(row[l]) - mean[l]) * scale);
}

EMBGEOM_MULTIVERSION
void center_row(const float* __restrict row, const double* __restrict mean, double scale, std::size_t width,
                double* __restrict centered) {
    for (std::size_t l = 0; l < width; ++l) centered[l] = (static_cast<double>(row[l]) - mean[l]) * scale;
}

EMBGEOM_MULTIVERSION
void add_squares(const float* __restrict a, std::size_t n, double* __restrict sums) {
    for (std::size_t l = 0; l < n; ++l) sums[l] += static_cast<double>(a[l]) * static_cast<double>(a[l]);
}

// sum_l a_l^2 in float64. Partial sums in a fixed order can be vectorized.
EMBGEOM_MULTIVERSION
double sum_of_squares(const float* a, std::size_t n) {
    constexpr std::size_t lanes = 32;
    double partial[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= n; l += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const double value = static_cast<double>(a[l + lane]);
            partial[lane] += value * value;
        }
    }
    for (; l < n; ++l) partial[0] += static_cast<double>(a[l]) * static_cast<double>(a[l]);
    return std::accumulate(partial, partial + lanes, 0.0);
}

// sum_l a_l^2 of what lies below the diagonal of a symmetric matrix (n, n).
double squares_below(const float* c, std::size_t n) {
    double sum = 0.0;
    for (std::size_t i = 1; i < n; ++i) sum += sum_of_squares(c + i * n, i);
    return sum;
}

}  // namespace

Spectrum::Spectrum(MatrixView<const float> x, std::size_t k) : x_(x), k_(k), order_(std::min(k, x.cols)) {}

// Fills the mean; returns the power of two that brings the largest difference into (1/2, 1].
double Spectrum::center(const std::vector<std::int32_t>& list, SpectrumSpace& space) const {
    const std::size_t d = x_.cols;
    space.mean.assign(d, 0.0);
    space.least.assign(neighbor(list, 0), neighbor(list, 0) + d);
    space.most = space.least;
    for (std::size_t j = 0; j < k_; ++j) {
        if (j + 1 < k_) prefetch(neighbor(list, j + 1), d);
        add_row(neighbor(list, j), d, space.mean.data(), space.least.data(), space.most.data());
    }
    double largest = 0.0;
    for (std::size_t l = 0; l < d; ++l) {
        double& mean = space.mean[l];
        mean /= static_cast<double>(k_);
        largest = std::max(
            {largest, static_cast<double>(space.most[l]) - mean, mean - static_cast<double>(space.least[l])});
    }
    // A power of two changes no digit. Squares of numbers below 1 cannot overflow, and those that underflow
    // in float32 are far below the rounding of the largest.
    int exponent = 0;
    std::frexp(largest, &exponent);
    return std::ldexp(1.0, -exponent);
}

// C = Z'Z is a sum over neighbors, C = Z Z' one over coordinates; either is added up in pieces Z (count,
// width).
template <class Real, class Add>
void Spectrum::visit_pieces(const std::vector<std::int32_t>& list, SpectrumSpace& space,
                            std::vector<Real>& centered, Add add) const {
    const double scale = center(list, space);
    const std::size_t d = x_.cols;
    const std::size_t rows = sums_over_neighbors() ? std::min(product_depth, k_) : k_;
    const std::size_t cols = sums_over_neighbors() ? d : std::min(product_depth, d);
    // Rows lie far apart, so the processor cannot predict the next one.
    const std::size_t ahead = sums_over_neighbors() ? 1 : 8;
    centered.resize(rows * cols);
    Real* z = centered.data();
    for (std::size_t row = 0; row < k_; row += rows) {
        const std::size_t count = std::min(rows, k_ - row);
        for (std::size_t col = 0; col < d; col += cols) {
            const std::size_t width = std::min(cols, d - col);
            for (std::size_t j = 0; j < count; ++j) {
                if (j + ahead < count) prefetch(neighbor(list, row + j + ahead) + col, width);
                center_row(neighbor(list, row + j) + col, &space.mean[col], scale, width, z + j * width);
            }
            add(z, count, width);
        }
    }
}

// Adds a piece to C, to its diagonal in float64, and to the probe.
void Spectrum::add_piece(const float* z, std::size_t count, std::size_t width, SpectrumSpace& space) const {
    const std::size_t depth = sums_over_neighbors() ? count : width;
    const std::size_t left_room = Panels::room(Side::left, order_, product_depth);
    space.packed.resize(left_room + Panels::room(Side::right, order_, product_depth));
    Panels left(Side::left, depth, space.packed.data());
    Panels right(Side::right, depth, space.packed.data() + left_room);
    for (Panels* side : {&left, &right}) {
        if (sums_over_neighbors()) {
            side->pack_columns(order_, z, width);
        } else {
            side->pack_rows(order_, z);
        }
    }
    add_lower_triangle(left, right, space.single.gram.data(), order_);
    if (sums_over_neighbors()) {
        space.probe.add_rows(z, count);
        for (std::size_t j = 0; j < count; ++j) add_squares(z + j * width, width, space.squares.data());
    } else {
        space.probe.add_columns(z, width);
        for (std::size_t j = 0; j < count; ++j) space.squares[j] += sum_of_squares(z + j * width, width);
    }
}

Moments Spectrum::compute_single(const std::vector<std::int32_t>& list, SpectrumSpace& space) const {
    GramScratch<float>& scratch = space.single;
    std::vector<double>& squares = space.squares;
    squares.assign(order_, 0.0);
    space.probe.begin(order_, list);
    scratch.gram.assign(triangle_room(order_, order_), 0.0F);
    visit_pieces(list, space, scratch.centered, [&](const float* z, std::size_t count, std::size_t width) {
        add_piece(z, count, width, space);
    });
    // The diagonal is a sum of squares, in which rounding has the most to lose; in float64 it costs little.
    for (std::size_t i = 0; i < order_; ++i) scratch.gram[i * (order_ + 1)] = static_cast<float>(squares[i]);
    Moments moments{std::accumulate(squares.begin(), squares.end(), 0.0),
                    2.0 * squares_below(scratch.gram.data(), order_) +
                        std::inner_product(squares.begin(), squares.end(), squares.begin(), 0.0),
                    space.probe.error(scratch.gram.data()), 0.0};
    scratch.centered.resize(2 * order_);
    float* diagonal = scratch.centered.data();
    float* off_diagonal = diagonal + order_;
    tridiagonal_form(order_, scratch.gram.data(), diagonal, off_diagonal, space.tridiagonal);
    space.diagonal.assign(diagonal, diagonal + order_);
    space.off_diagonal.assign(off_diagonal, off_diagonal + order_ - 1);
    const auto squares_of = [](const std::vector<double>& v) {
        return std::inner_product(v.begin(), v.end(), v.begin(), 0.0);
    };
    const double norms = squares_of(space.diagonal) + 2.0 * squares_of(space.off_diagonal) - moments.squares;
    moments.drift = std::abs(std::accumulate(space.diagonal.begin(), space.diagonal.end(), -moments.trace)) +
                    std::abs(norms) / (2.0 * std::sqrt(moments.squares));
    return moments;
}

void Spectrum::compute(const std::vector<std::int32_t>& list, SpectrumSpace& space) const {
    GramScratch<double>& scratch = space.full;
    scratch.gram.assign(order_ * order_, 0.0);
    visit_pieces(list, space, scratch.centered, [&](const double* z, std::size_t count, std::size_t width) {
        if (sums_over_neighbors())
            blas::gram_of_columns(width, count, z, width, 1.0, scratch.gram.data(), order_);
        else
            blas::gram_of_rows(count, width, z, width, 1.0, scratch.gram.data(), order_);
    });
    space.eigenvalues.resize(order_);
    blas::eigenvalues(order_, scratch.gram.data(), space.eigenvalues.data(), scratch.work);
}

bool Spectrum::is_sound(const Moments& moments) {
    return moments.error <= 12.0 * unit_roundoff * std::sqrt(moments.squares);
}

// Its constants: the probe's odds are derived in docs/numerics.md, the reduction's errors are measured by
// benchmarks/kernels/reduction_errors.py.
double Spectrum::share_error(const Moments& moments, std::int32_t c, double least) const {
    // Shares are of the trace, so their errors come from an E of trace 0, whose c largest eigenvalues add up
    // to at most sqrt(c (p - c) / p) |E|_F.
    const auto p = static_cast<double>(order_);
    const double spread = std::sqrt(c * (p - c) / p);
    const double unit = unit_roundoff * std::sqrt(moments.squares);
    // An error of few directions may hide from the probes, but moves the sum less.
    const double gram = (1.25 * spread + 2.75) * moments.error;
    // Only eigenvalues that drown in roundings move all one way.
    const double reduction =
        ((least >= 64.0 * unit ? 3.0 : 24.0) * spread + 24.0) * std::max(1.0, p / 1500.0) * unit;
    return (gram + reduction + moments.drift) / moments.trace + least_share_error;
}

}  // namespace embgeom

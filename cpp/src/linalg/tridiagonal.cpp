#include "embgeom/linalg/tridiagonal.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <numeric>

#include "embgeom/base/multiversion.hpp"

namespace embgeom {
namespace {

constexpr std::size_t lanes = 16;
constexpr double step = 0.4;  // of log y: the trapezoidal rule errs by 4 exp(-pi^2 / step), relative

// traces[j] = Im tr (T - t - i y_j)^-1. With q_i = a_i - z - b_i^2 / q_{i-1}, the pivots of T - z, the trace
// is minus the derivative by z of log q_1 + ... + log q_p. Real and imaginary parts are apart so that the
// loop over lanes becomes vectors; y > 0 keeps every pivot away from 0.
EMBGEOM_MULTIVERSION
void resolvent_traces(const double* a, const double* b2, std::size_t p, double t, const double* y,
                      double* traces) {
    double q_re[lanes], q_im[lanes], d_re[lanes], d_im[lanes], sum[lanes];
    for (std::size_t j = 0; j < lanes; ++j) {
        q_re[j] = 1.0;
        q_im[j] = d_re[j] = d_im[j] = sum[j] = 0.0;
    }
    for (std::size_t i = 0; i < p; ++i) {
        const double shifted = a[i] - t;
        const double b = b2[i];
        for (std::size_t j = 0; j < lanes; ++j) {
            const double norm = 1.0 / (q_re[j] * q_re[j] + q_im[j] * q_im[j]);
            const double inverse_re = q_re[j] * norm, inverse_im = -q_im[j] * norm;
            const double ratio_re = d_re[j] * inverse_re - d_im[j] * inverse_im;
            const double ratio_im = d_re[j] * inverse_im + d_im[j] * inverse_re;
            sum[j] -= ratio_im;
            q_re[j] = shifted - b * inverse_re;
            q_im[j] = -y[j] - b * inverse_im;
            d_re[j] = -1.0 + b * (ratio_re * inverse_re - ratio_im * inverse_im);
            d_im[j] = b * (ratio_re * inverse_im + ratio_im * inverse_re);
        }
    }
    for (std::size_t j = 0; j < lanes; ++j) {
        const double norm = 1.0 / (q_re[j] * q_re[j] + q_im[j] * q_im[j]);
        traces[j] = sum[j] - (d_im[j] * q_re[j] - d_re[j] * q_im[j]) * norm;
    }
}

// T with b2[i] the square of the element left of the diagonal in row i, b2[0] = 0.
class Tridiagonal {
  public:
    Tridiagonal(const std::vector<double>& a, const std::vector<double>& b2)
        : a_(a), b2_(b2), trace_(std::accumulate(a.begin(), a.end(), 0.0)) {
        // Gershgorin: no eigenvalue is larger.
        for (std::size_t i = 0; i < a.size(); ++i) {
            const double next = i + 1 < a.size() ? b2[i + 1] : 0.0;
            top_ = std::max(top_, a[i] + std::sqrt(b2[i]) + std::sqrt(next));
        }
        // Below 1e-10 of the trace x^2 / (x^2 + y^2) is 1 for all that counts, above 2000 times the largest x
        // it is x^2 / y^2; either end is a geometric series.
        least_y_ = 1e-10 * trace_;
        batches_ = static_cast<std::size_t>(std::log(2e3 * top_ / least_y_) / (step * lanes)) + 1;
    }

    double trace() const { return trace_; }
    double top() const { return top_; }

    std::int32_t count_above(double t) const {
        std::int32_t count = 0;
        double pivot = 1.0;
        for (std::size_t i = 0; i < a_.size(); ++i) {
            pivot = a_[i] - t - b2_[i] / pivot;
            if (pivot == 0.0) pivot = -1e-300;  // an eigenvalue of exactly t is not above it
            count += pivot > 0.0 ? 1 : 0;
        }
        return count;
    }

    double sum_above(double t, std::int32_t count) const {
        const auto p = static_cast<double>(a_.size());
        return t * count + 0.5 * (trace_ - p * t + absolute_sum(t));
    }

  private:
    // sum |l - t|
    double absolute_sum(double t) const {
        const auto p = static_cast<double>(a_.size());
        double squares = 0.0;  // tr (T - t)^2
        for (std::size_t i = 0; i < a_.size(); ++i) squares += (a_[i] - t) * (a_[i] - t) + 2.0 * b2_[i];
        double sum = 0.0, y[lanes], traces[lanes];
        for (std::size_t batch = 0; batch < batches_; ++batch) {
            for (std::size_t j = 0; j < lanes; ++j)
                y[j] = least_y_ * std::exp(step * static_cast<double>(batch * lanes + j));
            resolvent_traces(a_.data(), b2_.data(), a_.size(), t, y, traces);
            for (std::size_t j = 0; j < lanes; ++j) sum += y[j] * (p - y[j] * traces[j]);
        }
        const double rest = 1.0 / (std::exp(step) - 1.0);
        sum += rest * (p * least_y_ + squares / y[lanes - 1]);
        return 2.0 / std::numbers::pi * step * sum;
    }

    const std::vector<double>& a_;
    const std::vector<double>& b2_;
    double trace_;
    double top_ = 0.0;
    double least_y_ = 0.0;
    std::size_t batches_ = 0;
};

struct Bound {
    double t;
    std::int32_t count;
    double sum;
};

}  // namespace

Crossing tridiagonal_crossing(const std::vector<double>& diagonal, std::vector<double>& off_diagonal,
                              double wanted) {
    off_diagonal.resize(diagonal.size());
    std::rotate(off_diagonal.begin(), off_diagonal.end() - 1, off_diagonal.end());
    off_diagonal[0] = 0.0;
    for (double& value : off_diagonal) value *= value;
    const Tridiagonal matrix(diagonal, off_diagonal);
    const double enough = wanted * matrix.trace();
    // What lies above `low` is enough, what lies above `high` is not.
    Bound low{0.0, matrix.count_above(0.0), matrix.trace()};
    Bound high{matrix.top() * (1.0 + 1e-12), 0, 0.0};
    while (low.count - high.count > 1 && high.t - low.t > 1e-11 * matrix.trace()) {
        // The answer lies anywhere between the sizes, so they are halved on a logarithmic scale at first.
        const double floor = std::max(low.t, 1e-6 * high.t);
        const double t = high.t > 4.0 * floor ? std::sqrt(floor * high.t) : 0.5 * (low.t + high.t);
        const std::int32_t count = matrix.count_above(t);
        const Bound middle{t, count, count > 0 ? matrix.sum_above(t, count) : 0.0};
        (count > 0 && middle.sum >= enough ? low : high) = middle;
    }
    // Eigenvalues that bisection does not tell apart are equal.
    const double size = low.count - high.count > 1 ? high.t : low.sum - high.sum;
    const double missing = size > 0.0 ? std::ceil((enough - high.sum) / size) : 1.0;
    const double more = std::clamp(missing, 1.0, std::max(1.0, static_cast<double>(low.count - high.count)));
    const double below = high.sum + (more - 1.0) * size;
    return {high.count + static_cast<std::int32_t>(more), below / matrix.trace(),
            (below + size) / matrix.trace()};
}

}  // namespace embgeom

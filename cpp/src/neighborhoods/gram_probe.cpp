#include "embgeom/neighborhoods/gram_probe.hpp"

#include <cmath>
#include <cstdint>

#include "embgeom/base/multiversion.hpp"

namespace embgeom {
namespace {

// Partial sums wait for each other in memory, so there are several vectors of them.
constexpr std::size_t four = 4, lanes = 32;

// sums_q = sum_l row_l vectors_ql, for four vectors `stride` apart: a coordinate is converted once for all.
EMBGEOM_MULTIVERSION
void four_dots(const float* __restrict row, std::size_t width, const double* __restrict vectors,
               std::size_t stride, double* __restrict sums) {
    double partial[four][lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= width; l += lanes) {
        for (std::size_t q = 0; q < four; ++q) {
            for (std::size_t lane = 0; lane < lanes; ++lane)
                partial[q][lane] += static_cast<double>(row[l + lane]) * vectors[q * stride + l + lane];
        }
    }
    for (std::size_t q = 0; q < four; ++q) {
        sums[q] = 0.0;
        for (std::size_t lane = 0; lane < lanes; ++lane) sums[q] += partial[q][lane];
        for (std::size_t rest = l; rest < width; ++rest)
            sums[q] += static_cast<double>(row[rest]) * vectors[q * stride + rest];
    }
}

// vectors_ql += factors_q row_l
EMBGEOM_MULTIVERSION
void add_to_four(const float* __restrict row, std::size_t width, const double* __restrict factors,
                 double* __restrict vectors, std::size_t stride) {
    for (std::size_t l = 0; l < width; ++l) {
        const double value = static_cast<double>(row[l]);
        for (std::size_t q = 0; q < four; ++q) vectors[q * stride + l] += factors[q] * value;
    }
}

// Bits without a pattern that data could share, by the finalizer of a 64-bit hash.
std::uint64_t mixed(std::uint64_t value) {
    value = (value ^ (value >> 30U)) * 0xBF58476D1CE4E5B9U;
    value = (value ^ (value >> 27U)) * 0x94D049BB133111EBU;
    return value ^ (value >> 31U);
}

}  // namespace

void GramProbe::begin(std::size_t order, const std::vector<std::int32_t>& list) {
    static_assert(probes % four == 0);
    std::uint64_t seed = 0;
    for (const std::int32_t neighbor : list) seed = mixed(seed + static_cast<std::uint64_t>(neighbor) + 1);
    order_ = order;
    signs_.resize(probes * order);
    for (std::size_t i = 0; i < order; ++i) {
        const std::uint64_t bits = mixed(seed + i + 1);
        for (std::size_t q = 0; q < probes; ++q) signs_[q * order + i] = ((bits >> q) & 1U) != 0 ? 1.0 : -1.0;
    }
    products_.assign(probes * order, 0.0);
}

void GramProbe::add_rows(const float* z, std::size_t count) {
    for (std::size_t j = 0; j < count; ++j) {
        const float* row = z + j * order_;
        for (std::size_t q = 0; q < probes; q += four) {
            double sums[four];
            four_dots(row, order_, &signs_[q * order_], order_, sums);
            add_to_four(row, order_, sums, &products_[q * order_], order_);
        }
    }
}

void GramProbe::add_columns(const float* z, std::size_t width) {
    factors_.assign(probes * width, 0.0);
    for (std::size_t j = 0; j < order_; ++j) {
        for (std::size_t q = 0; q < probes; q += four) {
            double of_row[four];
            for (std::size_t m = 0; m < four; ++m) of_row[m] = signs_[(q + m) * order_ + j];
            add_to_four(z + j * width, width, of_row, &factors_[q * width], width);
        }
    }
    for (std::size_t j = 0; j < order_; ++j) {
        for (std::size_t q = 0; q < probes; q += four) {
            double sums[four];
            four_dots(z + j * width, width, &factors_[q * width], width, sums);
            for (std::size_t m = 0; m < four; ++m) products_[(q + m) * order_ + j] += sums[m];
        }
    }
}

double GramProbe::error(const float* c) {
    for (std::size_t i = 0; i < order_; ++i) {
        const float* row = c + i * order_;
        for (std::size_t q = 0; q < probes; q += four) {
            double sums[four], mirrored[four];
            four_dots(row, i + 1, &signs_[q * order_], order_, sums);
            for (std::size_t m = 0; m < four; ++m) {
                products_[(q + m) * order_ + i] -= sums[m];
                mirrored[m] = -signs_[(q + m) * order_ + i];
            }
            add_to_four(row, i, mirrored, &products_[q * order_], order_);
        }
    }
    double squares = 0.0;
    for (const double difference : products_) squares += difference * difference;
    return std::sqrt(squares / static_cast<double>(probes));
}

}  // namespace embgeom

#include "embgeom/dot.hpp"

#include <cstring>

#include "embgeom/multiversion.hpp"

namespace embgeom {
namespace {

// Sixteen partial sums, added up in a fixed tree. The build switches contraction off
// (-ffp-contract=off), so a processor with fused multiply-add gives the same bits as one without.
constexpr std::size_t lanes = 16;
typedef float Floats __attribute__((vector_size(lanes * sizeof(float))));
typedef double Doubles __attribute__((vector_size(lanes * sizeof(double))));

inline __attribute__((always_inline)) double tree_sum(const Doubles& partial) {
    double sum[lanes];
    std::memcpy(sum, &partial, sizeof(sum));
    for (std::size_t half = lanes / 2; half > 0; half /= 2) {
        for (std::size_t l = 0; l < half; ++l) sum[l] += sum[l + half];
    }
    return sum[0];
}

// The last, incomplete group of coordinates is filled up with zeros, which add nothing.
inline __attribute__((always_inline)) Floats load(const float* x, std::size_t count) {
    Floats values{};
    std::memcpy(&values, x, (count < lanes ? count : lanes) * sizeof(float));
    return values;
}

}  // namespace

EMBGEOM_MULTIVERSION
double dot(const float* a, const float* b, std::size_t d) {
    Doubles partial{};
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) {
        Floats x, y;
        std::memcpy(&x, a + l, sizeof(x));
        std::memcpy(&y, b + l, sizeof(y));
        partial += __builtin_convertvector(x, Doubles) * __builtin_convertvector(y, Doubles);
    }
    if (l < d) {
        partial += __builtin_convertvector(load(a + l, d - l), Doubles) *
                   __builtin_convertvector(load(b + l, d - l), Doubles);
    }
    return tree_sum(partial);
}

EMBGEOM_MULTIVERSION
double squared_distance(const float* a, const float* b, std::size_t d) {
    Doubles partial{};
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) {
        Floats x, y;
        std::memcpy(&x, a + l, sizeof(x));
        std::memcpy(&y, b + l, sizeof(y));
        const Doubles difference = __builtin_convertvector(x, Doubles) - __builtin_convertvector(y, Doubles);
        partial += difference * difference;
    }
    if (l < d) {
        const Doubles difference = __builtin_convertvector(load(a + l, d - l), Doubles) -
                                   __builtin_convertvector(load(b + l, d - l), Doubles);
        partial += difference * difference;
    }
    return tree_sum(partial);
}

}  // namespace embgeom

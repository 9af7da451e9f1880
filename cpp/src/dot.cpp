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

// Sixteen coordinates, or the `count` that are left: the rest is filled up with zeros, which add nothing.
inline __attribute__((always_inline)) Doubles load(const float* x, std::size_t count) {
    Floats values{};
    std::memcpy(&values, x, count * sizeof(float));
    return __builtin_convertvector(values, Doubles);
}

// The sum of term(a_l, b_l); a term of two zeros must be zero.
template <class Term>
inline __attribute__((always_inline)) double sum_of_terms(const float* a, const float* b, std::size_t d,
                                                          Term term) {
    Doubles partial{};
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) partial += term(load(a + l, lanes), load(b + l, lanes));
    if (l < d) partial += term(load(a + l, d - l), load(b + l, d - l));
    return tree_sum(partial);
}

}  // namespace

EMBGEOM_MULTIVERSION
double dot(const float* a, const float* b, std::size_t d) {
    const auto product = [](const Doubles& x, const Doubles& y)
                             __attribute__((always_inline)) { return x * y; };
    return sum_of_terms(a, b, d, product);
}

EMBGEOM_MULTIVERSION
double squared_distance(const float* a, const float* b, std::size_t d) {
    const auto squared_difference = [](const Doubles& x, const Doubles& y) __attribute__((always_inline)) {
        const Doubles difference = x - y;
        return difference * difference;
    };
    return sum_of_terms(a, b, d, squared_difference);
}

}  // namespace embgeom

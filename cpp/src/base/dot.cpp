#include "embgeom/base/dot.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "embgeom/base/multiversion.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)
#include <immintrin.h>
#endif

namespace embgeom {
namespace {

// Coordinate l belongs to partial sum l % 8. The build switches contraction off (-ffp-contract=off), so a
// processor with fused multiply-add gives the same bits as one without.
constexpr std::size_t lanes = 8;

double tree_sum(double (&sum)[lanes]) {
    for (std::size_t half = lanes / 2; half > 0; half /= 2) {
        for (std::size_t l = 0; l < half; ++l) sum[l] += sum[l + half];
    }
    return sum[0];
}

// The last coordinates of a row, filled up with zeros, which add nothing.
struct Tail {
    float values[lanes] = {};

    Tail(const float* row, std::size_t count) { std::memcpy(values, row, count * sizeof(float)); }
};

// A term of a sum: what it makes of one coordinate, and (`add`) of four at once.
struct Product {
    static double of(double a, double b) { return a * b; }
#if defined(EMBGEOM_HAS_AVX2_CODE)
    // A product of two float32 is exact in float64, so fusing it with the addition changes no bit.
    EMBGEOM_AVX2 static __m256d add(__m256d sum, __m256d a, __m256d b) { return _mm256_fmadd_pd(a, b, sum); }
    EMBGEOM_AVX512 static __m512d add(__m512d sum, __m512d a, __m512d b) {
        return _mm512_fmadd_pd(a, b, sum);
    }
#endif
};

struct SquaredDifference {
    static double of(double a, double b) { return (a - b) * (a - b); }
#if defined(EMBGEOM_HAS_AVX2_CODE)
    // A difference need not be exact, nor its square: here the two roundings must stay apart.
    EMBGEOM_AVX2 static __m256d add(__m256d sum, __m256d a, __m256d b) {
        const __m256d difference = _mm256_sub_pd(a, b);
        return _mm256_add_pd(sum, _mm256_mul_pd(difference, difference));
    }
    EMBGEOM_AVX512 static __m512d add(__m512d sum, __m512d a, __m512d b) {
        const __m512d difference = _mm512_sub_pd(a, b);
        return _mm512_add_pd(sum, _mm512_mul_pd(difference, difference));
    }
#endif
};

template <class Term>
void add_terms(const float* a, const float* b, double (&sum)[lanes]) {
    for (std::size_t l = 0; l < lanes; ++l) {
        sum[l] += Term::of(static_cast<double>(a[l]), static_cast<double>(b[l]));
    }
}

template <class Term>
double portable_sum(const float* a, const float* b, std::size_t d) {
    double sum[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) add_terms<Term>(a + l, b + l, sum);
    if (l < d) add_terms<Term>(Tail(a + l, d - l).values, Tail(b + l, d - l).values, sum);
    return tree_sum(sum);
}

#if defined(EMBGEOM_HAS_AVX2_CODE)

// The tree of tree_sum: lanes 4 apart first, then 2 and 1.
EMBGEOM_AVX2 inline double tree_sum_avx2(__m256d low, __m256d high) {
    const __m256d four = _mm256_add_pd(low, high);
    const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(two) + _mm_cvtsd_f64(_mm_unpackhi_pd(two, two));
}

// Sums over `Rows` rows b at once; `low` and `high` are lanes 0 to 3 and 4 to 7 of each.
template <class Term, std::size_t Rows>
EMBGEOM_AVX2 inline void add_terms_avx2(const float* a, const float* const* b, std::size_t l,
                                        __m256d (&low)[Rows], __m256d (&high)[Rows]) {
    const __m256d a_low = _mm256_cvtps_pd(_mm_loadu_ps(a)), a_high = _mm256_cvtps_pd(_mm_loadu_ps(a + 4));
#pragma GCC unroll 4
    for (std::size_t r = 0; r < Rows; ++r) {
        low[r] = Term::add(low[r], a_low, _mm256_cvtps_pd(_mm_loadu_ps(b[r] + l)));
        high[r] = Term::add(high[r], a_high, _mm256_cvtps_pd(_mm_loadu_ps(b[r] + l + 4)));
    }
}

template <class Term, std::size_t Rows>
EMBGEOM_AVX2 void sums_avx2(const float* a, const float* const* b, std::size_t d, double* sums) {
    __m256d low[Rows], high[Rows];
#pragma GCC unroll 4
    for (std::size_t r = 0; r < Rows; ++r) low[r] = high[r] = _mm256_setzero_pd();
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) add_terms_avx2<Term>(a + l, b, l, low, high);
    if (l < d) {
        const Tail tail(a + l, d - l);
        for (std::size_t r = 0; r < Rows; ++r) {
            const Tail other(b[r] + l, d - l);
            const float* const others[1] = {other.values};
            __m256d tail_low[1] = {low[r]}, tail_high[1] = {high[r]};
            add_terms_avx2<Term>(tail.values, others, 0, tail_low, tail_high);
            low[r] = tail_low[0];
            high[r] = tail_high[0];
        }
    }
    for (std::size_t r = 0; r < Rows; ++r) sums[r] = tree_sum_avx2(low[r], high[r]);
}

// Eight conversions by one instruction; `sum` holds all lanes of a row.
template <class Term, std::size_t Rows>
EMBGEOM_AVX512 void sums_avx512(const float* a, const float* const* b, std::size_t d, double* sums) {
    __m512d sum[Rows];
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r) sum[r] = _mm512_setzero_pd();
    std::size_t l = 0;
    for (; l + lanes <= d; l += lanes) {
        const __m512d values = _mm512_cvtps_pd(_mm256_loadu_ps(a + l));
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r)
            sum[r] = Term::add(sum[r], values, _mm512_cvtps_pd(_mm256_loadu_ps(b[r] + l)));
    }
    if (l < d) {
        const __m512d values = _mm512_cvtps_pd(_mm256_loadu_ps(Tail(a + l, d - l).values));
#pragma GCC unroll 8
        for (std::size_t r = 0; r < Rows; ++r) {
            const Tail other(b[r] + l, d - l);
            sum[r] = Term::add(sum[r], values, _mm512_cvtps_pd(_mm256_loadu_ps(other.values)));
        }
    }
#pragma GCC unroll 8
    for (std::size_t r = 0; r < Rows; ++r)
        sums[r] = tree_sum_avx2(_mm512_castpd512_pd256(sum[r]), _mm512_extractf64x4_pd(sum[r], 1));
}

// Calls `sums` with the number of rows, at most `Most`, as a constant.
template <std::size_t Most, class Sums>
void with_rows(std::size_t count, const Sums& sums) {
    if constexpr (Most > 1) {
        if (count < Most) return with_rows<Most - 1>(count, sums);
    }
    sums(std::integral_constant<std::size_t, Most>());
}

#endif

template <class Term>
void fastest_sums(const float* a, const float* const* b, std::size_t count, std::size_t d, double* sums) {
#if defined(EMBGEOM_HAS_AVX2_CODE)
    if (have_avx512()) return with_rows<8>(count, [&](auto rows) { sums_avx512<Term, rows>(a, b, d, sums); });
    if (have_avx2()) {
        constexpr std::size_t some = 4;
        for (std::size_t r = 0; r < count; r += some)
            with_rows<some>(std::min(some, count - r),
                            [&](auto rows) { sums_avx2<Term, rows>(a, b + r, d, sums + r); });
        return;
    }
#endif
    for (std::size_t r = 0; r < count; ++r) sums[r] = portable_sum<Term>(a, b[r], d);
}

template <class Term>
double fastest_sum(const float* a, const float* b, std::size_t d) {
    double sum = 0.0;
    fastest_sums<Term>(a, &b, 1, d, &sum);
    return sum;
}

}  // namespace

double dot(const float* a, const float* b, std::size_t d) {
    return fastest_sum<Product>(a, b, d);
}

double squared_distance(const float* a, const float* b, std::size_t d) {
    return fastest_sum<SquaredDifference>(a, b, d);
}

void dots(const float* a, const float* const* b, std::size_t count, std::size_t d, double* sums) {
    fastest_sums<Product>(a, b, count, d, sums);
}

void squared_distances(const float* a, const float* const* b, std::size_t count, std::size_t d,
                       double* sums) {
    fastest_sums<SquaredDifference>(a, b, count, d, sums);
}

}  // namespace embgeom

#pragma once

#include <cstddef>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/similarity/product_norms.hpp"
#include "embgeom/similarity/unit_rows.hpp"

namespace embgeom {

struct SimilarityOptions {
    bool center;            // first subtract the mean of the rows that are used
    bool include_diagonal;  // count each token's similarity with itself, which is 1 in both
};

// Pearson correlation of the cosine similarities of all pairs of rows in a (n, d_a) with those in b (n,
// d_b), without ever forming them. With unit rows u_i (after centering, if asked for), their mean m, the
// deviations e_i = u_i - m, which make the rows of E, and s_i = m.e_i,
//
//   y_ij = u_i.u_j - m.m = s_i + s_j + e_i.e_j,   sum over all i, j of y y' = 2 n sum_i s_i s'_i + |E'F|_F^2
//
// where primes and F belong to b, and the transpose of E is E'. The mean of y is 0, and a variance is a sum
// of squares: a direction that all rows share cancels nowhere. Removing the n pairs (i, i) leaves that sum
// minus sum_i |e_i|^2 sum_i |e'_i|^2 / (n - 1). Rows without direction in either matrix are left out.
//
// Sums over rows are float64. The products E'E, F'F and E'F are float64, too, unless n >= 4096 and n >= 2 d:
// then float32 over pieces of r = 320 rows, whose sums are added up in float64. Where roundings (at most u =
// 2^-24) are independent of each other and 0 on average, a squared norm of a product errs, relative to
// |E'E|_F |F'F|_F, by a standard deviation of at most 2 u r / sqrt(3 n): 3.4e-7 at n = 4096, 1e-7 at 50,000.
// A variance holds more than half of it after the diagonal is taken away, because |E'E|_F^2 >= (sum_i
// |e_i|^2)^2 / d. Real errors are about 1e-9 to 1e-8: signs differ within a sum, too.
//
// Cost: n (d_a d_b + d_a^2 / 2 + d_b^2 / 2) multiply-adds. Workspace: at most 70 MiB, 0.6 MiB (float64: 1.2)
// for each worker, and 16 n bytes. The result does not depend on the number of threads.
double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor);

// What null baselines and confidence intervals of that correlation are made of, without the diagonal. With
// y_ij = u_i.u_j minus the mean over the pairs i != j,
//
//   sums.ab_i = sum over j != i of y_ij y'_ij,   which over all j and before that mean is subtracted is
//               n s_i s'_i + sum_j s_j s'_j + e_i.(E'F m') + f_i.(F'E m) + e_i'(E'F) f_i
//
// The term j = i is the same for all rows, because |u_i| = 1; a row of y sums to n s_i. A row also moves the
// means that are subtracted first, by (x_i - center) / n; centering_i is what that does to the correlation,
// to first order: its derivative by the center is a sum of the u_i with weights that follow from sums over
// rows. Rows that are left out have zeros.
//
// Cost: that of global_similarity, once to one and a half times its multiply-adds again, and some
// 20 n (d_a + d_b). Workspace: the same, 12 MiB for products, and 48 n bytes of result.
struct SimilarityTerms {
    UnitPair pair;
    double correlation = 0.0;
    ProductNorms total{};                      // the sums of `sums` over rows
    RowForms sums{};                           // (n)
    std::vector<double> along_a{}, along_b{};  // (n): s_i
    std::vector<double> centering{};           // (n), or nothing without centering
};

SimilarityTerms similarity_terms(const RowSet& a, const RowSet& b, bool center, int threads,
                                 Monitor& monitor);

}  // namespace embgeom

#pragma once

#include <cstdint>
#include <span>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/similarity/unit_rows.hpp"

namespace embgeom {

// The directions u_i of a matrix (n, d), none of which is left out, in G strata: stratum g has the rows
// [begins[g], begins[g + 1]); begins (G + 1) rises from 0 to n.
struct StratifiedRows {
    UnitRows unit;
    std::span<const std::int64_t> begins;

    std::size_t count() const { return begins.size() - 1; }
    std::size_t begin(std::size_t g) const { return static_cast<std::size_t>(begins[g]); }
    std::size_t end(std::size_t g) const { return begin(g + 1); }
    std::size_t size(std::size_t g) const { return end(g) - begin(g); }
};

// What relabeling within strata needs to know of one matrix. With w_g the mean of the u_i of a stratum, and
// the deviations d_i = u_i - w_g of its rows, which make the rows of D_g:
//   means (G, d)     w_g
//   squares (G)      sum_i |d_i|^2
//   along (G)        sum_i (d_i.w_g)^2
//   products (G, G)  tr(D_g'D_g D_h'D_h)
struct StratumMoments {
    MatrixView<double> means;
    std::span<double> squares, along;
    MatrixView<double> products;
};

// Means, squares and along are float64. The products are float64, too, unless n >= 4096: then D_g'D_g is
// summed in float32 over pieces of 512 rows, and so are the products of its elements over 4096 of them.
//
// Columns are cut into strips, so that one strip of columns of all D_g'D_g times another takes at most 64
// MiB. A stratum is one task, and so is a block of some 200 x 200 strata; each adds up in one order, so no
// result depends on the number of threads. Cost: n d^2 / 2 + G^2 d^2 / 4 multiply-adds, and a fifth of them
// more, and the rows are packed once for each strip. Workspace: 64 MiB and 1 MiB for each worker.
void stratum_moments(const StratifiedRows& rows, int threads, Monitor& monitor, const StratumMoments& result);

// For each stratum |D_g (C + f_g w_g w'_g') D'_g'|_F^2 where primes belong to b, for C (d_a, d_b), factors f
// (G) and the means w of `stratum_moments`. Float64, or float32 over pieces of 512 rows where n >= 4096.
// Cost: n d_a d_b multiply-adds, and n_g^2 d_b, or n_g d_b^2 if that is less, for each stratum. Workspace:
// at most 4 d_b^2 + 1024 (d_a + d_b) numbers for each worker.
struct MatrixBetween {
    MatrixView<const double> shared;  // C
    std::span<const double> factors;  // f
    MatrixView<const double> means_a, means_b;
};

void stratum_norms(const StratifiedRows& a, const StratifiedRows& b, const MatrixBetween& between,
                   int threads, Monitor& monitor, std::span<double> norms);

}  // namespace embgeom

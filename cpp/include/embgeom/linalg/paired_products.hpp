#pragma once

#include <span>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

// n pairs of rows x_i (d_x) and y_i (d_y), a factor (n) for each row of either side, and the square root (n)
// of each pair's weight; an empty span stands for ones.
struct PairedRows {
    RowSet x, y;
    std::span<const double> x_factors, y_factors, roots;
};

// What a linear map between the two sides is fitted from, with u_i = r_i a_i x_i and v_i = r_i b_i y_i for
// factors a and b and roots r:
//   xx (d_x, d_x) = sum_i u_i u_i'    xy (d_x, d_y) = sum_i u_i v_i'    yy (d_y, d_y) = sum_i v_i v_i'
//   x_sum (d_x) = sum_i r_i u_i       y_sum (d_y) = sum_i r_i v_i
struct PairedProducts {
    MatrixView<double> xx, xy, yy;
    std::span<double> x_sum, y_sum;
};

// All in float64, in one pass over the rows, of which a slab of up to 32 MiB is converted at a time. Columns
// are cut into strips of at most 256; each product of two strips is the sum over the slabs in their order, so
// no result depends on the number of threads. Cost: n (d_x^2 / 2 + d_x d_y +
// d_y^2 / 2) multiply-adds.
void paired_products(const PairedRows& pairs, int threads, Monitor& monitor, const PairedProducts& result);

}  // namespace embgeom

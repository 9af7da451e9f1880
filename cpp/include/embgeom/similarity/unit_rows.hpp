#pragma once

#include <cstddef>
#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"

namespace embgeom {

// A matrix (n, d) as directions, and these as deviations from their mean, made a piece of a row at a time:
//   u_i = (x_i - center) / |x_i - center|,   e_i = u_i - mean,   so that sum_i e_i = 0
struct UnitRows {
    RowSet rows;
    std::vector<double> center;   // (d), the mean of the rows that are zero in neither matrix, or zero
    std::vector<double> inverse;  // (n), 1 / |x_i - center|; 0 for a row that is left out, whose e_i is 0
    std::vector<double> mean;     // (d), the mean of all u_i that are not left out

    std::size_t width() const { return rows.matrix.cols; }

    // `count` coordinates of e_i from `begin` on: computed in float64 and rounded once.
    void pack(std::size_t i, std::size_t begin, std::size_t count, float* packed) const;
    void pack(std::size_t i, std::size_t begin, std::size_t count, double* packed) const;

    // The same of a row that is not left out, as a deviation from another vector, of which `from` has these
    // coordinates.
    void pack_from(const double* from, std::size_t i, std::size_t begin, std::size_t count,
                   float* packed) const;
    void pack_from(const double* from, std::size_t i, std::size_t begin, std::size_t count,
                   double* packed) const;
};

// Two matrices over the same rows. Rows that are zero in either, or that centering leaves without a direction
// in either, are left out.
struct UnitPair {
    UnitRows a, b;
    std::size_t used;  // rows that are not left out
};

// Throws InvalidInput where a value is not finite. Cost: a few n (d_a + d_b). Workspace: 16 n bytes and at
// most 64 sums of rows.
UnitPair make_unit_pair(const RowSet& a, const RowSet& b, bool center, int threads, Monitor& monitor);

// Sums of the rows' deviations along the mean, s_i = mean.e_i, and of their squared lengths.
struct Deviations {
    double along_aa = 0.0, along_ab = 0.0, along_bb = 0.0;  // sum_i s_i s'_i
    double square_a = 0.0, square_b = 0.0;                  // sum_i |e_i|^2
};

Deviations measure_deviations(const UnitPair& pair, int threads, Monitor& monitor);

}  // namespace embgeom

#pragma once

#include <vector>

#include "embgeom/base/matrix_view.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/similarity/unit_rows.hpp"

namespace embgeom {

// Squared Frobenius norms of the three products of the deviations E (n, d_a) and F (n, d_b) of a pair:
//   aa = |E'E|_F^2,   ab = |E'F|_F^2,   bb = |F'F|_F^2
struct ProductNorms {
    double aa = 0.0, ab = 0.0, bb = 0.0;
};

// Columns are cut into strips of at most 384. Rows are packed once for all products of two strips, a slab of
// 16 MiB at a time. Strips are multiplied in float32 or float64 over pieces of 320 rows; the sums of four
// pieces are added up in float64, in one order, so no result depends on the number of threads. More than 3
// strips are taken in squares of 3 x 3, each in its own pass over the rows, so that memory stays bounded.
// Cost: n (d_a^2 / 2 + d_b^2 / 2 + d_a d_b) multiply-adds. Workspace: at most 70 MiB, and 0.6 or 1.2 MiB for
// each worker.
//
// Where `forms` is given, it gets what each row has of these norms (as many multiply-adds again, and half as
// many for strips with themselves):
//   aa_i = e_i'(E'E) e_i,   ab_i = e_i'(E'F) f_i,   bb_i = f_i'(F'F) f_i
// With products in float32, these are sums of float32 products over one strip, added up in float64.
struct RowForms {
    std::vector<double> aa, ab, bb;  // (n)
};

// Where `matrices` are given, they get the products themselves: E'E (d_a, d_a), E'F (d_a, d_b), F'F (d_b,
// d_b).
struct ProductMatrices {
    MatrixView<double> aa, ab, bb;
};

// Float32 where there are so many rows that it suffices, otherwise float64; similarity.hpp says how far it
// errs.
ProductNorms product_norms(const UnitPair& pair, int threads, Monitor& monitor, RowForms* forms = nullptr,
                           const ProductMatrices* matrices = nullptr);

}  // namespace embgeom

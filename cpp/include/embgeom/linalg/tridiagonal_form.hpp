#pragma once

#include <cstddef>
#include <vector>

#include "embgeom/base/aligned.hpp"

namespace embgeom {

// Scratch of tridiagonal_form: about n^2 / 2 + 36 n floats.
struct TridiagonalSpace {
    AlignedVector<float> panels;               // what lies below the diagonal, packed
    std::vector<float> reflected;              // (block, n), the w of a block; LAPACK's workspace
    AlignedVector<float> x, y;                 // (n), a reflection and its product with the matrix
    std::vector<float> of_rows, of_reflected;  // (block), projections
};

// A tridiagonal matrix similar to a symmetric C (n, n), lower triangle given: its diagonal (n) and its
// off-diagonal elements (n - 1). C is overwritten.
//
// Householder's reduction from the last row to the first, as LAPACK's ssytrd does it: with v the reflection
// of a row and w = tau (C v - tau / 2 (v.C v) v), C becomes C - v w' - w v'. Within a block of rows only the
// row at hand is brought up to date, and the rest after it by one product of matrices. First, rows with
// large diagonal elements change places with the last ones, which keeps errors small: what is large is then
// reduced early. Half of the arithmetic is C v, bound by the caches: it reads half of the matrix, packed for
// each block, in order.
void tridiagonal_form(std::size_t n, float* c, float* diagonal, float* off_diagonal, TridiagonalSpace& space);

}  // namespace embgeom

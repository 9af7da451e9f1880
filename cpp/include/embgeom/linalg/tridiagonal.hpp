#pragma once

#include <cstdint>
#include <vector>

namespace embgeom {

// Where the cumulative share of the eigenvalues l_1 >= l_2 >= ... reaches the one wanted: `n_components` is
// the least c with (l_1 + ... + l_c) / sum(l) >= wanted, at least 1; `below` and `reached` are the shares of
// c - 1 and of c components.
struct Crossing {
    std::int32_t n_components;
    double below;
    double reached;
};

// The crossing of a symmetric, positive semidefinite tridiagonal matrix T (p, p), without its eigenvalues.
//
// Sturm's recurrence counts the eigenvalues above t; what they add up to is
//     sum over l > t of l  =  t count(t) + (sum(l - t) + sum|l - t|) / 2
//     |x| = (2 / pi) int_0^inf x^2 / (x^2 + y^2) dy
//     sum x^2 / (x^2 + y^2)  =  p - y Im tr (T - t - iy)^-1,  x = l - t
// The trapezoidal rule in log y takes about 80 values of y for errors of 1e-10 sum|l - t| whatever the
// spectrum, each a recurrence over the p rows of T. Bisection finds t; some 15 times 80 p steps that fill
// vector registers take an eighth of the time of the p^2 steps, one after another, of the QL iteration.
// Shares err by 1e-7 at most. `diagonal` has p elements, `off_diagonal` p - 1 (more are ignored); both are
// overwritten.
Crossing tridiagonal_crossing(const std::vector<double>& diagonal, std::vector<double>& off_diagonal,
                              double wanted);

}  // namespace embgeom

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embgeom/base/aligned.hpp"
#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/matrix_view.hpp"
#include "embgeom/linalg/tridiagonal_form.hpp"
#include "embgeom/neighborhoods/gram_probe.hpp"

namespace embgeom {

// Scratch of one worker, in one precision.
template <class Real>
struct GramScratch {
    std::vector<Real> centered;  // a piece of Z
    AlignedVector<Real> gram;    // (p, p), lower triangle, and room after it
    std::vector<Real> work;      // of a factorization
};

// Scratch of one worker, and its last result: T or the eigenvalues.
struct SpectrumSpace {
    std::vector<double> mean;          // (d), of the neighbors
    std::vector<double> squares;       // (p), the diagonal of C
    std::vector<float> least, most;    // (d), of the neighbors
    std::vector<double> eigenvalues;   // (p), ascending
    std::vector<double> diagonal;      // (p), of T
    std::vector<double> off_diagonal;  // (p - 1), of T
    TridiagonalSpace tridiagonal;
    GramProbe probe;
    AlignedVector<float> packed;  // a piece of Z, twice
    GramScratch<float> single;
    GramScratch<double> full;
};

// Sums over the spectrum that need no eigenvalues, and what tells how right they are.
struct Moments {
    double trace;    // sum(l) = |Z|_F^2, added up in float64
    double squares;  // sum(l^2) = |C|_F^2, from the elements of C
    double error;    // of C, estimated: its distance from Z'Z in the Frobenius norm
    double drift;    // from C to T, of the trace and of the Frobenius norm, which no reflection changes
};

// The spectrum l of the centered neighbors of a token, in two precisions.
//
//   Z (k, d)  the neighbors minus their mean, times a power of two
//             that brings the largest |Z_jl| into (1/2, 1]
//   C (p, p)  the smaller of Z Z' (k, k) and Z'Z (d, d), which share
//             their nonzero eigenvalues; p = min(k, d)
//
// The mean and the differences are float64 in either precision. Cost for each call: p k d / 2 multiply-adds
// for C, 2 p^3 / 3 for its reduction to tridiagonal form.
class Spectrum {
  public:
    Spectrum(MatrixView<const float> x, std::size_t k);

    std::size_t order() const { return order_; }

    // Of a worker's scratch for each of its p^2: C in float32 and in float64, and half of C packed.
    static constexpr std::size_t bytes_per_square = 14;

    // Float32 for C and for its reduction to a tridiagonal T. Where `is_sound`, the share of the c largest
    // eigenvalues of T errs by at most share_error(.).
    Moments compute_single(const std::vector<std::int32_t>& list, SpectrumSpace& space) const;

    // Float64 throughout: eigenvalues err by about p 2^-52 times the largest.
    void compute(const std::vector<std::int32_t>& list, SpectrumSpace& space) const;

    // False where the roundings in C do not cancel as they usually do: then float32 is not to be trusted.
    static bool is_sound(const Moments& moments);

    // Bounds the error of (l_1 + ... + l_c) / sum(l) that compute_single leaves, where l_c is about `least`
    // (see docs/numerics.md).
    double share_error(const Moments& moments, std::int32_t c, double least) const;
    static constexpr double least_share_error = 6.0 * unit_roundoff;

  private:
    double center(const std::vector<std::int32_t>& list, SpectrumSpace& space) const;

    template <class Real, class Add>
    void visit_pieces(const std::vector<std::int32_t>& list, SpectrumSpace& space,
                      std::vector<Real>& centered, Add add) const;

    void add_piece(const float* z, std::size_t count, std::size_t width, SpectrumSpace& space) const;

    bool sums_over_neighbors() const { return k_ > x_.cols; }

    const float* neighbor(const std::vector<std::int32_t>& list, std::size_t j) const {
        return x_.row(static_cast<std::size_t>(list[j]));
    }

    MatrixView<const float> x_;
    std::size_t k_;
    std::size_t order_;
};

}  // namespace embgeom

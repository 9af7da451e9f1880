#include "embgeom/neighborhoods/dimension.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "embgeom/base/rows.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/tridiagonal.hpp"
#include "embgeom/neighborhoods/spectrum.hpp"

namespace embgeom {
namespace {

struct Workspace {
    SpectrumSpace spectrum;
    std::vector<std::int32_t> list;  // the token's neighbors
    std::vector<std::int64_t> equal;
};

struct IntrinsicDimension {
    std::int32_t n_components;
    double participation_ratio;
    double explained_variance_ratio;
    bool decided_in_float64 = false;
};

Crossing find_crossing(const std::vector<double>& eigenvalues, double share) {
    const double total = std::accumulate(eigenvalues.begin(), eigenvalues.end(), 0.0);
    double below = 0.0, reached = 0.0;
    std::int32_t n_components = 0;
    for (auto value = eigenvalues.rbegin();
         value != eigenvalues.rend() && (n_components == 0 || reached < share * total); ++value) {
        below = reached;
        reached += *value;
        ++n_components;
    }
    return {n_components, below / total, reached / total};
}

// Both ways are float64. For a small matrix it is faster to compute all eigenvalues than a few of their sums.
Crossing find_crossing(SpectrumSpace& tridiagonal, double share) {
    constexpr std::size_t few = 160;  // tuned by benchmarks/kernels/bench_dimension.py
    const std::size_t order = tridiagonal.diagonal.size();
    if (order >= few) return tridiagonal_crossing(tridiagonal.diagonal, tridiagonal.off_diagonal, share);
    blas::tridiagonal_eigenvalues(order, tridiagonal.diagonal.data(), tridiagonal.off_diagonal.data());
    return find_crossing(tridiagonal.diagonal, share);
}

// Whether the error that float32 may leave cannot change the number of components.
bool is_certain(const Spectrum& spectrum, const Moments& moments, const Crossing& crossing, double wanted) {
    const std::int32_t c = crossing.n_components;
    const double least = (crossing.reached - crossing.below) * moments.trace;
    const bool enough = crossing.reached - spectrum.share_error(moments, c, least) > wanted;
    const bool needed = c == 1 || crossing.below + spectrum.share_error(moments, c - 1, least) < wanted;
    return Spectrum::is_sound(moments) && enough && needed;
}

// Float32 finds the number, float64 decides it wherever float32 could be wrong.
IntrinsicDimension measure(const Spectrum& spectrum, double variance, Workspace& space) {
    SpectrumSpace& scratch = space.spectrum;
    // Without this allowance a variance of 1 would count eigenvalues that are nothing but rounding.
    const double wanted =
        variance - static_cast<double>(spectrum.order()) * std::numeric_limits<double>::epsilon();
    // No share exceeds 1, so float32 cannot be certain of a threshold this near to it.
    if (variance + Spectrum::least_share_error < 1.0) {
        const Moments moments = spectrum.compute_single(space.list, scratch);
        const Crossing crossing = find_crossing(scratch, wanted);
        if (is_certain(spectrum, moments, crossing, wanted)) {
            return {crossing.n_components, moments.trace * moments.trace / moments.squares,
                    std::min(crossing.reached, 1.0)};
        }
    }
    spectrum.compute(space.list, scratch);
    std::vector<double>& values = scratch.eigenvalues;
    // Rounding leaves some of the zero eigenvalues slightly negative.
    for (double& value : values) value = std::max(value, 0.0);
    const Crossing crossing = find_crossing(values, wanted);
    const double sum = std::accumulate(values.begin(), values.end(), 0.0);
    const double squares = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
    return {crossing.n_components, sum * sum / squares, std::min(crossing.reached, 1.0), true};
}

}  // namespace

void float32_shares(const MatrixView<const float>& x, const std::vector<std::int32_t>& list,
                    std::span<double> shares, std::span<double> bounds) {
    const Spectrum spectrum(x, list.size());
    SpectrumSpace space;
    const Moments moments = spectrum.compute_single(list, space);
    std::vector<double>& values = space.diagonal;
    blas::tridiagonal_eigenvalues(values.size(), values.data(), space.off_diagonal.data());
    const double total = std::accumulate(values.begin(), values.end(), 0.0);
    double sum = 0.0;
    for (std::size_t c = 0; c < values.size(); ++c) {
        const double value = values[values.size() - 1 - c];
        shares[c] = (sum += value) / total;
        bounds[c] = Spectrum::is_sound(moments)
                        ? spectrum.share_error(moments, static_cast<std::int32_t>(c + 1), value)
                        : std::numeric_limits<double>::infinity();
    }
}

void intrinsic_dimension(const Neighborhoods& neighborhoods, double variance, int threads, Monitor& monitor,
                         const IntrinsicDimensionResult& result) {
    const MatrixView<const float> x = neighborhoods.tokens.matrix;
    const std::vector<std::int64_t> first_equal = first_equal_rows(x, "x", threads, monitor);
    const Spectrum spectrum(x, neighborhoods.neighbors.cols);

    const std::size_t order = spectrum.order();
    const int workers =
        useful_workers(neighborhoods.neighbors.rows, threads, Spectrum::bytes_per_square * order * order);
    std::vector<Workspace> spaces(static_cast<std::size_t>(workers));
    parallel_for("decompose", neighborhoods.neighbors.rows, workers, monitor,
                 [&](std::size_t i, const Worker& worker) {
                     Workspace& space = spaces[static_cast<std::size_t>(worker.id())];
                     constexpr double nan = std::numeric_limits<double>::quiet_NaN();
                     IntrinsicDimension dimension{-1, nan, nan};
                     if (take_neighbors(neighborhoods, i, space.list)) {
                         if (distinct_neighbors(space.list, first_equal, space.equal) == 1) {
                             dimension = {0, 0.0, 1.0};
                         } else {
                             dimension = measure(spectrum, variance, space);
                         }
                     }
                     result.n_components[i] = dimension.n_components;
                     result.participation_ratio[i] = static_cast<float>(dimension.participation_ratio);
                     result.explained_variance_ratio[i] =
                         static_cast<float>(dimension.explained_variance_ratio);
                     result.decided_in_float64[i] = dimension.decided_in_float64;
                 });
}

}  // namespace embgeom

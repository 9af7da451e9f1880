#include "embgeom/similarity/similarity.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "embgeom/base/error.hpp"
#include "embgeom/similarity/product_norms.hpp"
#include "embgeom/similarity/unit_rows.hpp"

namespace embgeom {
namespace {

constexpr std::size_t fewest_rows_for_float32 = 4096;

// See the header: for few rows the error of float32 products would be too large compared with the sums
// without the diagonal.
bool float32_suffices(std::size_t used, std::size_t d_a, std::size_t d_b) {
    return used >= fewest_rows_for_float32 && used >= 2 * std::max(d_a, d_b);
}

// Sums over all pairs of y y', the cosines minus the mean of all n^2, from products and deviations.
struct PairSums {
    double aa, ab, bb;
};

PairSums add_up(const UnitPair& pair, const Deviations& deviations, int threads, Monitor& monitor) {
    const bool fast = float32_suffices(pair.used, pair.a.width(), pair.b.width());
    const ProductNorms norms =
        fast ? product_norms_float32(pair, threads, monitor) : product_norms_float64(pair, threads, monitor);
    const double twice = 2.0 * static_cast<double>(pair.used);
    return {twice * deviations.along_aa + norms.aa, twice * deviations.along_ab + norms.ab,
            twice * deviations.along_bb + norms.bb};
}

// Removes the pairs (i, i), for which y = |e_i|^2 + 2 s_i, and corrects the mean.
PairSums without_diagonal(const PairSums& all, const Deviations& deviations, std::size_t used) {
    const double divisor = static_cast<double>(used - 1);
    const double a = deviations.square_a, b = deviations.square_b;
    return {all.aa - a * a / divisor, all.ab - a * b / divisor, all.bb - b * b / divisor};
}

// Whether the variance is more than rounding: the cosines must differ by more than 1e-12 of their size, the
// precision of float64, and removing the diagonal must leave more than 1e-12 of the sum.
bool varies(double all, double left, double squares, std::size_t used) {
    const auto n = static_cast<double>(used);
    const double mean_cosine = 1.0 - squares / n;
    const double sum_of_squared_cosines = all + n * n * mean_cosine * mean_cosine;
    return all > 1e-24 * sum_of_squared_cosines && left > 1e-12 * all;
}

[[noreturn]] void throw_undefined(const char* which) {
    throw InvalidInput(std::string("all pairs of rows of the ") + which +
                       " matrix have the same cosine similarity: its correlation with anything is undefined");
}

}  // namespace

double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor) {
    const UnitPair pair = make_unit_pair(a, b, options.center, threads, monitor);
    if (pair.used < 3) {
        throw InvalidInput("only " + std::to_string(pair.used) + " of " + std::to_string(a.size) +
                           " rows have a direction in both matrices: a correlation over pairs needs 3");
    }
    const Deviations deviations = measure_deviations(pair, threads, monitor);
    const PairSums all = add_up(pair, deviations, threads, monitor);
    const PairSums left = options.include_diagonal ? all : without_diagonal(all, deviations, pair.used);
    if (!varies(all.aa, left.aa, deviations.square_a, pair.used)) throw_undefined("first");
    if (!varies(all.bb, left.bb, deviations.square_b, pair.used)) throw_undefined("second");
    return std::clamp(left.ab / (std::sqrt(left.aa) * std::sqrt(left.bb)), -1.0, 1.0);
}

}  // namespace embgeom

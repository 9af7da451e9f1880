#include "embgeom/similarity/similarity.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <utility>

#include "embgeom/base/error.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/similarity/row_sums.hpp"

namespace embgeom {
namespace {

constexpr std::size_t rows_per_task = 64;
constexpr std::size_t lanes = 8;

EMBGEOM_MULTIVERSION
double sum_of_products(const double* a, const double* b, std::size_t count) {
    double sum[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= count; l += lanes) {
        for (std::size_t k = 0; k < lanes; ++k) sum[k] += a[l + k] * b[l + k];
    }
    for (std::size_t k = 0; l < count; ++l, ++k) sum[k] += a[l] * b[l];
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

double inner(std::span<const double> a, std::span<const double> b) {
    return sum_of_products(a.data(), b.data(), a.size());
}

EMBGEOM_MULTIVERSION
void add_multiple(double factor, const double* values, std::size_t count, double* sums) {
    for (std::size_t l = 0; l < count; ++l) sums[l] += factor * values[l];
}

void add_multiple(double factor, const std::vector<double>& values, double* sums) {
    add_multiple(factor, values.data(), values.size(), sums);
}

// Sums over all pairs of y y', the cosines minus the mean of all n^2, from products and deviations.
ProductNorms add_up(const UnitPair& pair, const Deviations& deviations, int threads, Monitor& monitor,
                    RowForms* forms = nullptr) {
    const ProductNorms norms = product_norms(pair, threads, monitor, forms);
    const double twice = 2.0 * static_cast<double>(pair.used);
    return {twice * deviations.along_aa + norms.aa, twice * deviations.along_ab + norms.ab,
            twice * deviations.along_bb + norms.bb};
}

// Removes the pairs (i, i), for which y = |e_i|^2 + 2 s_i, and corrects the mean.
ProductNorms without_diagonal(const ProductNorms& all, const Deviations& deviations, std::size_t used) {
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

UnitPair usable_pair(const RowSet& a, const RowSet& b, bool center, int threads, Monitor& monitor) {
    UnitPair pair = make_unit_pair(a, b, center, threads, monitor);
    if (pair.used < 3) {
        throw InvalidInput("only " + std::to_string(pair.used) + " of " + std::to_string(a.size) +
                           " rows have a direction in both matrices: a correlation over pairs needs 3");
    }
    return pair;
}

double correlation(const ProductNorms& all, const ProductNorms& left, const Deviations& deviations,
                   std::size_t used) {
    if (!varies(all.aa, left.aa, deviations.square_a, used)) throw_undefined("first");
    if (!varies(all.bb, left.bb, deviations.square_b, used)) throw_undefined("second");
    return std::clamp(left.ab / (std::sqrt(left.aa) * std::sqrt(left.bb)), -1.0, 1.0);
}

// A row's deviations from the means of both matrices, in float64, and their products with these.
struct RowPair {
    std::vector<double> e, f;
    double s_a = 0.0, s_b = 0.0;

    void take(const UnitPair& pair, std::size_t i) {
        e.resize(pair.a.width());
        f.resize(pair.b.width());
        pair.a.pack(i, 0, e.size(), e.data());
        pair.b.pack(i, 0, f.size(), f.data());
        s_a = inner(e, pair.a.mean);
        s_b = inner(f, pair.b.mean);
    }
};

// Sums over rows of deviations and of s_i, times s_i, s'_i and the inverse norms of either matrix.
class WeightedSums {
  public:
    // Inverse norms matter to the derivatives by the centers only.
    WeightedSums(const UnitPair& pair, bool center, int threads, Monitor& monitor)
        : d_a_(pair.a.width()), d_b_(pair.b.width()) {
        const auto add = [&](std::size_t begin, std::size_t end, double* sums) {
            RowPair row;
            for (std::size_t i = begin; i < end; ++i) {
                if (pair.a.inverse[i] == 0.0) continue;
                row.take(pair, i);
                const double weights[] = {row.s_a, row.s_b, pair.a.inverse[i], pair.b.inverse[i]};
                double* place = sums;
                for (const double weight : std::span(weights).first(center ? 4 : 2)) {
                    add_multiple(weight, row.e, place);
                    add_multiple(weight, row.f, place + d_a_);
                    place += d_a_ + d_b_;
                    *place++ += weight;
                    *place++ += weight * row.s_a;
                    *place++ += weight * row.s_b;
                }
            }
        };
        sums_ = sum_rows("weigh", pair.a.rows.size, 4 * stride(), threads, monitor, add);
    }

    enum Weight : std::size_t { along_a, along_b, inverse_a, inverse_b };
    std::span<const double> e(Weight weight) const { return {&sums_[weight * stride()], d_a_}; }
    std::span<const double> f(Weight weight) const { return {&sums_[weight * stride() + d_a_], d_b_}; }
    double one(Weight weight) const { return sums_[weight * stride() + d_a_ + d_b_]; }
    double s_a(Weight weight) const { return sums_[weight * stride() + d_a_ + d_b_ + 1]; }
    double s_b(Weight weight) const { return sums_[weight * stride() + d_a_ + d_b_ + 2]; }

  private:
    std::size_t stride() const { return d_a_ + d_b_ + 3; }

    std::size_t d_a_, d_b_;
    std::vector<double> sums_;
};

// Turns the forms of rows into their sums over pairs, and sums up the derivatives by the centers.
class RowCompletion {
  public:
    RowCompletion(SimilarityTerms& terms, const Deviations& deviations, const WeightedSums& sums)
        : terms_(terms),
          deviations_(deviations),
          sums_(sums),
          n_(static_cast<double>(terms.pair.used)),
          same_a_(deviations.square_a / n_),
          same_b_(deviations.square_b / n_),
          mean_a_(same_a_ / (n_ - 1.0)),
          mean_b_(same_b_ / (n_ - 1.0)),
          cosine_a_(inner(terms.pair.a.mean, terms.pair.a.mean) - mean_a_),
          cosine_b_(inner(terms.pair.b.mean, terms.pair.b.mean) - mean_b_) {}

    void complete(std::size_t i, const RowPair& row) const {
        using enum WeightedSums::Weight;
        const double s = row.s_a, t = row.s_b;
        terms_.along_a[i] = s;
        terms_.along_b[i] = t;
        double &aa = terms_.sums.aa[i], &ab = terms_.sums.ab[i], &bb = terms_.sums.bb[i];
        aa += n_ * s * s + deviations_.along_aa + 2.0 * inner(row.e, sums_.e(along_a));
        ab += n_ * s * t + deviations_.along_ab + inner(row.e, sums_.e(along_b)) +
              inner(row.f, sums_.f(along_a));
        bb += n_ * t * t + deviations_.along_bb + 2.0 * inner(row.f, sums_.f(along_b));
        aa = without_itself(aa, s, s, same_a_, same_a_);
        ab = without_itself(ab, s, t, same_a_, same_b_);
        bb = without_itself(bb, t, t, same_b_, same_b_);
    }

    // The weights of row i's directions in the derivatives by the centers of a and of b, to be called after
    // `complete`: with inverse norms v, sum_j v_j y'_ij, minus the part along u_i, which does not turn it.
    std::pair<double, double> weights(std::size_t i, const RowPair& row) const {
        using enum WeightedSums::Weight;
        const double v_a = terms_.pair.a.inverse[i], v_b = terms_.pair.b.inverse[i];
        const double aa = terms_.sums.aa[i], ab = terms_.sums.ab[i], bb = terms_.sums.bb[i];
        const double s = row.s_a, t = row.s_b;
        const auto over_a = [&](WeightedSums::Weight v, double v_i) {
            return sums_.s_a(v) + (s + mean_a_) * sums_.one(v) + inner(row.e, sums_.e(v)) -
                   v_i * (same_a_ + mean_a_);
        };
        const auto over_b = [&](WeightedSums::Weight v, double v_i) {
            return sums_.s_b(v) + (t + mean_b_) * sums_.one(v) + inner(row.f, sums_.f(v)) -
                   v_i * (same_b_ + mean_b_);
        };
        const double scale = std::sqrt(terms_.total.aa) * std::sqrt(terms_.total.bb);
        const double r = terms_.correlation;
        const double of_a = (over_b(inverse_a, v_a) - v_a * (ab + cosine_a_ * n_ * t)) / scale -
                            r * (over_a(inverse_a, v_a) - v_a * (aa + cosine_a_ * n_ * s)) / terms_.total.aa;
        const double of_b = (over_a(inverse_b, v_b) - v_b * (ab + cosine_b_ * n_ * s)) / scale -
                            r * (over_b(inverse_b, v_b) - v_b * (bb + cosine_b_ * n_ * t)) / terms_.total.bb;
        return {-2.0 * of_a, -2.0 * of_b};
    }

  private:
    // A sum over all j becomes one over j != i, of cosines minus their mean over pairs.
    double without_itself(double sum, double s, double t, double same_s, double same_t) const {
        return sum - same_s * same_t + (n_ * (same_t * s + same_s * t) - same_s * same_t) / (n_ - 1.0);
    }

    SimilarityTerms& terms_;
    const Deviations& deviations_;
    const WeightedSums& sums_;
    double n_, same_a_, same_b_;  // y_ii before the mean over pairs is subtracted
    double mean_a_, mean_b_;      // what is added for it
    double cosine_a_, cosine_b_;  // the mean cosine over pairs
};

void complete(SimilarityTerms& terms, const Deviations& deviations, bool center, int threads,
              Monitor& monitor) {
    const UnitPair& pair = terms.pair;
    const std::size_t n = pair.a.rows.size, d_a = pair.a.width();
    for (auto* rows : {&terms.along_a, &terms.along_b}) rows->assign(n, 0.0);
    const WeightedSums sums(pair, center, threads, monitor);
    const RowCompletion completion(terms, deviations, sums);
    const auto add = [&](std::size_t begin, std::size_t end, double* gradient) {
        RowPair row;
        for (std::size_t i = begin; i < end; ++i) {
            if (pair.a.inverse[i] == 0.0) continue;
            row.take(pair, i);
            completion.complete(i, row);
            if (!center) continue;
            const auto [of_a, of_b] = completion.weights(i, row);
            add_multiple(of_a, row.e, gradient);
            add_multiple(of_a, pair.a.mean, gradient);
            add_multiple(of_b, row.f, gradient + d_a);
            add_multiple(of_b, pair.b.mean, gradient + d_a);
        }
    };
    const std::vector<double> gradient = sum_rows("sum up", n, d_a + pair.b.width(), threads, monitor, add);
    if (!center) return;
    terms.centering.assign(n, 0.0);
    const std::span<const double> by_a(gradient.data(), d_a), by_b(gradient.data() + d_a, pair.b.width());
    const double along_a = inner(pair.a.mean, by_a), along_b = inner(pair.b.mean, by_b);
    const auto used = static_cast<double>(pair.used);
    parallel_ranges("centering", n, rows_per_task, threads, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker&) {
                        RowPair row;
                        for (std::size_t i = begin; i < end; ++i) {
                            if (pair.a.inverse[i] == 0.0) continue;
                            row.take(pair, i);
                            terms.centering[i] = ((inner(row.e, by_a) + along_a) / pair.a.inverse[i] +
                                                  (inner(row.f, by_b) + along_b) / pair.b.inverse[i]) /
                                                 used;
                        }
                    });
}

}  // namespace

double global_similarity(const RowSet& a, const RowSet& b, const SimilarityOptions& options, int threads,
                         Monitor& monitor) {
    const UnitPair pair = usable_pair(a, b, options.center, threads, monitor);
    const Deviations deviations = measure_deviations(pair, threads, monitor);
    const ProductNorms all = add_up(pair, deviations, threads, monitor);
    const ProductNorms left = options.include_diagonal ? all : without_diagonal(all, deviations, pair.used);
    return correlation(all, left, deviations, pair.used);
}

SimilarityTerms similarity_terms(const RowSet& a, const RowSet& b, bool center, int threads,
                                 Monitor& monitor) {
    SimilarityTerms terms{.pair = usable_pair(a, b, center, threads, monitor)};
    const Deviations deviations = measure_deviations(terms.pair, threads, monitor);
    const ProductNorms all = add_up(terms.pair, deviations, threads, monitor, &terms.sums);
    terms.total = without_diagonal(all, deviations, terms.pair.used);
    terms.correlation = correlation(all, terms.total, deviations, terms.pair.used);
    complete(terms, deviations, center, threads, monitor);
    return terms;
}

}  // namespace embgeom

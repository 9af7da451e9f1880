#include "embgeom/neighborhoods/lle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "embgeom/base/arithmetic.hpp"
#include "embgeom/base/rows.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/small_matrix.hpp"
#include "embgeom/neighborhoods/differences.hpp"

namespace embgeom {
namespace {

struct Workspace {
    Differences differences;
    std::vector<double> gram;                   // (k, k), lower triangle
    std::vector<double> factor;                 // (k, k), what a factorization overwrites
    std::vector<double> weights;                // (k)
    std::vector<double> work;                   // of a factorization
    std::vector<std::int32_t> list;             // the token's neighbors
    std::vector<const float*> rows, next_rows;  // the neighbors' rows; those that the next token needs
    std::vector<std::int64_t> equal;

    explicit Workspace(std::size_t k, std::size_t d)
        : differences(k, d), gram(k * k), factor(k * k), weights(k), work(2 * k) {}
};

class Solver {
  public:
    Solver(const Neighborhoods& neighborhoods, const std::vector<std::int64_t>& first_equal, double reg)
        : x_(neighborhoods.tokens.matrix),
          tokens_(neighborhoods.tokens),
          neighbors_(neighborhoods.neighbors),
          neighborhoods_(neighborhoods),
          first_equal_(first_equal),
          reg_(reg) {}

    // Fills space.weights and returns the status; without weights the distance to the reconstruction is NaN
    // too.
    LleStatus solve(std::size_t i, Workspace& space, double& distance) const {
        const std::size_t k = neighbors_.cols;
        distance = std::numeric_limits<double>::quiet_NaN();
        std::fill(space.weights.begin(), space.weights.end(), distance);
        if (!take_neighbors(neighborhoods_, i, space.list)) return LleStatus::no_neighbors;

        const std::int64_t token = first_equal_[tokens_.row_number(i)];
        const std::size_t distinct = distinct_neighbors(space.list, first_equal_, space.equal);
        const bool meets_token =
            std::find(space.equal.begin(), space.equal.end(), token) != space.equal.end();
        if (meets_token && distinct == 1) {
            std::fill(space.weights.begin(), space.weights.end(), 1.0 / static_cast<double>(k));
            distance = 0.0;
            return LleStatus::coincident;
        }
        fill_gram(i, space);
        const bool deficient = distinct < k || meets_token || k > x_.cols || rank(space) < k;
        if (!solve_regularized(space, deficient)) return LleStatus::singular;
        distance = residual(i, space);
        if (distinct < k || meets_token) return LleStatus::duplicate;
        return deficient ? LleStatus::rank_deficient : LleStatus::ok;
    }

  private:
    void fill_gram(std::size_t i, Workspace& space) const {
        space.rows.clear();
        for (const std::int32_t j : space.list) space.rows.push_back(x_.row(static_cast<std::size_t>(j)));
        list_next_rows(i + 1, space);
        space.differences.fill_gram(tokens_.row(i), space.rows.data(), space.gram.data(),
                                    Prefetch(space.next_rows, x_.cols));
    }

    // The rows that the next token will need. Its list is checked when its turn comes.
    void list_next_rows(std::size_t next, Workspace& space) const {
        space.next_rows.clear();
        if (next >= tokens_.size) return;
        const std::int32_t* list = neighbors_.row(next);
        for (std::size_t j = 0; j < neighbors_.cols; ++j) {
            const std::int32_t row = list[j];  // read once: another thread may write there
            if (row < 0 || static_cast<std::size_t>(row) >= x_.rows) continue;
            space.next_rows.push_back(x_.row(static_cast<std::size_t>(row)));
        }
        space.next_rows.push_back(tokens_.row(next));
    }

    // w' G w, and a bound of its rounding error: the terms' absolute values add up to k times those on the
    // diagonal at most.
    struct QuadraticForm {
        double value, error;
    };

    QuadraticForm quadratic_form(const Workspace& space) const {
        const std::size_t k = neighbors_.cols;
        double value = 0.0, diagonal = 0.0;
        for (std::size_t j = 0; j < k; ++j) {
            const double* row = space.gram.data() + j * k;
            double sum = 0.0;
            for (std::size_t l = 0; l < j; ++l) sum += row[l] * space.weights[l];
            const double square = row[j] * space.weights[j] * space.weights[j];
            value += square + 2.0 * sum * space.weights[j];
            diagonal += square;
        }
        const double roundings = static_cast<double>(x_.cols + 2 * k);
        return {value, roundings * 0x1p-52 * static_cast<double>(k) * diagonal};
    }

    // |sum_j w_j (x - y_j)|: the root of w' G w, unless its terms cancel so far that fewer digits than those
    // of float32 are left.
    double residual(std::size_t i, const Workspace& space) const {
        const QuadraticForm square = quadratic_form(space);
        if (square.error < square.value * 0x1p-28) return std::sqrt(square.value);
        return space.differences.combined_length(tokens_.row(i), space.rows.data(), space.weights.data());
    }

    double trace(const Workspace& space) const {
        const std::size_t k = neighbors_.cols;
        double sum = 0.0;
        for (std::size_t j = 0; j < k; ++j) sum += space.gram[j * k + j];
        return sum;
    }

    // The numerical rank of G.
    std::size_t rank(Workspace& space) const {
        const std::size_t k = neighbors_.cols;
        double largest = 0.0;
        for (std::size_t j = 0; j < k; ++j) largest = std::max(largest, space.gram[j * k + j]);
        const double tolerance =
            static_cast<double>(std::max(k, x_.cols)) * std::numeric_limits<double>::epsilon() * largest;
        space.factor = space.gram;
        if (k <= small_matrix::limit) {
            return small_matrix::semidefinite_rank(k, space.factor.data(), tolerance, space.work.data());
        }
        return blas::semidefinite_rank(k, space.factor.data(), tolerance, space.work);
    }

    // A deficient G without regularization has no unique solution, whatever its rounded pivots say.
    bool solve_regularized(Workspace& space, bool deficient) const {
        if (deficient && reg_ == 0.0) return false;
        const std::size_t k = neighbors_.cols;
        const double ridge = reg_ * trace(space);
        space.factor = space.gram;
        for (std::size_t j = 0; j < k; ++j) space.factor[j * k + j] += ridge;
        std::vector<double>& weights = space.weights;
        std::fill(weights.begin(), weights.end(), 1.0);
        const bool solved =
            k <= small_matrix::limit
                ? small_matrix::solve_positive(k, space.factor.data(), weights.data(), space.work.data())
                : blas::solve_positive(k, space.factor.data(), weights.data());
        const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
        if (!solved || !std::isfinite(sum) || sum <= 0.0) {
            std::fill(weights.begin(), weights.end(), std::numeric_limits<double>::quiet_NaN());
            return false;
        }
        for (double& weight : weights) weight /= sum;
        return true;
    }

    MatrixView<const float> x_;
    RowSet tokens_;
    MatrixView<const std::int32_t> neighbors_;
    const Neighborhoods& neighborhoods_;
    const std::vector<std::int64_t>& first_equal_;
    double reg_;
};

}  // namespace

void lle(const Neighborhoods& neighborhoods, double reg, int threads, Monitor& monitor,
         const LleResult& result) {
    const MatrixView<const float> x = neighborhoods.tokens.matrix;
    const std::size_t k = neighborhoods.neighbors.cols;
    const std::vector<std::int64_t> first_equal = first_equal_rows(x, "x", threads, monitor);
    const Solver solver(neighborhoods, first_equal, reg);

    const std::size_t tokens_per_task = std::clamp<std::size_t>(4096 / k, 1, 64);
    const int workers = useful_workers(divide_up(neighborhoods.tokens.size, tokens_per_task), threads,
                                       2 * k * k * sizeof(double));
    std::vector<Workspace> spaces(static_cast<std::size_t>(workers), Workspace(k, x.cols));
    parallel_ranges("reconstruct", neighborhoods.tokens.size, tokens_per_task, workers, monitor,
                    [&](std::size_t begin, std::size_t end, const Worker& worker) {
                        Workspace& space = spaces[static_cast<std::size_t>(worker.id())];
                        for (std::size_t i = begin; i < end; ++i) {
                            worker.checkpoint();
                            double distance = 0.0;
                            result.status[i] = static_cast<std::uint8_t>(solver.solve(i, space, distance));
                            result.residuals[i] = static_cast<float>(distance);
                            std::transform(space.weights.begin(), space.weights.end(), result.weights.row(i),
                                           [](double weight) { return static_cast<float>(weight); });
                        }
                    });
}

}  // namespace embgeom

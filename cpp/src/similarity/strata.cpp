#include "embgeom/similarity/strata.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "embgeom/base/aligned.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/strips.hpp"

namespace embgeom {
namespace {

// Tuned by benchmarks/kernels/bench_similarity.py.
constexpr std::size_t widest_strip = 160;
constexpr std::size_t most_strata_per_block = 208;
constexpr std::size_t depth_of_products = 4096;
constexpr std::size_t bytes_of_scatters = std::size_t{64} << 20U;
constexpr std::size_t rows_per_piece = 512;
constexpr std::size_t rows_for_float32 = 4096;
constexpr std::size_t rows_ahead = 6;

EMBGEOM_MULTIVERSION
void add_row(const double* row, std::size_t width, double* sums) {
    for (std::size_t l = 0; l < width; ++l) sums[l] += row[l];
}

// Two sums in four lanes each, added up in one order.
EMBGEOM_MULTIVERSION
void square_and_along(const double* row, const double* mean, std::size_t width, double* found) {
    constexpr std::size_t lanes = 4;
    double square[lanes] = {}, along[lanes] = {};
    for (std::size_t l = 0; l < width; ++l) {
        square[l % lanes] += row[l] * row[l];
        along[l % lanes] += row[l] * mean[l];
    }
    found[0] = (square[0] + square[2]) + (square[1] + square[3]);
    found[1] = (along[0] + along[2]) + (along[1] + along[3]);
}

template <class T>
double sum_of_squares(const T* values, std::size_t count) {
    double sum = 0.0;
    for (std::size_t l = 0; l < count; ++l) {
        sum += static_cast<double>(values[l]) * static_cast<double>(values[l]);
    }
    return sum;
}

// The sum of a_rc b_rc over all r and c, of symmetric matrices of which the lower triangles are given.
template <class T>
double sum_of_products(const T* a, const T* b, std::size_t size) {
    double sum = 0.0;
    for (std::size_t r = 0; r < size; ++r) {
        double below = 0.0;
        const T *of_a = a + r * size, *of_b = b + r * size;
        for (std::size_t c = 0; c < r; ++c)
            below += static_cast<double>(of_a[c]) * static_cast<double>(of_b[c]);
        sum += 2.0 * below + static_cast<double>(of_a[r]) * static_cast<double>(of_b[r]);
    }
    return sum;
}

// Calls take(first, count) for consecutive pieces of a stratum's rows.
template <class Take>
void for_pieces(const StratifiedRows& rows, std::size_t g, const Worker& worker, Take take) {
    for (std::size_t i = rows.begin(g); i < rows.end(g); i += rows_per_piece) {
        worker.checkpoint();
        take(i, std::min(rows_per_piece, rows.end(g) - i));
    }
}

// Rows of a stratum lie anywhere in the matrix: some columns of one of the next rows after `row`.
void prefetch_row(const UnitRows& unit, std::size_t row, std::size_t begin, std::size_t width) {
    if (row + rows_ahead < unit.rows.size) prefetch(unit.rows.row(row + rows_ahead) + begin, width);
}

// Some columns of the deviations of some rows from `mean`, the mean of their stratum.
template <class T>
void pack_piece(const UnitRows& unit, const double* mean, std::size_t first, std::size_t count,
                std::size_t begin, std::size_t width, T* packed) {
    for (std::size_t row = 0; row < count; ++row) {
        prefetch_row(unit, first + row, begin, width);
        unit.pack_from(mean + begin, first + row, begin, width, packed + row * width);
    }
}

void measure_stratum(const StratifiedRows& rows, std::size_t g, const Worker& worker,
                     const StratumMoments& result) {
    const UnitRows& unit = rows.unit;
    const std::size_t d = unit.width();
    std::vector<double> row(d), sums(d, 0.0);
    double* mean = result.means.row(g);
    // Deviations from the mean of all rows are added up, which loses less than the directions themselves.
    for_pieces(rows, g, worker, [&](std::size_t first, std::size_t count) {
        for (std::size_t i = first; i < first + count; ++i) {
            prefetch_row(unit, i, 0, d);
            unit.pack(i, 0, d, row.data());
            add_row(row.data(), d, sums.data());
        }
    });
    for (std::size_t l = 0; l < d; ++l) mean[l] = unit.mean[l] + sums[l] / static_cast<double>(rows.size(g));
    double square = 0.0, along = 0.0;
    for_pieces(rows, g, worker, [&](std::size_t first, std::size_t count) {
        for (std::size_t i = first; i < first + count; ++i) {
            double found[2];
            prefetch_row(unit, i, 0, d);
            unit.pack_from(mean, i, 0, d, row.data());
            square_and_along(row.data(), mean, d, found);
            square += found[0];
            along += found[1] * found[1];
        }
    });
    result.squares[g] = square;
    result.along[g] = along;
}

// Writes the lower triangle of a symmetric matrix into consecutive elements, in which those beside the
// diagonal stand for two: the product of two such rows is that of the matrices.
template <class T>
void pack_triangle(const T* matrix, std::size_t size, T* packed) {
    for (std::size_t r = 0; r < size; ++r) {
        for (std::size_t c = 0; c < r; ++c) *packed++ = std::numbers::sqrt2_v<T> * matrix[r * size + c];
        *packed++ = matrix[r * size + r];
    }
}

// For two strips of columns, the elements of D_g'D_g where they meet: a row of `scatters` for each stratum.
template <class T>
class StripScatters {
  public:
    StripScatters(const StratifiedRows& rows, MatrixView<const double> means)
        : rows_(rows),
          means_(means),
          strips_(rows.unit.width(), widest(rows.count())),
          scatters_(rows.count() * square(strips_.width(strips_.count() - 1))) {}

    std::size_t strips() const { return strips_.count(); }

    void compute(std::size_t left, std::size_t right, int threads, Monitor& monitor) {
        const std::size_t height = strips_.width(left), width = strips_.width(right);
        elements_ = left == right ? height * (height + 1) / 2 : height * width;
        std::vector<Scratch> scratch(static_cast<std::size_t>(threads));
        parallel_for("strata", rows_.count(), threads, monitor, [&](std::size_t g, const Worker& worker) {
            Scratch& own = scratch[static_cast<std::size_t>(worker.id())];
            own.left.resize(rows_per_piece * height);
            own.right.resize(left == right ? height * height : rows_per_piece * width);
            T* scatter = scatters_.data() + g * elements_;
            for_pieces(rows_, g, worker, [&](std::size_t first, std::size_t count) {
                const T beta = first == rows_.begin(g) ? T{0} : T{1};
                const T* a = pack(left, g, first, count, own.left.data());
                if (left == right) {
                    blas::gram_of_columns(height, count, a, height, beta, own.right.data(), height);
                } else {
                    const T* b = pack(right, g, first, count, own.right.data());
                    blas::multiply_tn(height, width, count, a, height, b, width, beta, scatter, width);
                }
            });
            if (left == right) pack_triangle(own.right.data(), height, scatter);
        });
    }

    // Adds `factor` times the products of the strata's rows, for strata of which the first is not before the
    // second.
    void add_products(double factor, int threads, Monitor& monitor, MatrixView<double> products) const {
        const Strips blocks(rows_.count(), most_strata_per_block);
        std::vector<std::vector<T>> scratch(static_cast<std::size_t>(threads));
        std::vector<std::pair<std::size_t, std::size_t>> pairs;
        for (std::size_t i = 0; i < blocks.count(); ++i) {
            for (std::size_t j = 0; j <= i; ++j) pairs.emplace_back(i, j);
        }
        parallel_for("strata", pairs.size(), threads, monitor, [&](std::size_t task, const Worker& worker) {
            const auto [i, j] = pairs[task];
            const std::size_t g = blocks.begin(i), height = blocks.width(i);
            const std::size_t h = blocks.begin(j), width = blocks.width(j);
            std::vector<T>& sums = scratch[static_cast<std::size_t>(worker.id())];
            sums.resize(std::max(sums.size(), height * width));
            for (std::size_t l = 0; l < elements_; l += depth_of_products) {
                worker.checkpoint();
                const std::size_t depth = std::min(depth_of_products, elements_ - l);
                const T *of_g = scatters_.data() + g * elements_ + l,
                        *of_h = scatters_.data() + h * elements_ + l;
                if (g == h) {
                    blas::gram_of_rows(height, depth, of_g, elements_, T{0}, sums.data(), width);
                } else {
                    blas::multiply_nt(height, width, depth, of_g, elements_, of_h, elements_, T{0},
                                      sums.data(), width);
                }
                for (std::size_t r = 0; r < height; ++r) {
                    double* row = products.row(g + r) + h;
                    const T* of_row = sums.data() + r * width;
                    const std::size_t end = g == h ? r + 1 : width;
                    for (std::size_t c = 0; c < end; ++c) row[c] += factor * static_cast<double>(of_row[c]);
                }
            }
        });
    }

  private:
    struct Scratch {
        AlignedVector<T> left, right;
    };

    static std::size_t square(std::size_t width) { return width * width; }

    static std::size_t widest(std::size_t strata) {
        const double room = static_cast<double>(bytes_of_scatters / sizeof(T)) / static_cast<double>(strata);
        return std::clamp(static_cast<std::size_t>(std::sqrt(room)), std::size_t{1}, widest_strip);
    }

    const T* pack(std::size_t strip, std::size_t g, std::size_t first, std::size_t count, T* packed) const {
        pack_piece(rows_.unit, means_.row(g), first, count, strips_.begin(strip), strips_.width(strip),
                   packed);
        return packed;
    }

    const StratifiedRows& rows_;
    MatrixView<const double> means_;
    Strips strips_;
    AlignedVector<T> scatters_;  // (G, elements)
    std::size_t elements_ = 0;
};

template <class T>
void multiply_scatters(const StratifiedRows& rows, int threads, Monitor& monitor,
                       const StratumMoments& result) {
    const MatrixView<double> means = result.means, products = result.products;
    StripScatters<T> scatters(rows, {means.data, means.rows, means.cols, means.stride});
    for (std::size_t left = 0; left < scatters.strips(); ++left) {
        for (std::size_t right = left; right < scatters.strips(); ++right) {
            scatters.compute(left, right, threads, monitor);
            // Scatters are symmetric: two different strips stand for what is on either side of the diagonal,
            // and so do the elements of one with itself.
            scatters.add_products(left == right ? 1.0 : 2.0, threads, monitor, products);
        }
    }
    for (std::size_t g = 0; g < products.rows; ++g) {
        for (std::size_t h = 0; h < g; ++h) products.row(h)[g] = products.row(g)[h];
    }
}

// |D_g M_g D'_g'|^2, from the products of all pairs of rows, or from M_g'D_g'D_g M_g and D'_g'D'_g where a
// stratum has more rows than b has columns.
template <class T>
class NormOfStratum {
  public:
    NormOfStratum(const StratifiedRows& a, const StratifiedRows& b, const MatrixBetween& between,
                  const std::vector<T>& shared)
        : a_(a), b_(b), between_(between), shared_(shared) {}

    double compute(std::size_t g, const Worker& worker) {
        const std::size_t d_b = b_.unit.width(), n = a_.size(g);
        const bool pairs = n <= d_b;
        moved_.resize(std::min(n, pairs ? n : rows_per_piece) * d_b);
        other_.resize(moved_.size());
        if (!pairs) {
            left_.assign(d_b * d_b, T{0});
            right_.assign(d_b * d_b, T{0});
        }
        for_pieces(a_, g, worker, [&](std::size_t first, std::size_t count) {
            const std::size_t place = pairs ? (first - a_.begin(g)) * d_b : 0;
            move(g, first, count, moved_.data() + place);
            pack_piece(b_.unit, between_.means_b.row(g), first, count, 0, d_b, other_.data() + place);
            if (pairs) return;
            blas::gram_of_columns(d_b, count, moved_.data(), d_b, T{1}, left_.data(), d_b);
            blas::gram_of_columns(d_b, count, other_.data(), d_b, T{1}, right_.data(), d_b);
        });
        if (!pairs) return sum_of_products(left_.data(), right_.data(), d_b);
        left_.resize(std::max(left_.size(), n * n));
        blas::multiply_nt(n, n, d_b, moved_.data(), d_b, other_.data(), d_b, T{0}, left_.data(), n);
        return sum_of_squares(left_.data(), n * n);
    }

  private:
    // Some rows of D_g M_g.
    void move(std::size_t g, std::size_t first, std::size_t count, T* moved) {
        const std::size_t d_a = a_.unit.width(), d_b = b_.unit.width();
        const double* mean = between_.means_a.row(g);
        rows_.resize(rows_per_piece * d_a);
        pack_piece(a_.unit, mean, first, count, 0, d_a, rows_.data());
        blas::multiply_nt(count, d_b, d_a, rows_.data(), d_a, shared_.data(), d_a, T{0}, moved, d_b);
        for (std::size_t r = 0; r < count; ++r) {
            double along = 0.0;
            for (std::size_t l = 0; l < d_a; ++l) along += static_cast<double>(rows_[r * d_a + l]) * mean[l];
            along *= between_.factors[g];
            for (std::size_t l = 0; l < d_b; ++l) {
                moved[r * d_b + l] += static_cast<T>(along * between_.means_b.row(g)[l]);
            }
        }
    }

    const StratifiedRows &a_, &b_;
    const MatrixBetween& between_;
    const std::vector<T>& shared_;  // (d_b, d_a): C transposed
    std::vector<T> rows_, moved_, other_, left_, right_;
};

template <class T>
void norms_of_strata(const StratifiedRows& a, const StratifiedRows& b, const MatrixBetween& between,
                     int threads, Monitor& monitor, std::span<double> norms) {
    const std::size_t d_a = a.unit.width(), d_b = b.unit.width();
    std::vector<T> shared(d_a * d_b);
    for (std::size_t r = 0; r < d_a; ++r) {
        for (std::size_t c = 0; c < d_b; ++c) shared[c * d_a + r] = static_cast<T>(between.shared.row(r)[c]);
    }
    const std::size_t numbers = 4 * d_b * d_b + 2 * rows_per_piece * (d_a + d_b);
    const int workers = useful_workers(a.count(), threads, numbers * sizeof(T));
    std::vector<NormOfStratum<T>> of_worker(static_cast<std::size_t>(workers), {a, b, between, shared});
    parallel_for("strata", a.count(), workers, monitor, [&](std::size_t g, const Worker& worker) {
        norms[g] = of_worker[static_cast<std::size_t>(worker.id())].compute(g, worker);
    });
}

bool in_float32(const StratifiedRows& rows) {
    return rows.unit.rows.size >= rows_for_float32;
}

}  // namespace

void stratum_moments(const StratifiedRows& rows, int threads, Monitor& monitor,
                     const StratumMoments& result) {
    parallel_for("strata", rows.count(), threads, monitor,
                 [&](std::size_t g, const Worker& worker) { measure_stratum(rows, g, worker, result); });
    std::fill_n(result.products.data, result.products.rows * result.products.cols, 0.0);
    if (in_float32(rows)) {
        multiply_scatters<float>(rows, threads, monitor, result);
    } else {
        multiply_scatters<double>(rows, threads, monitor, result);
    }
}

void stratum_norms(const StratifiedRows& a, const StratifiedRows& b, const MatrixBetween& between,
                   int threads, Monitor& monitor, std::span<double> norms) {
    if (in_float32(a)) {
        norms_of_strata<float>(a, b, between, threads, monitor, norms);
    } else {
        norms_of_strata<double>(a, b, between, threads, monitor, norms);
    }
}

}  // namespace embgeom

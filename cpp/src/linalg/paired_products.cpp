#include "embgeom/linalg/paired_products.hpp"

#include <algorithm>
#include <vector>

#include "embgeom/base/aligned.hpp"
#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/strips.hpp"

namespace embgeom {
namespace {

// Tuned by benchmarks/steering/map_fit.py.
constexpr std::size_t widest_strip = 256;
constexpr std::size_t rows_per_task = 16;
constexpr std::size_t bytes_per_slab = std::size_t{32} << 20U;
constexpr std::size_t fewest_rows = 64, most_rows = 512;

EMBGEOM_MULTIVERSION
void scale(const float* row, double factor, std::size_t width, double* scaled) {
    for (std::size_t l = 0; l < width; ++l) scaled[l] = static_cast<double>(row[l]) * factor;
}

EMBGEOM_MULTIVERSION
void add_scaled(const double* row, double factor, std::size_t width, double* sums) {
    for (std::size_t l = 0; l < width; ++l) sums[l] += row[l] * factor;
}

// One side of the pairs, and the slab of its rows that is being multiplied: each strip of columns is a matrix
// of its own, so that a product reads memory in order.
class PackedSide {
  public:
    PackedSide(const RowSet& rows, std::span<const double> factors, std::span<const double> roots,
               std::size_t capacity)
        : rows_(rows),
          factors_(factors),
          roots_(roots),
          capacity_(capacity),
          strips_(rows.matrix.cols, widest_strip),
          values_(capacity * rows.matrix.cols) {}

    const Strips& strips() const { return strips_; }

    // The slab's part of a strip, (capacity, width of the strip).
    const double* values(std::size_t strip) const {
        return values_.data() + capacity_ * strips_.begin(strip);
    }

    // Puts row i into place `row` of the slab.
    void pack(std::size_t i, std::size_t row) {
        double factor = factors_.empty() ? 1.0 : factors_[i];
        if (!roots_.empty()) factor *= roots_[i];
        for (std::size_t s = 0; s < strips_.count(); ++s) {
            const std::size_t begin = strips_.begin(s), width = strips_.width(s);
            scale(rows_.row(i) + begin, factor, width, values_.data() + capacity_ * begin + row * width);
        }
    }

    // Adds up the columns of a strip over the slab, whose first row is row `first` of all.
    void add_to_sum(std::size_t strip, std::size_t first, std::size_t count, std::span<double> sum) const {
        const std::size_t width = strips_.width(strip);
        double* sums = sum.data() + strips_.begin(strip);
        for (std::size_t row = 0; row < count; ++row) {
            const double root = roots_.empty() ? 1.0 : roots_[first + row];
            add_scaled(values(strip) + row * width, root, width, sums);
        }
    }

  private:
    const RowSet& rows_;
    std::span<const double> factors_, roots_;
    std::size_t capacity_;
    Strips strips_;
    AlignedVector<double> values_;
};

// A strip of one side times a strip of the same or the other; or, without a product, its columns' sums.
struct Task {
    const PackedSide *left, *right;
    std::size_t left_strip, right_strip;
    MatrixView<double> product;
    std::span<double> sum;

    void run(std::size_t first, std::size_t count) const {
        if (product.data == nullptr) {
            left->add_to_sum(left_strip, first, count, sum);
            return;
        }
        const std::size_t rows = left->strips().width(left_strip), cols = right->strips().width(right_strip);
        const double *a = left->values(left_strip), *b = right->values(right_strip);
        double* c = product.row(left->strips().begin(left_strip)) + right->strips().begin(right_strip);
        if (left == right && left_strip == right_strip) {
            blas::gram_of_columns(rows, count, a, rows, 1.0, c, product.stride);
        } else {
            blas::multiply_tn(rows, cols, count, a, rows, b, cols, 1.0, c, product.stride);
        }
    }
};

void add_tasks(const PackedSide& left, const PackedSide& right, MatrixView<double> product,
               std::vector<Task>& tasks) {
    for (std::size_t l = 0; l < left.strips().count(); ++l) {
        const std::size_t count = &left == &right ? l + 1 : right.strips().count();
        for (std::size_t r = 0; r < count; ++r) tasks.push_back({&left, &right, l, r, product, {}});
    }
}

void add_tasks(const PackedSide& side, std::span<double> sum, std::vector<Task>& tasks) {
    for (std::size_t s = 0; s < side.strips().count(); ++s) tasks.push_back({&side, &side, s, s, {}, sum});
}

// Only the lower triangle of a symmetric product was computed.
void mirror(MatrixView<double> c) {
    for (std::size_t i = 0; i < c.rows; ++i) {
        for (std::size_t j = 0; j < i; ++j) c.row(j)[i] = c.row(i)[j];
    }
}

void clear(MatrixView<double> c) {
    std::fill_n(c.data, c.rows * c.cols, 0.0);
}

}  // namespace

void paired_products(const PairedRows& pairs, int threads, Monitor& monitor, const PairedProducts& result) {
    const std::size_t n = pairs.x.size;
    const std::size_t width = pairs.x.matrix.cols + pairs.y.matrix.cols;
    const std::size_t capacity =
        std::min(n, std::clamp(bytes_per_slab / (width * sizeof(double)), fewest_rows, most_rows));
    PackedSide x(pairs.x, pairs.x_factors, pairs.roots, capacity);
    PackedSide y(pairs.y, pairs.y_factors, pairs.roots, capacity);

    std::vector<Task> tasks;
    add_tasks(x, y, result.xy, tasks);
    add_tasks(x, x, result.xx, tasks);
    add_tasks(y, y, result.yy, tasks);
    add_tasks(x, result.x_sum, tasks);
    add_tasks(y, result.y_sum, tasks);
    for (const MatrixView<double>& product : {result.xx, result.xy, result.yy}) clear(product);
    std::fill(result.x_sum.begin(), result.x_sum.end(), 0.0);
    std::fill(result.y_sum.begin(), result.y_sum.end(), 0.0);

    SlabMonitor slabs(monitor, n);
    for (std::size_t first = 0; first < n; first += capacity) {
        const std::size_t count = std::min(capacity, n - first);
        parallel_ranges("pack", count, rows_per_task, threads, slabs,
                        [&](std::size_t begin, std::size_t end, const Worker&) {
                            for (std::size_t row = begin; row < end; ++row) {
                                x.pack(first + row, row);
                                y.pack(first + row, row);
                            }
                        });
        parallel_for("multiply", tasks.size(), threads, slabs,
                     [&](std::size_t task, const Worker&) { tasks[task].run(first, count); });
        slabs.advance(count);
    }
    mirror(result.xx);
    mirror(result.yy);
}

}  // namespace embgeom

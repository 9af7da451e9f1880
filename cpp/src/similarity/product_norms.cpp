#include "embgeom/similarity/product_norms.hpp"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"
#include "embgeom/linalg/strips.hpp"

namespace embgeom {
namespace {

// Tuned by benchmarks/kernels/bench_similarity.py.
constexpr std::size_t widest_strip = 384;
constexpr std::size_t strips_per_side = 3;
// The error of float32 grows with the rows of a piece. Four pieces make a group, which is added up in
// float64; odd groups apart from even ones, so that there are enough tasks.
constexpr std::size_t rows_per_piece = 320;
constexpr std::size_t rows_per_group = 4 * rows_per_piece;
constexpr std::size_t rows_per_task = 64;
constexpr std::size_t rows_per_form = 256;
constexpr std::size_t lanes = 8;
constexpr std::size_t fewest_rows_for_float32 = 4096;
constexpr std::size_t bytes_per_slab = std::size_t{1} << 24U;

// A strip of one of the two matrices.
struct UnitStrip {
    const UnitRows* unit;
    std::size_t begin, width;
};

void cut(const UnitRows& unit, std::vector<UnitStrip>& all) {
    const Strips strips(unit.width(), widest_strip);
    for (std::size_t s = 0; s < strips.count(); ++s) all.push_back({&unit, strips.begin(s), strips.width(s)});
}

// The product of one strip with another; or with itself, of which only the lower triangle is computed.
struct StripProduct {
    std::size_t left, right;
    std::vector<double> even{}, odd{};  // sums over the even and the odd groups of rows

    bool on_diagonal() const { return left == right; }
    double cost() const { return static_cast<double>(even.size()) / (on_diagonal() ? 2.0 : 1.0); }

    // Element (row, column) of `into`, (right, left), is that of the product transposed, all of it.
    template <class T>
    void transpose(std::size_t width, std::vector<T>& into) const {
        const std::size_t height = even.size() / width;
        into.resize(even.size());
        for (std::size_t place = 0; place < even.size(); ++place) {
            const std::size_t row = place / width, column = place % width;
            if (on_diagonal() && column > row) continue;
            const T value = static_cast<T>(even[place] + odd[place]);
            into[column * height + row] = value;
            if (on_diagonal()) into[row * height + column] = value;
        }
    }

    // Writes it where the strips' first columns, `row` and `column`, meet; within one matrix on either side
    // of the diagonal.
    void store(std::size_t width, std::size_t row, std::size_t column, bool symmetric,
               const MatrixView<double>& matrix) const {
        for (std::size_t place = 0; place < even.size(); ++place) {
            const std::size_t r = place / width, c = place % width;
            if (on_diagonal() && c > r) continue;
            const double value = even[place] + odd[place];
            matrix.row(row + r)[column + c] = value;
            if (symmetric) matrix.row(column + c)[row + r] = value;
        }
    }

    // A triangle stands for the whole.
    double squared_norm(std::size_t width) const {
        double sum = 0.0;
        for (std::size_t place = 0; place < even.size(); ++place) {
            const double value = even[place] + odd[place];
            sum += (on_diagonal() && place % width < place / width ? 2.0 : 1.0) * value * value;
        }
        return sum;
    }
};

EMBGEOM_MULTIVERSION
void add_floats(const float* values, std::size_t count, double* sums) {
    for (std::size_t l = 0; l < count; ++l) sums[l] += static_cast<double>(values[l]);
}

void add(const float* values, std::size_t count, double* sums) {
    add_floats(values, count, sums);
}

EMBGEOM_MULTIVERSION
void add(const double* values, std::size_t count, double* sums) {
    for (std::size_t l = 0; l < count; ++l) sums[l] += values[l];
}

template <class T>
inline __attribute__((always_inline)) double sum_of_products(const T* a, const T* b, std::size_t count) {
    double sum[lanes] = {};
    std::size_t l = 0;
    for (; l + lanes <= count; l += lanes) {
        for (std::size_t k = 0; k < lanes; ++k) {
            sum[k] += static_cast<double>(a[l + k]) * static_cast<double>(b[l + k]);
        }
    }
    for (std::size_t k = 0; l < count; ++l, ++k) {
        sum[k] += static_cast<double>(a[l]) * static_cast<double>(b[l]);
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

EMBGEOM_MULTIVERSION
double dot_rows(const float* a, const float* b, std::size_t count) {
    return sum_of_products(a, b, count);
}

EMBGEOM_MULTIVERSION
double dot_rows(const double* a, const double* b, std::size_t count) {
    return sum_of_products(a, b, count);
}

// The products of strips [p, p + 3) with strips [q, q + 3), on or above the diagonal.
struct StripSquare {
    std::vector<UnitStrip> strips;
    std::vector<StripProduct> products{};

    StripSquare(const std::vector<UnitStrip>& all, std::size_t p, std::size_t q) {
        const std::size_t p_count = std::min(strips_per_side, all.size() - p);
        const std::size_t q_count = std::min(strips_per_side, all.size() - q);
        for (std::size_t t = 0; t < p_count; ++t) strips.push_back(all[p + t]);
        for (std::size_t t = 0; q != p && t < q_count; ++t) strips.push_back(all[q + t]);
        for (std::size_t left = 0; left < p_count; ++left) {
            for (std::size_t right = q == p ? left : p_count; right < strips.size(); ++right) {
                const std::vector<double> zeros(strips[left].width * strips[right].width, 0.0);
                products.push_back({left, right, zeros, zeros});
            }
        }
        // Largest first, so that the workers finish together.
        std::sort(products.begin(), products.end(), [](const StripProduct& a, const StripProduct& b) {
            if (a.cost() != b.cost()) return a.cost() > b.cost();
            return std::pair(a.left, a.right) < std::pair(b.left, b.right);
        });
    }

    void add_to(ProductNorms& norms, const UnitPair& pair) const {
        for (const StripProduct& product : products) {
            const UnitRows* left = strips[product.left].unit;
            const double norm = product.squared_norm(strips[product.right].width);
            if (left != strips[product.right].unit) {
                norms.ab += norm;
            } else {
                (left == &pair.a ? norms.aa : norms.bb) += product.on_diagonal() ? norm : 2.0 * norm;
            }
        }
    }

    void store(const ProductMatrices& matrices, const UnitPair& pair) const {
        for (const StripProduct& product : products) {
            const UnitStrip &left = strips[product.left], &right = strips[product.right];
            const bool symmetric = left.unit == right.unit;
            const MatrixView<double>& matrix = !symmetric             ? matrices.ab
                                               : left.unit == &pair.a ? matrices.aa
                                                                      : matrices.bb;
            product.store(right.width, left.begin, right.begin, symmetric, matrix);
        }
    }
};

// The strips of a square for a slab of rows, each strip a matrix of its own, so that a product reads memory
// in order.
template <class T>
class PackedSlab {
  public:
    PackedSlab(const StripSquare& square, std::size_t n) : square_(square) {
        std::size_t width = 0;
        for (const UnitStrip& strip : square.strips) {
            offsets_.push_back(width);
            width += strip.width;
        }
        const std::size_t pairs = bytes_per_slab / (2 * rows_per_group * width * sizeof(T));
        capacity_ = std::min(n, std::max(pairs, std::size_t{1}) * 2 * rows_per_group);
        values_ = std::make_unique_for_overwrite<T[]>(capacity_ * width);
    }

    std::size_t rows() const { return rows_; }
    std::size_t capacity() const { return capacity_; }

    void pack(std::size_t first_row, int threads, Monitor& monitor) {
        rows_ = std::min(capacity_, square_.strips[0].unit->rows.size - first_row);
        parallel_ranges("pack", rows_, rows_per_task, threads, monitor,
                        [&](std::size_t begin, std::size_t end, const Worker&) {
                            for (std::size_t row = begin; row < end; ++row) {
                                for (std::size_t s = 0; s < square_.strips.size(); ++s) {
                                    const UnitStrip& strip = square_.strips[s];
                                    strip.unit->pack(first_row + row, strip.begin, strip.width,
                                                     place(s, row));
                                }
                            }
                        });
    }

    // Adds the product over the even or the odd groups of rows.
    void multiply(StripProduct& product, bool odd, std::vector<T>& scratch) const {
        const std::size_t left = square_.strips[product.left].width;
        const std::size_t right = square_.strips[product.right].width;
        std::vector<double>& sums = odd ? product.odd : product.even;
        scratch.resize(std::max(scratch.size(), left * right));
        for (std::size_t begin = odd ? rows_per_group : 0; begin < rows_; begin += 2 * rows_per_group) {
            const std::size_t end = std::min(begin + rows_per_group, rows_);
            for (std::size_t row = begin; row < end; row += rows_per_piece) {
                const std::size_t depth = std::min(rows_per_piece, end - row);
                const T* a = place(product.left, row);
                const T beta = row == begin ? T{0} : T{1};
                if (product.on_diagonal()) {
                    blas::gram_of_columns(left, depth, a, left, beta, scratch.data(), left);
                } else {
                    blas::multiply_tn(left, right, depth, a, left, place(product.right, row), right, beta,
                                      scratch.data(), right);
                }
            }
            for (std::size_t r = 0; r < left; ++r) {
                add(&scratch[r * right], product.on_diagonal() ? r + 1 : right, &sums[r * right]);
            }
        }
    }

    // What rows [begin, end) of the slab have of a product, whose transpose is given, times `factor`.
    void add_forms(const StripProduct& product, const std::vector<T>& transposed, double factor,
                   std::size_t begin, std::size_t end, std::vector<T>& scratch, double* forms) const {
        const std::size_t left = square_.strips[product.left].width;
        const std::size_t right = square_.strips[product.right].width;
        scratch.resize(std::max(scratch.size(), rows_per_form * right));
        blas::multiply_nt(end - begin, right, left, place(product.left, begin), left, transposed.data(), left,
                          T{0}, scratch.data(), right);
        for (std::size_t row = begin; row < end; ++row) {
            const T* of_row = &scratch[(row - begin) * right];
            forms[row - begin] += factor * dot_rows(of_row, place(product.right, row), right);
        }
    }

  private:
    T* place(std::size_t strip, std::size_t row) const {
        return values_.get() + capacity_ * offsets_[strip] + row * square_.strips[strip].width;
    }

    const StripSquare& square_;
    std::vector<std::size_t> offsets_;  // of the strips, in elements for each row
    std::size_t capacity_, rows_ = 0;
    std::unique_ptr<T[]> values_;
};

// Adds to `forms` what each row has of the products of a square.
template <class T>
void add_forms(const StripSquare& square, const UnitPair& pair, PackedSlab<T>& slab,
               std::vector<std::vector<T>>& scratch, int threads, SlabMonitor& slabs, RowForms& forms) {
    struct Form {
        const StripProduct* product;
        std::vector<T> transposed;
        double factor;
        double* rows;
    };
    std::vector<Form> all;
    for (const StripProduct& product : square.products) {
        const UnitRows* left = square.strips[product.left].unit;
        const bool across = left != square.strips[product.right].unit;
        std::vector<double>& rows = across ? forms.ab : left == &pair.a ? forms.aa : forms.bb;
        all.push_back({&product, {}, across || product.on_diagonal() ? 1.0 : 2.0, rows.data()});
        product.transpose(square.strips[product.right].width, all.back().transposed);
    }
    for (std::size_t first = 0; first < pair.a.rows.size; first += slab.capacity()) {
        slab.pack(first, threads, slabs);
        parallel_ranges("multiply", slab.rows(), rows_per_form, threads, slabs,
                        [&](std::size_t begin, std::size_t end, const Worker& worker) {
                            for (const Form& form : all) {
                                slab.add_forms(*form.product, form.transposed, form.factor, begin, end,
                                               scratch[static_cast<std::size_t>(worker.id())],
                                               form.rows + first + begin);
                            }
                        });
        slabs.advance(slab.rows());
    }
}

template <class T>
void multiply(StripSquare& square, const UnitPair& pair, int threads, SlabMonitor& slabs, RowForms* forms) {
    const std::size_t n = pair.a.rows.size;
    PackedSlab<T> slab(square, n);
    std::vector<std::vector<T>> scratch(static_cast<std::size_t>(threads));
    for (std::size_t row = 0; row < n; row += slab.capacity()) {
        slab.pack(row, threads, slabs);
        parallel_for("multiply", 2 * square.products.size(), threads, slabs,
                     [&](std::size_t task, const Worker& worker) {
                         slab.multiply(square.products[task / 2], task % 2 == 1,
                                       scratch[static_cast<std::size_t>(worker.id())]);
                     });
        slabs.advance(slab.rows());
    }
    if (forms != nullptr) add_forms(square, pair, slab, scratch, threads, slabs, *forms);
}

template <class T>
ProductNorms norms_of_products(const UnitPair& pair, int threads, Monitor& monitor, RowForms* forms,
                               const ProductMatrices* matrices) {
    std::vector<UnitStrip> strips;
    cut(pair.a, strips);
    cut(pair.b, strips);
    ProductNorms norms;
    const std::size_t n = pair.a.rows.size;
    const std::size_t sides = divide_up(strips.size(), strips_per_side);
    SlabMonitor slabs(monitor, sides * (sides + 1) / 2 * n * (forms == nullptr ? 1 : 2));
    if (forms != nullptr) {
        for (auto* rows : {&forms->aa, &forms->ab, &forms->bb}) rows->assign(n, 0.0);
    }
    for (std::size_t p = 0; p < strips.size(); p += strips_per_side) {
        for (std::size_t q = p; q < strips.size(); q += strips_per_side) {
            StripSquare square(strips, p, q);
            multiply<T>(square, pair, threads, slabs, forms);
            square.add_to(norms, pair);
            if (matrices != nullptr) square.store(*matrices, pair);
        }
    }
    return norms;
}

}  // namespace

ProductNorms product_norms(const UnitPair& pair, int threads, Monitor& monitor, RowForms* forms,
                           const ProductMatrices* matrices) {
    // For few rows the error of float32 products would be too large compared with the sums without the
    // diagonal.
    const bool fast =
        pair.used >= fewest_rows_for_float32 && pair.used >= 2 * std::max(pair.a.width(), pair.b.width());
    return fast ? norms_of_products<float>(pair, threads, monitor, forms, matrices)
                : norms_of_products<double>(pair, threads, monitor, forms, matrices);
}

}  // namespace embgeom

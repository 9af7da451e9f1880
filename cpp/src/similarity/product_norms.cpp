#include "embgeom/similarity/product_norms.hpp"

#include <algorithm>
#include <memory>
#include <vector>

#include "embgeom/base/multiversion.hpp"
#include "embgeom/base/walk.hpp"
#include "embgeom/linalg/blas.hpp"

namespace embgeom {
namespace {

constexpr std::size_t widest_strip = 384;
constexpr std::size_t strips_per_block = 3;
// Sums over a piece are what the error of float32 grows with. Four pieces make a group, which is added up in
// float64; odd groups apart from even ones, so that there are tasks enough.
constexpr std::size_t rows_per_piece = 320;
constexpr std::size_t rows_per_group = 4 * rows_per_piece;
constexpr std::size_t rows_per_task = 64;
constexpr std::size_t bytes_per_slab = std::size_t{1} << 24U;

// Some columns of one of the two matrices.
struct Strip {
    const UnitRows* unit;
    std::size_t begin, end;

    std::size_t width() const { return end - begin; }
};

// Strips of nearly equal width, so that none is so narrow that its products are slow.
void cut(const UnitRows& unit, std::vector<Strip>& strips) {
    const std::size_t count = (unit.width() + widest_strip - 1) / widest_strip;
    for (std::size_t t = 0; t < count; ++t) {
        strips.push_back({&unit, t * unit.width() / count, (t + 1) * unit.width() / count});
    }
}

// A tile of a product: one strip against another; or against itself, where only the lower triangle is
// computed.
struct Tile {
    std::size_t left, right;
    std::vector<double> even{}, odd{};  // sums over the even and the odd groups of rows

    bool on_diagonal() const { return left == right; }
    double cost() const { return static_cast<double>(even.size()) / (on_diagonal() ? 2.0 : 1.0); }

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

// A square of tiles on or above the diagonal: strips [p, p + 3) against strips [q, q + 3).
struct Block {
    std::vector<Strip> strips;
    std::vector<Tile> tiles{};

    Block(const std::vector<Strip>& all, std::size_t p, std::size_t q) {
        const std::size_t p_count = std::min(strips_per_block, all.size() - p);
        const std::size_t q_count = std::min(strips_per_block, all.size() - q);
        for (std::size_t t = 0; t < p_count; ++t) strips.push_back(all[p + t]);
        for (std::size_t t = 0; q != p && t < q_count; ++t) strips.push_back(all[q + t]);
        for (std::size_t left = 0; left < p_count; ++left) {
            for (std::size_t right = q == p ? left : p_count; right < strips.size(); ++right) {
                const std::vector<double> zeros(strips[left].width() * strips[right].width(), 0.0);
                tiles.push_back({left, right, zeros, zeros});
            }
        }
        // Largest first, so that the workers come to an end together.
        std::stable_sort(tiles.begin(), tiles.end(),
                         [](const Tile& one, const Tile& other) { return one.cost() > other.cost(); });
    }

    void add_to(ProductNorms& norms, const UnitPair& pair) const {
        for (const Tile& tile : tiles) {
            const UnitRows* left = strips[tile.left].unit;
            const double norm = tile.squared_norm(strips[tile.right].width());
            if (left != strips[tile.right].unit) {
                norms.ab += norm;
            } else {
                (left == &pair.a ? norms.aa : norms.bb) += tile.on_diagonal() ? norm : 2.0 * norm;
            }
        }
    }
};

// The strips of a block for a slab of rows, each strip a matrix of its own: a product then reads memory in
// order.
template <class T>
class PackedSlab {
  public:
    PackedSlab(const Block& block, std::size_t n) : block_(block) {
        std::size_t width = 0;
        for (const Strip& strip : block.strips) {
            offsets_.push_back(width);
            width += strip.width();
        }
        const std::size_t pairs = bytes_per_slab / (2 * rows_per_group * width * sizeof(T));
        capacity_ = std::min(n, std::max(pairs, std::size_t{1}) * 2 * rows_per_group);
        values_ = std::make_unique_for_overwrite<T[]>(capacity_ * width);
    }

    std::size_t rows() const { return rows_; }
    std::size_t capacity() const { return capacity_; }

    void pack(std::size_t first_row, int threads, Monitor& monitor) {
        rows_ = std::min(capacity_, block_.strips[0].unit->rows.size - first_row);
        parallel_ranges("pack", rows_, rows_per_task, threads, monitor,
                        [&](std::size_t begin, std::size_t end, const Worker&) {
                            for (std::size_t row = begin; row < end; ++row) {
                                for (std::size_t s = 0; s < block_.strips.size(); ++s) {
                                    const Strip& strip = block_.strips[s];
                                    strip.unit->pack(first_row + row, strip.begin, strip.end, place(s, row));
                                }
                            }
                        });
    }

    // Adds the product over the even or the odd groups of rows.
    void multiply(Tile& tile, bool odd, std::vector<T>& product) const {
        const std::size_t left = block_.strips[tile.left].width(), right = block_.strips[tile.right].width();
        std::vector<double>& sums = odd ? tile.odd : tile.even;
        product.resize(std::max(product.size(), left * right));
        for (std::size_t begin = odd ? rows_per_group : 0; begin < rows_; begin += 2 * rows_per_group) {
            const std::size_t end = std::min(begin + rows_per_group, rows_);
            for (std::size_t row = begin; row < end; row += rows_per_piece) {
                const std::size_t depth = std::min(rows_per_piece, end - row);
                const T* a = place(tile.left, row);
                const T beta = row == begin ? T{0} : T{1};
                if (tile.on_diagonal()) {
                    blas::gram_of_columns(left, depth, a, left, beta, product.data(), left);
                } else {
                    blas::multiply_tn(left, right, depth, a, left, place(tile.right, row), right, beta,
                                      product.data(), right);
                }
            }
            for (std::size_t r = 0; r < left; ++r) {
                add(&product[r * right], tile.on_diagonal() ? r + 1 : right, &sums[r * right]);
            }
        }
    }

  private:
    T* place(std::size_t strip, std::size_t row) const {
        return values_.get() + capacity_ * offsets_[strip] + row * block_.strips[strip].width();
    }

    const Block& block_;
    std::vector<std::size_t> offsets_;  // of the strips, in elements for each row
    std::size_t capacity_, rows_ = 0;
    std::unique_ptr<T[]> values_;
};

template <class T>
void multiply(Block& block, std::size_t n, int threads, Walk& walk) {
    PackedSlab<T> slab(block, n);
    std::vector<std::vector<T>> products(static_cast<std::size_t>(threads));
    for (std::size_t row = 0; row < n; row += slab.capacity()) {
        slab.pack(row, threads, walk);
        parallel_for("multiply", 2 * block.tiles.size(), threads, walk,
                     [&](std::size_t task, const Worker& worker) {
                         slab.multiply(block.tiles[task / 2], task % 2 == 1,
                                       products[static_cast<std::size_t>(worker.id())]);
                     });
        walk.advance(slab.rows());
    }
}

template <class T>
ProductNorms product_norms(const UnitPair& pair, int threads, Monitor& monitor) {
    std::vector<Strip> strips;
    cut(pair.a, strips);
    cut(pair.b, strips);
    ProductNorms norms;
    const std::size_t n = pair.a.rows.size;
    const std::size_t sides = (strips.size() + strips_per_block - 1) / strips_per_block;
    Walk walk(monitor, sides * (sides + 1) / 2 * n);
    for (std::size_t p = 0; p < strips.size(); p += strips_per_block) {
        for (std::size_t q = p; q < strips.size(); q += strips_per_block) {
            Block block(strips, p, q);
            multiply<T>(block, n, threads, walk);
            block.add_to(norms, pair);
        }
    }
    return norms;
}

}  // namespace

ProductNorms product_norms_float32(const UnitPair& pair, int threads, Monitor& monitor) {
    return product_norms<float>(pair, threads, monitor);
}

ProductNorms product_norms_float64(const UnitPair& pair, int threads, Monitor& monitor) {
    return product_norms<double>(pair, threads, monitor);
}

}  // namespace embgeom

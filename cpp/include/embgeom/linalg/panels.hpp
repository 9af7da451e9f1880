#pragma once

#include <algorithm>
#include <cstddef>

#include "embgeom/base/aligned.hpp"

namespace embgeom {

// The depth of one float32 product: deeper rows are multiplied piece by piece and the pieces added up, which
// keeps the proven error bound small (see docs/numerics.md). A piece of a panel stays in the first-level
// cache. Tuned by benchmarks/kernels/bench_knn.py.
constexpr std::size_t product_depth = 256;

enum class Side { left, right };

// One side of a float32 product A B' of rows of d coordinates, packed in the order in which the product reads
// it: for each piece of the coordinates, panel after panel of some rows (six on the left and sixteen on the
// right, or twice that, as many as vector registers hold sums for); within a panel coordinate by coordinate,
// the panel's rows side by side. The last panel is filled up with rows of zeros.
//
// BLAS packs the rows again in each call; here a block is packed once for all the products that it takes part
// in. On a processor without AVX2, BLAS multiplies, and panels are single rows.
class Panels {
  public:
    // How many floats `most` rows of d coordinates take.
    static std::size_t room(Side side, std::size_t most, std::size_t d);

    // For rows of d coordinates, to be packed in `room`, which outlives the panels.
    Panels(Side side, std::size_t d, float* room);

    // How many rows `count` rows take with their padding. A product has that many rows and columns.
    static std::size_t padded(Side side, std::size_t count);

    // Packs `count` rows; fill(place, begin, width, out) writes `width` coordinates of a row from `begin` on.
    template <class Fill>
    void pack(std::size_t count, Fill fill) {
        count_ = count;
        for (std::size_t panel = 0; panel < count; panel += panel_) {
            for (std::size_t begin = 0; begin < d_; begin += product_depth) {
                const std::size_t width = std::min(product_depth, d_ - begin);
                for (std::size_t r = 0; r < panel_; ++r) {
                    float* out = rows_.data() + r * width;
                    if (panel + r < count) {
                        fill(panel + r, begin, width, out);
                    } else {
                        std::fill_n(out, width, 0.0F);
                    }
                }
                interleave(rows_.data(), width, values_ + padded(side_, count_) * begin + panel * width);
            }
        }
    }

    // Packs the `count` rows of a matrix (count, d), or the columns of one (d, count) whose rows lie `stride`
    // apart; d is at most `product_depth`.
    void pack_rows(std::size_t count, const float* matrix);
    void pack_columns(std::size_t count, const float* matrix, std::size_t stride);

    std::size_t count() const { return count_; }

    friend void multiply_piece(const Panels& left, const Panels& right, std::size_t begin, float* products,
                               std::size_t stride);
    friend void add_lower_triangle(const Panels& left, const Panels& right, float* c, std::size_t stride);

  private:
    void interleave(const float* rows, std::size_t width, float* out) const;

    // The piece that begins at a coordinate.
    const float* piece(std::size_t begin) const { return values_ + padded(side_, count_) * begin; }

    Side side_;
    std::size_t d_, panel_, count_ = 0;
    AlignedVector<float> rows_;  // a piece of one panel, before it is interleaved
    float* values_;              // packed
};

// The product of the coordinates from `begin` on, a multiple of `product_depth`, to the end of the piece:
// products_ij for all rows i on the left and j on the right, `stride` apart, to which pieces but the first
// are added. Padding is multiplied, too, so there must be room for it.
void multiply_piece(const Panels& left, const Panels& right, std::size_t begin, float* products,
                    std::size_t stride);

// Adds the product of some rows with themselves, packed for either side and at most `product_depth` deep, to
// the lower triangle of c (count, count); what lies above it is left undefined. `stride` is at least `count`,
// and c has `triangle_room(count, stride)` floats: zeros, the products of padding, are added to what follows
// a row.
void add_lower_triangle(const Panels& left, const Panels& right, float* c, std::size_t stride);
std::size_t triangle_room(std::size_t count, std::size_t stride);

}  // namespace embgeom

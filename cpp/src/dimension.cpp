#include "embgeom/dimension.hpp"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "embgeom/blas.hpp"
#include "embgeom/rows.hpp"

namespace embgeom {
namespace {

constexpr std::size_t coordinates_per_piece = 512;
constexpr std::size_t neighbors_per_piece = 256;

struct Workspace {
    std::vector<double> centered;     // a piece of Z
    std::vector<double> mean;         // of the neighbors, over the piece's coordinates
    std::vector<double> gram;         // (p, p), lower triangle
    std::vector<double> eigenvalues;  // (p)
    std::vector<double> work;         // of a factorization
    std::vector<std::int32_t> list;   // the token's neighbors
    std::vector<std::int64_t> equal;
};

struct Dimension {
    std::int32_t components;
    double participation_ratio;
    double explained;
};

class Spectrum {
  public:
    explicit Spectrum(const Neighborhoods& neighborhoods)
        : x_(neighborhoods.tokens.matrix), k_(neighborhoods.neighbors.cols), order_(std::min(k_, x_.cols)) {}

    // Fills space.eigenvalues, in ascending order, for one list of neighbors.
    void compute(const std::int32_t* neighbors, Workspace& space) const {
        space.gram.assign(order_ * order_, 0.0);
        space.eigenvalues.resize(order_);
        if (k_ <= x_.cols) {
            add_pieces_of_coordinates(neighbors, space);
        } else {
            add_pieces_of_neighbors(neighbors, space);
        }
        blas::eigenvalues(order_, space.gram.data(), space.eigenvalues.data(), space.work);
    }

  private:
    const float* neighbor(const std::int32_t* neighbors, std::size_t j) const {
        return x_.row(static_cast<std::size_t>(neighbors[j]));
    }

    void fill_mean(const std::int32_t* neighbors, std::size_t begin, std::size_t width,
                   Workspace& space) const {
        space.mean.assign(width, 0.0);
        for (std::size_t j = 0; j < k_; ++j) {
            const float* row = neighbor(neighbors, j) + begin;
            for (std::size_t l = 0; l < width; ++l) space.mean[l] += static_cast<double>(row[l]);
        }
        for (double& value : space.mean) value /= static_cast<double>(k_);
    }

    void center(const float* row, Workspace& space, double* centered) const {
        for (std::size_t l = 0; l < space.mean.size(); ++l)
            centered[l] = static_cast<double>(row[l]) - space.mean[l];
    }

    // Z Z' is a sum over coordinates.
    void add_pieces_of_coordinates(const std::int32_t* neighbors, Workspace& space) const {
        for (std::size_t begin = 0; begin < x_.cols; begin += coordinates_per_piece) {
            const std::size_t width = std::min(coordinates_per_piece, x_.cols - begin);
            fill_mean(neighbors, begin, width, space);
            space.centered.resize(k_ * width);
            for (std::size_t j = 0; j < k_; ++j) {
                center(neighbor(neighbors, j) + begin, space, &space.centered[j * width]);
            }
            blas::add_gram(k_, width, space.centered.data(), width, space.gram.data(), order_);
        }
    }

    // Z'Z is a sum over neighbors.
    void add_pieces_of_neighbors(const std::int32_t* neighbors, Workspace& space) const {
        const std::size_t d = x_.cols;
        fill_mean(neighbors, 0, d, space);
        space.centered.resize(std::min(neighbors_per_piece, k_) * d);
        for (std::size_t begin = 0; begin < k_; begin += neighbors_per_piece) {
            const std::size_t count = std::min(neighbors_per_piece, k_ - begin);
            for (std::size_t j = 0; j < count; ++j) {
                center(neighbor(neighbors, begin + j), space, &space.centered[j * d]);
            }
            blas::add_gram_of_columns(d, count, space.centered.data(), d, space.gram.data(), order_);
        }
    }

    MatrixView<const float> x_;
    std::size_t k_;
    std::size_t order_;
};

Dimension summarize(std::vector<double>& eigenvalues, double variance) {
    // Rounding leaves some of the zero eigenvalues slightly negative.
    for (double& value : eigenvalues) value = std::max(value, 0.0);
    const double total = std::accumulate(eigenvalues.begin(), eigenvalues.end(), 0.0);
    const double squares =
        std::inner_product(eigenvalues.begin(), eigenvalues.end(), eigenvalues.begin(), 0.0);
    // Without this allowance a variance of 1 would count eigenvalues that are nothing but rounding.
    const double rounding = static_cast<double>(eigenvalues.size()) * std::numeric_limits<double>::epsilon();
    const double wanted = (variance - rounding) * total;
    double reached = 0.0;
    std::int32_t components = 0;
    for (auto value = eigenvalues.rbegin();
         value != eigenvalues.rend() && (components == 0 || reached < wanted); ++value) {
        reached += *value;
        ++components;
    }
    return {components, total * total / squares, reached / total};
}

}  // namespace

void intrinsic_dimension(const Neighborhoods& neighborhoods, double variance, int threads, Monitor& monitor,
                         const DimensionResult& result) {
    const MatrixView<const float> x = neighborhoods.tokens.matrix;
    const std::vector<std::int64_t> first_equal = first_equal_rows(x, "x", threads, monitor);
    const Spectrum spectrum(neighborhoods);

    std::vector<Workspace> spaces(static_cast<std::size_t>(threads));
    parallel_for("decompose", neighborhoods.neighbors.rows, threads, monitor,
                 [&](std::size_t i, const Worker& worker) {
                     Workspace& space = spaces[static_cast<std::size_t>(worker.id())];
                     constexpr double nan = std::numeric_limits<double>::quiet_NaN();
                     Dimension dimension{-1, nan, nan};
                     if (take_neighbors(neighborhoods, i, space.list)) {
                         if (distinct_neighbors(space.list, first_equal, space.equal) == 1) {
                             dimension = {0, 0.0, 1.0};
                         } else {
                             spectrum.compute(space.list.data(), space);
                             dimension = summarize(space.eigenvalues, variance);
                         }
                     }
                     result.components[i] = dimension.components;
                     result.participation_ratio[i] = static_cast<float>(dimension.participation_ratio);
                     result.explained[i] = static_cast<float>(dimension.explained);
                 });
}

}  // namespace embgeom

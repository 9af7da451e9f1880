#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace embgeom {

// A matrix that somebody else owns: rows lie `stride` elements apart, the elements of a row side by side.
// Kernels know this, a span for a vector, and no other arrays.
template <class T>
struct MatrixView {
    T* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::size_t stride = 0;

    T* row(std::size_t i) const { return data + i * stride; }
};

// Rows of a matrix in a given order: all of them, or those that `selection` lists. Kernels number the rows of
// a set from 0; `row_number` gives the row of the matrix.
struct RowSet {
    MatrixView<const float> matrix;
    std::optional<std::span<const std::int64_t>> selection = std::nullopt;
    std::size_t size = 0;

    static RowSet all(MatrixView<const float> matrix) { return {matrix, std::nullopt, matrix.rows}; }
    static RowSet selected(MatrixView<const float> matrix, std::span<const std::int64_t> rows) {
        return {matrix, rows, rows.size()};
    }

    std::size_t row_number(std::size_t i) const {
        return selection ? static_cast<std::size_t>((*selection)[i]) : i;
    }
    const float* row(std::size_t i) const { return matrix.row(row_number(i)); }
};

}  // namespace embgeom

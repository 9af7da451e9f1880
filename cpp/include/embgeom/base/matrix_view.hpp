#pragma once

#include <cstddef>
#include <cstdint>

namespace embgeom {

// A matrix that somebody else owns: rows lie `stride` elements apart, elements of a row lie side by side.
// This is the only array that kernels know.
template <class T>
struct MatrixView {
    T* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::size_t stride = 0;

    T* row(std::size_t i) const { return data + i * stride; }
};

// Rows of a matrix in a given order: all of them, or those that `selection` lists.
// Kernels number the rows of a set from 0; `row_number` tells which row of the matrix that is.
struct RowSet {
    MatrixView<const float> matrix;
    const std::int64_t* selection = nullptr;
    std::size_t size = 0;

    static RowSet all(MatrixView<const float> matrix) { return {matrix, nullptr, matrix.rows}; }

    std::size_t row_number(std::size_t i) const {
        return selection == nullptr ? i : static_cast<std::size_t>(selection[i]);
    }
    const float* row(std::size_t i) const { return matrix.row(row_number(i)); }
};

}  // namespace embgeom

#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <vector>

#include "embgeom/base/aligned.hpp"
#include "embgeom/base/matrix_view.hpp"

// Every array type that crosses the border to Python, named once. Inputs are taken as they are:
// python/embgeom/_common/arrays.py has made them C-contiguous and of these types; nothing is converted here.
namespace embgeom::bindings {

namespace py = pybind11;

using Rows = py::array_t<float, py::array::c_style>;                 // (n, d)
using NeighborList = py::array_t<std::int32_t, py::array::c_style>;  // (m, k)
using RowNumbers = py::array_t<std::int64_t, py::array::c_style>;    // (m)

using Floats = py::array_t<float>;
using Doubles = py::array_t<double>;
using Integers = py::array_t<std::int32_t>;
using LongIntegers = py::array_t<std::int64_t>;
using Bytes = py::array_t<std::uint8_t>;
using Flags = py::array_t<bool>;

template <class T>
MatrixView<const T> view(const py::array_t<T, py::array::c_style>& array) {
    const auto rows = static_cast<std::size_t>(array.shape(0));
    const auto cols = static_cast<std::size_t>(array.shape(1));
    return {array.data(), rows, cols, cols};
}

template <class T>
MatrixView<T> mutable_view(py::array_t<T>& array) {
    const auto rows = static_cast<std::size_t>(array.shape(0));
    const auto cols = static_cast<std::size_t>(array.shape(1));
    return {array.mutable_data(), rows, cols, cols};
}

template <class T, int Flags>
std::span<const T> span_of(const py::array_t<T, Flags>& array) {
    return {array.data(), static_cast<std::size_t>(array.size())};
}

template <class T>
std::span<T> mutable_span(py::array_t<T>& array) {
    return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

inline RowSet row_set(const Rows& x, const std::optional<RowNumbers>& selection) {
    return selection ? RowSet::selected(view(x), span_of(*selection)) : RowSet::all(view(x));
}

template <class T>
py::array_t<T> copy_to_array(const std::vector<T>& values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// A matrix that a kernel fills wider than the result, using the rest as workspace: afterwards the rows move
// together, the rest goes back to the system, and NumPy owns the result without a copy.
template <class T>
class WideMatrix {
  public:
    WideMatrix(std::size_t rows, std::size_t cols)
        : rows_(rows), cols_(cols), data_(static_cast<T*>(std::malloc(rows * cols * sizeof(T)))) {
        if (data_ == nullptr && rows * cols > 0) throw std::bad_alloc();
        ask_for_large_pages(data_.get(), rows * cols * sizeof(T));
    }

    MatrixView<T> view() { return {data_.get(), rows_, cols_, cols_}; }

    py::array_t<T> keep_columns(std::size_t kept) {
        for (std::size_t i = 1; i < rows_; ++i) {
            std::memmove(data_.get() + i * kept, data_.get() + i * cols_, kept * sizeof(T));
        }
        if (void* shrunk = std::realloc(data_.get(), rows_ * kept * sizeof(T))) {
            static_cast<void>(data_.release());
            data_.reset(static_cast<T*>(shrunk));
        }
        const py::capsule owner(data_.get(), [](void* data) { std::free(data); });
        T* data = data_.release();
        return py::array_t<T>({rows_, kept}, data, owner);
    }

  private:
    struct Free {
        void operator()(T* data) const { std::free(data); }
    };

    std::size_t rows_, cols_;
    std::unique_ptr<T, Free> data_;
};

}  // namespace embgeom::bindings

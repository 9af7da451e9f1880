#include "arrays.hpp"
#include "embgeom/linalg/paired_products.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

using Factors = py::array_t<double, py::array::c_style>;  // (n)

std::span<const double> span_or_empty(const std::optional<Factors>& factors) {
    return factors ? span_of(*factors) : std::span<const double>();
}

std::tuple<Doubles, Doubles, Doubles, Doubles, Doubles> products_of_pairs(
    const Rows& x, const Rows& y, const RowNumbers& x_rows, const RowNumbers& y_rows,
    const std::optional<Factors>& x_factors, const std::optional<Factors>& y_factors,
    const std::optional<Factors>& roots, int threads, const py::object& progress) {
    Doubles xx({x.shape(1), x.shape(1)}), yy({y.shape(1), y.shape(1)});
    Doubles xy({x.shape(1), y.shape(1)}), x_sum(x.shape(1)), y_sum(y.shape(1));
    const PairedProducts result{.xx = mutable_view(xx),
                                .xy = mutable_view(xy),
                                .yy = mutable_view(yy),
                                .x_sum = mutable_span(x_sum),
                                .y_sum = mutable_span(y_sum)};
    run_unlocked(progress, [&](Monitor& monitor) {
        paired_products({.x = row_set(x, x_rows),
                         .y = row_set(y, y_rows),
                         .x_factors = span_or_empty(x_factors),
                         .y_factors = span_or_empty(y_factors),
                         .roots = span_or_empty(roots)},
                        threads, monitor, result);
    });
    return {xx, xy, yy, x_sum, y_sum};
}

}  // namespace

void bind_paired_products(py::module_& module) {
    module.def("paired_products", &products_of_pairs,
               "Sums of products of paired rows, from which a linear map is fitted.",
               py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("x_rows").noconvert(),
               py::arg("y_rows").noconvert(), py::kw_only(), py::arg("x_factors").noconvert(),
               py::arg("y_factors").noconvert(), py::arg("roots").noconvert(), py::arg("threads"),
               py::arg("progress"));
}

}  // namespace embgeom::bindings

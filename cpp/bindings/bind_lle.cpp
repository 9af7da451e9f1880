#include "arrays.hpp"
#include "embgeom/neighborhoods/lle.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

std::tuple<Floats, Floats, Bytes> reconstruction_weights(const Rows& x, const NeighborList& neighbors,
                                                         const std::optional<RowNumbers>& rows, double reg,
                                                         int threads, const py::object& progress) {
    Floats weights({neighbors.shape(0), neighbors.shape(1)});
    Floats residuals(neighbors.shape(0));
    Bytes status(neighbors.shape(0));
    const LleResult result{.weights = mutable_view(weights),
                           .residuals = mutable_span(residuals),
                           .status = mutable_span(status)};
    run_unlocked(progress, [&](Monitor& monitor) {
        lle({row_set(x, rows), view(neighbors)}, reg, threads, monitor, result);
    });
    return {weights, residuals, status};
}

}  // namespace

void bind_lle(py::module_& module) {
    module.def("lle", &reconstruction_weights, "Reconstruction weights of tokens over their neighbors.",
               py::arg("x").noconvert(), py::arg("neighbors").noconvert(), py::arg("rows").noconvert(),
               py::kw_only(), py::arg("reg"), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

#include "arrays.hpp"
#include "embgeom/neighborhoods/dimension.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

std::tuple<Integers, Floats, Floats, Flags> dimension_of_neighborhoods(const Rows& x,
                                                                       const NeighborList& neighbors,
                                                                       const std::optional<RowNumbers>& rows,
                                                                       double variance, int threads,
                                                                       const py::object& progress) {
    Integers n_components(neighbors.shape(0));
    Floats participation_ratio(neighbors.shape(0));
    Floats explained_variance_ratio(neighbors.shape(0));
    Flags decided_in_float64(neighbors.shape(0));
    const IntrinsicDimensionResult result{.n_components = mutable_span(n_components),
                                          .participation_ratio = mutable_span(participation_ratio),
                                          .explained_variance_ratio = mutable_span(explained_variance_ratio),
                                          .decided_in_float64 = mutable_span(decided_in_float64)};
    run_unlocked(progress, [&](Monitor& monitor) {
        intrinsic_dimension({row_set(x, rows), view(neighbors)}, variance, threads, monitor, result);
    });
    return {n_components, participation_ratio, explained_variance_ratio, decided_in_float64};
}

}  // namespace

void bind_dimension(py::module_& module) {
    module.def("intrinsic_dimension", &dimension_of_neighborhoods,
               "How many principal components explain a share of the variance of each token's neighbors.",
               py::arg("x").noconvert(), py::arg("neighbors").noconvert(), py::arg("rows").noconvert(),
               py::kw_only(), py::arg("variance"), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

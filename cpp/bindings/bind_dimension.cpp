#include "arrays.hpp"
#include "embgeom/neighborhoods/dimension.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

std::tuple<Integers, Floats, Floats> dimension_of_neighborhoods(const Rows& x, const NeighborList& neighbors,
                                                                const std::optional<RowNumbers>& rows,
                                                                double variance, int threads,
                                                                const py::object& progress) {
    Integers components(neighbors.shape(0));
    Floats participation_ratio(neighbors.shape(0));
    Floats explained(neighbors.shape(0));
    const DimensionResult result{.components = components.mutable_data(),
                                 .participation_ratio = participation_ratio.mutable_data(),
                                 .explained = explained.mutable_data()};
    run_unlocked(progress, [&](Monitor& monitor) {
        intrinsic_dimension({row_set(x, rows), view(neighbors)}, variance, threads, monitor, result);
    });
    return {components, participation_ratio, explained};
}

}  // namespace

void bind_dimension(py::module_& module) {
    module.def("intrinsic_dimension", &dimension_of_neighborhoods,
               "Principal components that tokens' neighbors need for a share of their variance.",
               py::arg("x").noconvert(), py::arg("neighbors").noconvert(), py::arg("rows").noconvert(),
               py::kw_only(), py::arg("variance"), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

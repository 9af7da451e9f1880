#include "arrays.hpp"
#include "embgeom/neighborhoods/agreement.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

using Values = py::array_t<double, py::array::c_style>;  // (n, k)

ListedValues listed(const NeighborList& neighbors, const std::optional<Values>& values) {
    return {view(neighbors), values ? view(*values) : MatrixView<const double>()};
}

Integers positions_in_lists(const NeighborList& a, const NeighborList& b, int threads,
                            const py::object& progress) {
    Integers result({a.shape(0), a.shape(1)});
    const MatrixView<std::int32_t> into = mutable_view(result);
    run_unlocked(progress, [&](Monitor& monitor) { positions(view(a), view(b), threads, monitor, into); });
    return result;
}

Doubles agreement_of_relabeled(const NeighborList& a, const std::optional<Values>& values_a,
                               const NeighborList& b, const std::optional<Values>& values_b,
                               const NeighborList& labels, int threads, const py::object& progress) {
    Doubles sums(labels.shape(0));
    const std::span<double> into = mutable_span(sums);
    run_unlocked(progress, [&](Monitor& monitor) {
        relabeled_agreement(listed(a, values_a), listed(b, values_b), view(labels), threads, monitor, into);
    });
    return sums;
}

}  // namespace

void bind_agreement(py::module_& module) {
    module.def("positions", &positions_in_lists, "The place of each neighbor in another list.",
               py::arg("a").noconvert(), py::arg("b").noconvert(), py::kw_only(), py::arg("threads"),
               py::arg("progress"));
    module.def("relabeled_agreement", &agreement_of_relabeled,
               "How far two lists of neighbors agree when tokens are relabeled.", py::arg("a").noconvert(),
               py::arg("values_a").noconvert(), py::arg("b").noconvert(), py::arg("values_b").noconvert(),
               py::arg("labels").noconvert(), py::kw_only(), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

#include "arrays.hpp"
#include "embgeom/linalg/tridiagonal_form.hpp"
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

std::tuple<Doubles, Doubles> shares_of_float32(const Rows& x, const std::vector<std::int32_t>& list) {
    const auto order = std::min<py::ssize_t>(x.shape(1), static_cast<py::ssize_t>(list.size()));
    Doubles shares(order), bounds(order);
    float32_shares(view(x), list, mutable_span(shares), mutable_span(bounds));
    return {shares, bounds};
}

std::tuple<Floats, Floats> tridiagonal_of(const Rows& c) {
    const auto n = static_cast<std::size_t>(c.shape(0));
    Floats diagonal(c.shape(0)), off_diagonal(c.shape(0) - 1);
    std::vector<float> copy(c.data(), c.data() + n * n);
    TridiagonalSpace space;
    tridiagonal_form(n, copy.data(), mutable_span(diagonal).data(), mutable_span(off_diagonal).data(), space);
    return {diagonal, off_diagonal};
}

}  // namespace

void bind_dimension(py::module_& module) {
    module.def("intrinsic_dimension", &dimension_of_neighborhoods,
               "How many principal components explain a share of the variance of each token's neighbors.",
               py::arg("x").noconvert(), py::arg("neighbors").noconvert(), py::arg("rows").noconvert(),
               py::kw_only(), py::arg("variance"), py::arg("threads"), py::arg("progress"));
    // For tests and benchmarks, which pass what is valid.
    module.def(
        "float32_shares", &shares_of_float32,
        "The shares of variance that float32 finds for the rows listed, and the bounds of their errors.",
        py::arg("x").noconvert(), py::arg("list"));
    module.def("tridiagonal_form", &tridiagonal_of,
               "Diagonal and off-diagonal of the tridiagonal form that float32 gives a symmetric matrix.",
               py::arg("c").noconvert());
}

}  // namespace embgeom::bindings

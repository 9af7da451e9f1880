#include <tuple>

#include "arrays.hpp"
#include "embgeom/similarity/ranks.hpp"
#include "embgeom/similarity/strata.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

using Numbers = py::array_t<double, py::array::c_style>;
// A matrix, its rows in the order of strata, their center, inverse lengths and mean.
using Directions = std::tuple<Rows, RowNumbers, Numbers, Numbers, Numbers>;

std::vector<double> to_vector(const Numbers& numbers) {
    const std::span<const double> values = span_of(numbers);
    return {values.begin(), values.end()};
}

StratifiedRows stratified(const Directions& directions, const RowNumbers& begins) {
    const auto& [matrix, order, center, inverse, mean] = directions;
    const RowSet rows = RowSet::selected(view(matrix), span_of(order));
    return {{rows, to_vector(center), to_vector(inverse), to_vector(mean)}, span_of(begins)};
}

std::tuple<Doubles, Doubles, Doubles, Doubles> moments_of_strata(const Directions& directions,
                                                                 const RowNumbers& begins, int threads,
                                                                 const py::object& progress) {
    const StratifiedRows rows = stratified(directions, begins);
    const auto count = static_cast<py::ssize_t>(rows.count()),
               width = static_cast<py::ssize_t>(rows.unit.width());
    Doubles means({count, width}), squares(count), along(count), products({count, count});
    const StratumMoments result{.means = mutable_view(means),
                                .squares = mutable_span(squares),
                                .along = mutable_span(along),
                                .products = mutable_view(products)};
    run_unlocked(progress, [&](Monitor& monitor) { stratum_moments(rows, threads, monitor, result); });
    return {means, squares, along, products};
}

Doubles norms_of_strata(const Directions& a, const Directions& b, const RowNumbers& begins,
                        const Numbers& means_a, const Numbers& means_b, const Numbers& shared,
                        const Numbers& factors, int threads, const py::object& progress) {
    const StratifiedRows of_a = stratified(a, begins), of_b = stratified(b, begins);
    Doubles norms(factors.shape(0));
    const std::span<double> into = mutable_span(norms);
    const MatrixBetween between{.shared = view(shared),
                                .factors = span_of(factors),
                                .means_a = view(means_a),
                                .means_b = view(means_b)};
    run_unlocked(progress,
                 [&](Monitor& monitor) { stratum_norms(of_a, of_b, between, threads, monitor, into); });
    return norms;
}

std::tuple<LongIntegers, Doubles> order_and_ranks(const py::array_t<float, py::array::c_style>& values,
                                                  const py::object& progress) {
    LongIntegers order(values.size());
    Doubles ranks(values.size());
    const std::span<std::int64_t> order_into = mutable_span(order);
    const std::span<double> ranks_into = mutable_span(ranks);
    run_unlocked(progress, [&](Monitor&) { rank(span_of(values), order_into, ranks_into); });
    return {order, ranks};
}

double rank_correlation_of_products(const Rows& x, const Numbers& ranks, const py::object& progress) {
    double found = 0.0;
    run_unlocked(progress, [&](Monitor&) { found = rank_correlation(view(x), span_of(ranks)); });
    return found;
}

}  // namespace

void bind_strata(py::module_& module) {
    module.def("stratum_moments", &moments_of_strata,
               "Means and scatters of directions within strata, and the products of the scatters.",
               py::arg("directions").noconvert(), py::arg("begins").noconvert(), py::kw_only(),
               py::arg("threads"), py::arg("progress"));
    module.def("stratum_norms", &norms_of_strata,
               "Norms of the products of two matrices' deviations within strata, with a matrix between them.",
               py::arg("a").noconvert(), py::arg("b").noconvert(), py::arg("begins").noconvert(),
               py::arg("means_a").noconvert(), py::arg("means_b").noconvert(), py::kw_only(),
               py::arg("shared").noconvert(), py::arg("factors").noconvert(), py::arg("threads"),
               py::arg("progress"));
    module.def("rank", &order_and_ranks, "The order of values and their ranks, equal ones averaged.",
               py::arg("values").noconvert(), py::kw_only(), py::arg("progress"));
    module.def("rank_correlation", &rank_correlation_of_products,
               "The rank correlation of numbers whose centered ranks are given with the products of rows.",
               py::arg("x").noconvert(), py::arg("ranks").noconvert(), py::kw_only(), py::arg("progress"));
}

}  // namespace embgeom::bindings

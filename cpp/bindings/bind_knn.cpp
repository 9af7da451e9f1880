#include "arrays.hpp"
#include "embgeom/knn/knn.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

std::tuple<Integers, Floats> answer(const KnnQuestion& question, int threads, const py::object& progress) {
    const std::size_t capacity = knn_capacity(question);
    WideMatrix<std::int32_t> indices(question.queries.size, capacity);
    WideMatrix<float> similarities(question.queries.size, capacity);
    run_unlocked(progress, [&](Monitor& monitor) {
        knn(question, threads, monitor, indices.view(), similarities.view());
    });
    return {indices.keep_columns(question.k), similarities.keep_columns(question.k)};
}

std::tuple<Integers, Floats> knn_of_rows(const Rows& x, const std::optional<RowNumbers>& rows, std::size_t k,
                                         Metric metric, bool exclude_self, int threads,
                                         const py::object& progress) {
    const KnnQuestion question{.queries = row_set(x, rows),
                               .base = RowSet::all(view(x)),
                               .k = k,
                               .metric = metric,
                               .queries_are_base_rows = true,
                               .self_join = !rows,
                               .exclude_self = exclude_self};
    return answer(question, threads, progress);
}

std::tuple<Integers, Floats> knn_of_queries(const Rows& x, const Rows& queries, std::size_t k, Metric metric,
                                            int threads, const py::object& progress) {
    const KnnQuestion question{.queries = RowSet::all(view(queries)),
                               .base = RowSet::all(view(x)),
                               .k = k,
                               .metric = metric,
                               .queries_are_base_rows = false,
                               .self_join = false,
                               .exclude_self = false};
    return answer(question, threads, progress);
}

}  // namespace

void bind_knn(py::module_& module) {
    py::enum_<Metric>(module, "Metric")
        .value("cosine", Metric::cosine)
        .value("inner_product", Metric::inner_product)
        .value("euclidean", Metric::euclidean);
    module.def("knn_of_rows", &knn_of_rows,
               "The k nearest rows of x for all of its rows, or for those listed.", py::arg("x").noconvert(),
               py::arg("rows").noconvert(), py::kw_only(), py::arg("k"), py::arg("metric"),
               py::arg("exclude_self"), py::arg("threads"), py::arg("progress"));
    module.def("knn_of_queries", &knn_of_queries, "The k nearest rows of x for each row of another matrix.",
               py::arg("x").noconvert(), py::arg("queries").noconvert(), py::kw_only(), py::arg("k"),
               py::arg("metric"), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

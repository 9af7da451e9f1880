#include "arrays.hpp"
#include "embgeom/similarity/similarity.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

double correlation_of_similarities(const Rows& a, const Rows& b, const std::optional<RowNumbers>& rows,
                                   bool center, bool include_diagonal, int threads,
                                   const py::object& progress) {
    return run_unlocked(progress, [&](Monitor& monitor) {
        return global_similarity(row_set(a, rows), row_set(b, rows),
                                 {.center = center, .include_diagonal = include_diagonal}, threads, monitor);
    });
}

}  // namespace

void bind_similarity(py::module_& module) {
    module.def("global_similarity", &correlation_of_similarities,
               "Correlation of two matrices' pairwise cosine similarities.", py::arg("a").noconvert(),
               py::arg("b").noconvert(), py::arg("rows").noconvert(), py::kw_only(), py::arg("center"),
               py::arg("include_diagonal"), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

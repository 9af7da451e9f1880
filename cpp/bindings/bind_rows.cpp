#include <cmath>

#include "arrays.hpp"
#include "embgeom/base/rows.hpp"
#include "python_monitor.hpp"

namespace embgeom::bindings {
namespace {

std::tuple<Doubles, LongIntegers> row_stats(const Rows& x, int threads, const py::object& progress) {
    auto [norms, first_equal] = run_unlocked(progress, [&](Monitor& monitor) {
        std::vector<double> lengths = squared_norms(view(x), "x", threads, monitor);
        std::vector<std::int64_t> equal = first_equal_rows(view(x), lengths, threads, monitor);
        for (double& length : lengths) length = std::sqrt(length);
        return std::pair(std::move(lengths), std::move(equal));
    });
    return {copy_to_array(norms), copy_to_array(first_equal)};
}

}  // namespace

void bind_rows(py::module_& module) {
    module.def("row_stats", &row_stats, "Norms of the rows of x, and the first row equal to each.",
               py::arg("x").noconvert(), py::kw_only(), py::arg("threads"), py::arg("progress"));
}

}  // namespace embgeom::bindings

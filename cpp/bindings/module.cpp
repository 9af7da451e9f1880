#include <pybind11/pybind11.h>

#include "embgeom/base/error.hpp"
#include "embgeom/base/parallel.hpp"
#include "embgeom/linalg/blas.hpp"

namespace embgeom::bindings {

void bind_instructions(pybind11::module_& module);
void bind_rows(pybind11::module_& module);
void bind_knn(pybind11::module_& module);
void bind_lle(pybind11::module_& module);
void bind_dimension(pybind11::module_& module);
void bind_agreement(pybind11::module_& module);
void bind_similarity(pybind11::module_& module);
void bind_strata(pybind11::module_& module);
void bind_paired_products(pybind11::module_& module);

}  // namespace embgeom::bindings

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "The compiled kernels of embgeom; use the functions of the package, which check their input.";

    namespace bindings = embgeom::bindings;
    embgeom::blas::use_one_thread();
    pybind11::register_exception<embgeom::InvalidInput>(
        module, "InvalidInput", pybind11::module_::import("embgeom.errors").attr("InputError"));
    // A daemon thread may be inside a kernel when the interpreter exits.
    pybind11::module_::import("atexit").attr("register")(pybind11::cpp_function(
        &embgeom::abandon_loops, pybind11::call_guard<pybind11::gil_scoped_release>()));
    bindings::bind_instructions(module);
    bindings::bind_rows(module);
    bindings::bind_knn(module);
    bindings::bind_lle(module);
    bindings::bind_dimension(module);
    bindings::bind_agreement(module);
    bindings::bind_similarity(module);
    bindings::bind_strata(module);
    bindings::bind_paired_products(module);
}

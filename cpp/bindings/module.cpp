#include <pybind11/pybind11.h>

#include "embgeom/blas.hpp"
#include "embgeom/error.hpp"

namespace embgeom::bindings {

void bind_rows(pybind11::module_& module);
void bind_knn(pybind11::module_& module);
void bind_lle(pybind11::module_& module);
void bind_dimension(pybind11::module_& module);
void bind_similarity(pybind11::module_& module);

}  // namespace embgeom::bindings

PYBIND11_MODULE(_core, module) {
    module.doc() =
        "The compiled kernels of embgeom; use the functions of the package, which check their input.";

    namespace bindings = embgeom::bindings;
    embgeom::blas::use_one_thread();
    pybind11::register_exception<embgeom::InvalidInput>(
        module, "InvalidInput", pybind11::module_::import("embgeom.errors").attr("InputError"));
    bindings::bind_rows(module);
    bindings::bind_knn(module);
    bindings::bind_lle(module);
    bindings::bind_dimension(module);
    bindings::bind_similarity(module);
}

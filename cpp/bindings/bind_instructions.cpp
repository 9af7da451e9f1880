#include <pybind11/pybind11.h>

#include <string>

#include "embgeom/base/multiversion.hpp"
#include "embgeom/linalg/blas.hpp"

namespace embgeom::bindings {

void bind_instructions(pybind11::module_& module) {
    module.def(
        "instruction_set", [] { return std::string(instruction_set()) + ", " + blas::name(); },
        "The widest instructions that the kernels use on this processor (avx512, avx2 or base), "
        "and the BLAS library with the core for which it chose its own.");
}

}  // namespace embgeom::bindings

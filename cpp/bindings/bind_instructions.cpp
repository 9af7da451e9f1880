#include <pybind11/pybind11.h>

#include "embgeom/base/multiversion.hpp"

namespace embgeom::bindings {

void bind_instructions(pybind11::module_& module) {
    module.def("instruction_set", &instruction_set,
               "The widest instructions that the kernels use on this processor: avx512, avx2 or base.");
}

}  // namespace embgeom::bindings

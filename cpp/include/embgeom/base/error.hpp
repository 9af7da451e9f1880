#pragma once

#include <stdexcept>

namespace embgeom {

// An input that the caller can fix; the message names the value and how to fix it.
// Python sees it as embgeom.errors.InputError.
struct InvalidInput : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

}  // namespace embgeom

#pragma once

#include <stdexcept>

namespace embgeom {

// The caller's values cannot be worked with; the message names the value and the way out.
// Python sees it as embgeom.errors.InputError.
struct InvalidInput : std::invalid_argument {
    using std::invalid_argument::invalid_argument;
};

}  // namespace embgeom

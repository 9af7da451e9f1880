#include "embgeom/linalg/product_kernel.hpp"
#include "embgeom/linalg/symmetric_kernel.hpp"

#if defined(EMBGEOM_HAS_AVX2_CODE)

namespace embgeom {
namespace {

using Vector [[gnu::vector_size(64)]] = float;

}

void multiply_avx512(std::size_t left_count, std::size_t right_count, std::size_t width, const float* left,
                     const float* right, float* products, std::size_t stride, bool add) {
    multiply_all<Vector, avx512_panels>(left_count, right_count, width, left, right, products, stride, add);
}

const SymmetricKernel symmetric_avx512 = SymmetricLoops<Vector>::kernel;

}  // namespace embgeom

#endif
